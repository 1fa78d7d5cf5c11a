"""Runs the reader of damaged files in a process of its own, and notices how that ends."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SECONDS, MEGABYTES = 5.0, 500.0
"""What reading one file may take, of the processor and of memory, all that is imported among it."""
_START, _HANGS, _BATCH = 300.0, 120.0, 2000
"""Seconds to the first file and for one that hangs, on a busy machine; files of a process."""
_ROOT = Path(__file__).parents[2]


def outcomes(kind: str, first: int, count: int) -> Iterator[dict[str, Any]]:
    """What became of each of these files: its number, its name, a result, seconds, megabytes."""
    end = first + count
    while first < end:
        for found in _batch(kind, first, min(_BATCH, end - first)):
            yield found
            first = found["number"] + 1


def failed(found: dict[str, Any]) -> bool:
    """Whether it is a fault of the reader."""
    slow = found.get("seconds", 0) > SECONDS or found.get("megabytes", 0) > MEGABYTES
    return found["result"] not in ("read", "refused") or slow


def _batch(kind: str, first: int, count: int) -> Iterator[dict[str, Any]]:
    """These files in one process, up to the first that ends it or hangs it."""
    paths = os.pathsep.join([str(_ROOT / "src"), str(_ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fuzz.child", kind, str(first), str(count)]
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "stderr"), "wb") as errors:
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors)
        assert child.stdout is not None
        lines = _Lines(child.stdout.fileno())
        about: dict[str, Any] = {}
        try:
            for _ in range(count):
                about = json.loads(lines.next(_START))
                found, about = {**about, **json.loads(lines.next(_HANGS))}, {}
                yield found
        except TimeoutError:
            child.kill()
            if not about:
                raise RuntimeError("no file was made in time") from None
            yield {**about, "result": "hang", "seconds": _HANGS}
        except EOFError:
            said = Path(folder, "stderr").read_text(errors="replace")[-500:]
            if not about:
                raise RuntimeError(f"no file was made: {said}") from None
            yield {**about, "result": "abort", "error": f"exit code {child.wait()}: {said}"}
        finally:
            child.kill()
            child.wait()
            child.stdout.close()


class _Lines:
    """Lines of a pipe, each waited for so long and no longer."""

    def __init__(self, pipe: int):
        self.pipe, self.rest = pipe, b""
        self.ready = selectors.DefaultSelector()
        self.ready.register(pipe, selectors.EVENT_READ)

    def next(self, seconds: float) -> bytes:
        while b"\n" not in self.rest:
            if not self.ready.select(seconds):
                raise TimeoutError
            if not (got := os.read(self.pipe, 65_536)):
                raise EOFError
            self.rest += got
        line, _, self.rest = self.rest.partition(b"\n")
        return line
