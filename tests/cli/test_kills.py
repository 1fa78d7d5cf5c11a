"""Commands that are killed at random moments end with the same bits and lose nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import diffeo

SCRIPT = Path(__file__).parent / "killable.py"
KILLS, SEED = 2, 0


def test_killed_commands_lose_nothing(tmp_path: Path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(diffeo.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, str(KILLS), str(SEED)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 5  # commands
