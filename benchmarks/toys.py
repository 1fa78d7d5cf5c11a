"""Gap to the exact entropy on the eight toys, and pictures: makes docs/results/toys.md.

    python benchmarks/toys.py [--presets IResNet FFJORD FlowMatching NAF] [--names rings ...] [--seconds 90]
                              [--jobs 2]

For each preset and toy: a fit of so many seconds on one thread, then the gap on 100,000 fresh points, and a
picture of training rows, samples and density. Each run that ends replaces the row of its preset and toy in
RESULTS/toys.jsonl and its part of PAGES/toys-PRESET.png; the rest stays, so that some can be run again. From
all rows, old and new, PAGES/toys.md is written. ``--jobs 2`` runs two at a time, each on a core of its own.
"""

from __future__ import annotations

import argparse
import ast
import math
import multiprocessing
import os
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
from peers.machine import machine
from PIL import Image
from toy_pages import Row, keep_row, keep_tile, read_rows, target, tile, write_page

import diffeo
from diffeo import Flow
from diffeo.presets import PRESETS
from diffeo.targets import TOYS
from diffeo.train.report import Progress, versions

ROOT = Path(__file__).parents[1]
FRESH = 100_000
CHUNK = 8192
TELL_SECONDS = 15.0
SETTINGS: dict[str, dict[str, Any]] = {"NSF": {"layers": 4, "hidden": 64, "bins": 16}}
"""Where a preset is not taken as it comes."""


class Tell:
    """Says every now and then where a run stands."""

    def __init__(self, preset: str, name: str):
        self.start, self.last = f"{preset} {name}", time.monotonic()

    def __call__(self, what: str) -> None:
        if time.monotonic() - self.last > TELL_SECONDS:
            self.last = time.monotonic()
            print(f"{self.start}: {what}", flush=True)

    def on_progress(self, progress: Progress) -> None:
        steps = "?" if progress.steps is None else progress.steps
        self(f"step {progress.step} of {steps}, {progress.seconds:.0f} s, {progress.train:.3f} nats a row")


def scores(flow: Flow, x: torch.Tensor, tell: Tell) -> torch.Tensor:
    """Log-densities in float64, a part at a time: the solve of a continuous flow is long."""
    found: list[torch.Tensor] = []
    with torch.no_grad():
        for part in x.split(CHUNK):
            found.append(flow.log_prob(part).double())
            tell(f"scored {sum(map(len, found))} of {len(x)} fresh points")
    return torch.cat(found)


def run(preset: str, name: str, fields: dict[str, Any], asked: argparse.Namespace) -> tuple[Row, Image.Image]:
    """One preset on one toy: its row, and its part of the picture."""
    toy, tell = TOYS[name], Tell(preset, name)
    generator = torch.Generator().manual_seed(asked.seed)
    rows, fresh = toy.sample(asked.rows, generator), toy.sample(FRESH, generator)
    torch.manual_seed(asked.seed)
    flow = PRESETS[preset](features=2, **fields).build()
    report = diffeo.fit(flow, rows, max_seconds=asked.seconds, seed=asked.seed, callbacks=[tell])
    tick = time.monotonic()
    log_prob = scores(flow, fresh, tell)
    scoring = time.monotonic() - tick
    excess = toy.log_prob(fresh).double() - log_prob
    gap = excess.mean().item()
    row: Row = {
        "preset": preset,
        "toy": name,
        "gap": round(gap, 4),
        "standard_error": round(excess.std().item() / math.sqrt(FRESH), 4),
        "target": target(preset, name),
        "nll": round(-log_prob.mean().item(), 4),
        "entropy": toy.entropy,
        "steps": report.steps,
        "best_step": report.best_step,
        "stopped": report.stopped,
        "seconds": round(report.seconds, 1),
        "scoring": round(scoring, 1),
        "parameters": sum(p.numel() for p in flow.parameters()),
        "fields": fields,
        "rows": asked.rows,
        "fresh": FRESH,
        "seed": asked.seed,
        "budget": asked.seconds,
        "jobs": asked.jobs,
        "machine": machine(1),
        "versions": {**versions(), "kernels": diffeo.kernels.describe().removeprefix("kernels: ")},
    }
    return row, tile(flow, rows, name, gap, asked.seed)


def settle(cores: Queue[int]) -> None:
    """Keep this process on one thread and, where the system can, on a core of its own."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cores.get()})


def setting(item: str) -> tuple[str, Any]:
    """``layers=4``, ``hidden=64,64``, ``lipschitz=0.9``."""
    name, value = item.split("=")
    return name, ast.literal_eval(value)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    some = ["IResNet", "FFJORD", "FlowMatching", "NAF"]
    parser.add_argument("--presets", nargs="*", default=some, help="none: only write the page again")
    parser.add_argument("--names", nargs="+", default=list(TOYS), choices=list(TOYS))
    parser.add_argument("--seconds", type=float, default=90.0, help="of each fit")
    parser.add_argument("--rows", type=int, default=100_000, help="to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--set", nargs="*", default=[], type=setting, help="fields of the presets: layers=4")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--pages", type=Path, default=ROOT / "docs" / "results")
    asked = parser.parse_args()
    for preset in asked.presets:
        if preset not in PRESETS:
            parser.error(f"there is no preset {preset}; there are {', '.join(PRESETS)}.")
    if not 1 <= asked.jobs <= (os.cpu_count() or 1):
        parser.error(f"--jobs must be from 1 to {os.cpu_count()}, the number of cores.")
    return asked


def main() -> None:
    asked = options()
    kept, page = asked.results / "toys.jsonl", asked.pages / "toys.md"
    command = shlex.join(["python", "benchmarks/toys.py", *sys.argv[1:]])
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    context = multiprocessing.get_context("spawn")
    cores: Queue[int] = context.Queue()
    for core in available()[: asked.jobs]:
        cores.put(core)
    failed: list[str] = []
    with ProcessPoolExecutor(asked.jobs, context, settle, (cores,)) as pool:
        runs = {}
        for preset in asked.presets:
            fields = {**SETTINGS.get(preset, {}), **dict(asked.set)}
            for name in asked.names:
                runs[pool.submit(run, preset, name, fields, asked)] = (preset, name)
        for future in as_completed(runs):
            preset, name = runs[future]
            if error := future.exception():
                failed.append(f"{preset} {name}: {type(error).__name__}: {error}")
                print(failed[-1], flush=True)
                continue
            row, part = future.result()
            keep_row(kept, {**row, "command": command})
            keep_tile(asked.pages / f"toys-{preset}.png", name, part)
            gap = f"gap {row['gap']:.4f} +- {row['standard_error']:.4f}, target {row['target']}"
            work = f"{row['steps']} steps in {row['seconds']} s, scored in {row['scoring']} s"
            print(f"{preset} {name}: {gap}, {work}", flush=True)
    if rows := read_rows(kept):
        write_page(page, rows)
        print(page)
    if failed:
        sys.exit("failed:\n" + "\n".join(failed))


def available() -> list[int]:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


if __name__ == "__main__":
    main()
