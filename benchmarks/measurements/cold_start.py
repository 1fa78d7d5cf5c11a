"""Seconds from the start of a new process to its first result: NSF, D = 64, batch 1024.

    python benchmarks/measure.py cold_start --threads 2 [--rounds 5]

Five layers, nets of 64 x 64, 8 bins. Everything is included: the interpreter, imports, building, compiling.
Medians, and in brackets least and greatest; processes take turns, and a first round that fills the caches of
files and bytecode does not count. Needs the environments of `make bench`.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from functools import partial

import kit
from peers.libraries import ENTRIES, OURS
from peers.worker import once

from measurements import Measurement

KINDS = ("log_prob", "train", "sample")


def rows(asked: Namespace) -> Iterator[kit.Row]:
    cells = [(OURS, "import"), *((name, kind) for kind in KINDS for name in asked.contestants), (OURS, "fit")]
    runs = {cell: partial(once, cell[0], asked.threads, "first", kind=cell[1]) for cell in cells}
    for (name, kind), seconds in kit.by_turns(runs, asked.rounds, warm_up=1).items():
        yield {
            "process": "import torch" if kind == "import" else name,
            "first result": kind,
            "seconds": seconds,
        }


OPTIONS = {"--contestants": ([OURS, "zuko", "FlowJAX"], f"of {', '.join(ENTRIES)}")}
USUAL = {"rounds": ..., "threads": 2}
MEASUREMENT = Measurement(__doc__, rows, USUAL, OPTIONS, page=True, stands_on=lambda asked: asked.contestants)
