"""Three fits for a test of checkpoints: ``python killable.py FOLDER killed``, then ``... FOLDER resumed``.

The first starts each fit in a process of its own, kills it by SIGKILL in the middle, and then runs each to
its end without a checkpoint. The second, a fresh process, runs the killed ones again. Time-limited fits go
by a clock that ticks whenever it is read, more slowly in a resumed run: only a stored plan gives it the same
length.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch._dynamo  # the first optimizer would, in every child
from safetensors import safe_open
from safetensors.torch import save_file

import diffeo
from diffeo.train import Checkpoint

UNDER_WAY = 30


@dataclass
class Clock:
    """Ticks whenever it is read, and then takes real time too where there must be time to be killed in."""

    tick: float = 0.01
    pause: float = 0.0
    now: float = 0.0

    def __call__(self) -> float:
        self.now += self.tick
        time.sleep(self.pause)
        return self.now


def rows() -> torch.Tensor:
    return torch.randn(150, 2, generator=torch.Generator().manual_seed(3)).cumsum(1)


def a_flow() -> diffeo.Flow:
    torch.manual_seed(1)
    return diffeo.presets.NSF(features=2, layers=2, hidden=8, blocks=1, bins=4, dropout=0.3).build()


def steps(checkpoint: Checkpoint | None, clock: Clock) -> diffeo.Flow:
    flow = a_flow()
    diffeo.fit(flow, rows(), max_steps=100, batch_size=16, checkpoint=checkpoint, clock=clock)
    return flow


def seconds(checkpoint: Checkpoint | None, clock: Clock) -> diffeo.Flow:
    flow = a_flow()
    diffeo.fit(flow, rows(), max_seconds=0.8, batch_size=16, checkpoint=checkpoint, clock=clock)
    return flow


def table(checkpoint: Checkpoint | None, clock: Clock) -> diffeo.Flow:
    """Sizes chosen by a race, noise on a lattice column, a context and weights."""
    columns = {
        "x": rows()[:, 0],
        "n": (3 * rows()[:, 1]).round().long(),
        "c": rows()[:, 1],
        "w": rows()[:, 0].exp(),
    }
    flow, _ = diffeo.fit_table(
        columns, given=["c"], weights="w", max_seconds=1.5, checkpoint=checkpoint, clock=clock
    )
    return flow


FITS = {"steps": steps, "seconds": seconds, "table": table}


def steps_done(checkpoint: Path) -> int:
    if not checkpoint.exists():
        return 0
    with safe_open(checkpoint, framework="pt") as file:
        run = json.loads(file.metadata()["checkpoint"])["run"]
        return 0 if run is None else run["step"]


def run(name: str, folder: Path, with_checkpoint: bool, clock: Clock) -> None:
    checkpoint = Checkpoint(folder / name, every_seconds=0.0) if with_checkpoint else None
    flow = FITS[name](checkpoint, clock)
    save_file(flow.state_dict(), folder / f"{name}.{'resumed' if with_checkpoint else 'whole'}")


def kill(name: str, folder: Path) -> None:
    child = os.fork()
    if child == 0:
        run(name, folder, with_checkpoint=True, clock=Clock(pause=0.01))
        os._exit(0)
    while steps_done(folder / name) <= UNDER_WAY:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended before it could be killed"
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    shutil.copy(folder / name, folder / f"{name}.killed")


def main(folder: Path, mode: str) -> None:
    torch.set_num_threads(1)
    if mode == "killed":
        for name in FITS:
            kill(name, folder)
    for name in FITS:
        resumed = mode == "resumed"
        run(name, folder, resumed, Clock(tick=0.006) if resumed else Clock())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
