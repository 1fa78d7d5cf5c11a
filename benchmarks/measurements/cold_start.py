"""Seconds from the start of a new process to its first result: NSF, D = 64, batch 1024.

    python benchmarks/measure.py cold_start --threads 2 [--rounds 5]

Five layers, nets of 64 x 64, 8 bins. Everything is included: the interpreter, imports, building, compiling.
Medians, and in brackets least and greatest; processes take turns, and a first round that fills the caches of
files and bytecode does not count. Needs the environments of `make bench`.
"""

from __future__ import annotations

import subprocess
import time
from argparse import Namespace
from collections.abc import Iterator

import kit
from peers.libraries import ENTRIES, OURS

from measurements import Measurement

KINDS = ("log_prob", "train", "sample")


def first_result(name: str, kind: str, threads: int) -> float:
    """Seconds until the process says that it has its result; its end is not waited for."""
    command = ["-m", "peers.cold", name, kind, str(threads)]
    if kind == "import":
        command = ["-c", "import torch; print('done', flush=True)"]
    interpreter = kit.python(ENTRIES[name].venv if name in ENTRIES else "torch")
    env, pipe, null = kit.environment(threads), subprocess.PIPE, subprocess.DEVNULL
    tick = time.perf_counter()
    process = subprocess.Popen([interpreter, *command], stdout=pipe, stderr=null, text=True, env=env)
    assert process.stdout is not None
    said = process.stdout.readline()
    spent = time.perf_counter() - tick
    process.communicate()
    if said.strip() != "done":
        raise RuntimeError(f"{name} {kind} ended without a result")
    return spent


def rows(asked: Namespace) -> Iterator[kit.Row]:
    cells = [("import torch", "import"), *((n, k) for k in KINDS for n in asked.contestants), (OURS, "fit")]
    rounds = [[first_result(*cell, asked.threads) for cell in cells] for _ in range(asked.rounds + 1)]
    for (name, kind), seconds in zip(cells, zip(*rounds[1:], strict=True), strict=True):
        yield {"process": name, "first result": kind, "seconds": sorted(seconds)}


OPTIONS = {"--contestants": ([OURS, "zuko", "FlowJAX"], f"of {', '.join(ENTRIES)}")}
USUAL = {"rounds": ..., "threads": 2}
MEASUREMENT = Measurement(__doc__, rows, USUAL, OPTIONS, page=True, stands_on=lambda asked: asked.contestants)
