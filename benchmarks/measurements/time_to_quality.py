"""How long until FlowJAX's quality? Two tables, FlowJAX's ``fit_to_data`` against ``fit_table``.

    .bench/torch/bin/python benchmarks/measure.py time_to_quality --data DIR --threads 2 [--full 120]

Mean test nats a row and seconds of wall-clock time from data in memory to a fitted flow. FlowJAX: five
layers, nets with 2 hidden layers of 128, 8 knots, `fit_to_data` with its defaults until it stops, its
compilation included. diffeo: `fit_table` with its defaults but for the budget, a fifth and a tenth of
FlowJAX's seconds or the full one; its seconds include what it does after training (reference densities,
score quantiles). Held-out nats are each library's own, on its own tenth of the training rows. ``reached``:
after how many seconds diffeo's held-out nats first passed the better of FlowJAX's two figures; ``part`` is
that over FlowJAX's time. One after the other, on a machine that does nothing else.
"""

from __future__ import annotations

import math
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import kit
import numpy as np

import diffeo
from diffeo.train import Progress
from measurements import Measurement

PARTS = (5, 10)


class Timeline:
    """Held-out nats by seconds since the start of everything, the race between presets included."""

    def __init__(self) -> None:
        self.started, self.curve = time.perf_counter(), []

    def on_progress(self, progress: Progress) -> None:
        if not math.isnan(progress.valid):
            self.curve.append((progress.step, time.perf_counter() - self.started, progress.valid))


def flowjax(train: np.ndarray, test: np.ndarray, seed: int, asked: Namespace) -> kit.Row:
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "train.npy", train)
        np.save(Path(folder) / "test.npy", test)
        given = [folder, seed, asked.depth, asked.threads]
        return kit.answer([kit.python("jax"), "-m", "peers.libraries.flowjax", *given], asked.threads)


def ours(train: diffeo.Table, test: diffeo.Table, budget: float, seed: int) -> kit.Row:
    timeline = Timeline()
    flow, report = diffeo.fit_table(train, max_seconds=budget, seed=seed, callbacks=[timeline])
    seconds = time.perf_counter() - timeline.started
    score = float(diffeo.tables.score_table(flow, test).log_prob.mean())
    held = {"test nats": score, "held-out nats": report.training.valid, "curve": timeline.curve}
    return {"model": "diffeo", "budget": budget, "seconds": seconds, **held}


def rows(asked: Namespace) -> Iterator[kit.Row]:
    kit.pin(asked.threads)
    for name, seed in product(asked.names, asked.seeds):
        train, test = kit.tables(asked, name)
        place = {"table": name, "seed": seed}
        theirs = flowjax(train.values.astype(np.float32), test.values.astype(np.float32), seed, asked)
        whole, target = theirs["seconds"], max(theirs["test"], theirs["valid"])
        held = {"test nats": theirs["test"], "held-out nats": theirs["valid"], "epochs": theirs["epochs"]}
        yield {**place, "model": "FlowJAX", "budget": None, "seconds": whole, **held}
        for budget in [asked.full, *(whole / part for part in PARTS)]:
            row = {**place, **ours(train, test, budget, seed)}
            reached = next((seconds for _, seconds, valid in row["curve"] if valid >= target), None)
            yield {**row, "reached": reached, "part": reached and reached / whole}


OPTIONS = {
    "--names": ["galaxies", "protein"],
    "--depth": (2, "hidden layers of FlowJAX's nets"),
    "--full": (120.0, "diffeo's default budget in seconds"),
}
USUAL = {"data": ..., "seeds": ..., "threads": 2}
HIDDEN = ("curve", "epochs")
MEASUREMENT = Measurement(__doc__, rows, USUAL, OPTIONS, HIDDEN, True, lambda asked: ["FlowJAX"])
