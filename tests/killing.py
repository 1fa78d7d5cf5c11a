"""How tests kill fits: a script names its fits, and ``killed(SCRIPT, folder)`` runs it twice.

In the first process each fit is started in a child of its own, which kills itself by SIGKILL at a chosen
moment, and then runs to its end without a checkpoint. The second, a fresh process, takes up the killed ones,
by a clock that goes more slowly: only what the checkpoint keeps gives a time-limited run the same length.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import diffeo
from diffeo.train import Checkpoint


@dataclass
class Clock:
    """Ticks whenever it is read."""

    tick: float = 0.01
    now: float = 0.0

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


@dataclass
class Killer:
    """A callback that ends the process when a part of the fit has come so far."""

    stage: str
    step: int

    def on_progress(self, progress: diffeo.train.Progress) -> None:
        if progress.stage == self.stage and progress.step >= self.step:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Case:
    """A fit that takes training options and gives what must come out the same, and when to kill it."""

    fit: Callable[..., dict[str, Tensor]]
    stage: str
    step: int


def run(cases: dict[str, Case]) -> None:
    """What a script does when it is called: ``SCRIPT FOLDER killed`` or ``SCRIPT FOLDER resumed``."""
    folder, mode = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    whole: dict[Any, dict[str, Tensor]] = {}
    for name, case in cases.items():
        keeper = Checkpoint(folder / name, every_seconds=0.0)
        if mode == "resumed":
            found = case.fit(checkpoint=keeper, clock=Clock(tick=0.006))
            save_file(found, folder / f"{name}.resumed")
            continue
        child = os.fork()
        if child == 0:
            case.fit(checkpoint=keeper, clock=Clock(), callbacks=[Killer(case.stage, case.step)])
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert os.WTERMSIG(status) == signal.SIGKILL, f"{name} was not killed"
        shutil.copy(keeper.path, folder / f"{name}.killed")
        if case.fit not in whole:
            whole[case.fit] = case.fit(clock=Clock())
        save_file(whole[case.fit], folder / f"{name}.whole")


def killed(script: Path, folder: Path) -> Path:
    """Both processes of a script; the folder has each fit's ``.killed``, ``.whole`` and ``.resumed``."""
    paths = os.pathsep.join([str(Path(diffeo.__file__).parents[1]), str(Path(__file__).parent)])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    for mode in ("killed", "resumed"):
        subprocess.run([sys.executable, script, folder, mode], env=environment, check=True, timeout=300)
    return folder
