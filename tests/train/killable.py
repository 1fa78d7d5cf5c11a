"""Fits for a test that kills them: ``python killable.py FOLDER steps=resumed seconds=doomed ...``.

Each is ``whole`` (without a checkpoint), ``doomed`` (slow once it is under way, so that there is time to
kill it) or ``resumed``, and leaves its weights in FOLDER. Time-limited ones go by a clock that ticks once a
step, faster in a resumed run: only a stored plan gives it the same length.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file

import diffeo
from diffeo.train import Checkpoint, loop
from diffeo.train import table as tables

UNDER_WAY = 30
TICKS = {"whole": 0.01, "doomed": 0.01, "resumed": 0.006}

clock = SimpleNamespace(now=0.0, tick=0.0, slow=False)
train_step = loop.Run._train_step


def timed_step(run, batch):
    clock.now += clock.tick
    if clock.slow and run.step > UNDER_WAY and run.plan is not None:
        time.sleep(0.05)
    return train_step(run, batch)


def rows() -> torch.Tensor:
    return torch.randn(150, 2, generator=torch.Generator().manual_seed(3)).cumsum(1)


def a_flow() -> diffeo.Flow:
    torch.manual_seed(1)
    return diffeo.presets.NSF(features=2, layers=2, hidden=8, blocks=1, bins=4, dropout=0.3).build()


def steps(checkpoint: Checkpoint | None) -> diffeo.Flow:
    flow = a_flow()
    diffeo.fit(flow, rows(), max_steps=100, batch_size=16, checkpoint=checkpoint)
    return flow


def seconds(checkpoint: Checkpoint | None) -> diffeo.Flow:
    flow = a_flow()
    diffeo.fit(flow, rows(), max_seconds=0.8, batch_size=16, checkpoint=checkpoint)
    return flow


def table(checkpoint: Checkpoint | None) -> diffeo.Flow:
    """Sizes chosen by a race, noise on a lattice column, a context and weights."""
    columns = {"x": rows()[:, 0], "n": (3 * rows()[:, 1]).round().long(), "c": rows()[:, 1], "w": rows()[:, 0].exp()}
    path = None if checkpoint is None else checkpoint.path
    flow, _ = diffeo.fit_table(columns, given=["c"], weights="w", max_seconds=1.0, checkpoint=path)
    return flow


FITS = {"steps": steps, "seconds": seconds, "table": table}


def main(folder: Path, orders: list[str]) -> None:
    torch.set_num_threads(1)
    loop.time = tables.time = SimpleNamespace(monotonic=lambda: clock.now)
    loop.Run._train_step = timed_step
    tables.Checkpoint = partial(Checkpoint, every_seconds=0.0)
    tables._plain = lambda *_: {}
    for name, mode in (order.split("=") for order in orders):
        clock.now, clock.tick, clock.slow = 0.0, TICKS[mode], mode == "doomed"
        checkpoint = None if mode == "whole" else Checkpoint(folder / name, every_seconds=0.0)
        save_file(FITS[name](checkpoint).state_dict(), folder / f"{name}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
