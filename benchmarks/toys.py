"""Gap to the exact entropy on the eight toys, and pictures: makes docs/results/toys.md.

    python benchmarks/toys.py [--presets IResNet FFJORD FlowMatching NAF] [--names rings ...] [--seconds 90]
                              [--jobs 2]

For each preset and toy: a fit of so many seconds on one thread, then the gap on 100,000 fresh points, and a
picture of training rows, samples and density. Each run that ends replaces the row of its preset and toy in
RESULTS/toys.jsonl and its part of PAGES/toys-PRESET.png; the rest stays, so that some can be run again. From
all rows, old and new, PAGES/toys.md is written. ``--jobs 2`` runs two at a time, each on a core of its own.
"""

from __future__ import annotations

import ast
import multiprocessing
import os
import sys
import time
from argparse import Namespace
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.queues import Queue
from typing import Any

import kit
import torch
import toy_pages
from PIL import Image

import diffeo
from diffeo.presets import PRESETS
from diffeo.targets import TOYS

SETTINGS: dict[str, dict[str, Any]] = {"NSF": {"layers": 4, "hidden": 64, "bins": 16}}
"""Where a preset is not taken as it comes."""


def run(preset: str, name: str, fields: dict[str, Any], asked: Namespace) -> tuple[kit.Row, Image.Image]:
    """One preset on one toy: its row, and its part of the picture."""
    toy = TOYS[name]
    generator = torch.Generator().manual_seed(asked.seed)
    rows, fresh = toy.sample(asked.rows, generator), toy.sample(asked.fresh, generator)
    torch.manual_seed(asked.seed)
    flow = PRESETS[preset](features=2, **fields).build()
    report = diffeo.fit(flow, rows, max_seconds=asked.seconds, seed=asked.seed)
    tick = time.monotonic()
    with torch.no_grad():
        log_prob = torch.cat([flow.log_prob(part).double() for part in fresh.split(8192)])
    scoring = time.monotonic() - tick
    gap = kit.mean_and_error(toy.log_prob(fresh).double() - log_prob)
    row = {
        "preset": preset,
        "toy": name,
        "gap": gap["test"],
        "standard_error": gap["standard_error"],
        "target": toy_pages.target(preset, name),
        "nll": round(-log_prob.mean().item(), 4),
        "entropy": toy.entropy,
        **kit.fitted(report),
        "scoring": round(scoring, 1),
        "parameters": kit.size(flow),
        "fields": fields,
        **{key: getattr(asked, key) for key in ("rows", "fresh", "seed", "jobs")},
        "budget": asked.seconds,
    }
    return row, toy_pages.tile(flow, rows, name, row["gap"], asked.seed)


def settle(cores: Queue[int]) -> None:
    """Keep this process on one thread and, where the system can, on a core of its own."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cores.get()})


def setting(item: str) -> tuple[str, Any]:
    """``layers=4``, ``hidden=64,64``, ``lipschitz=0.9``."""
    name, value = item.split("=")
    return name, ast.literal_eval(value)


def options() -> kit.Options:
    parser = kit.Options(__doc__, seconds=90.0, seed=..., results=..., pages=...)
    some = ["IResNet", "FFJORD", "FlowMatching", "NAF"]
    parser.option("--presets", some, "none: only write the page again", nargs="*", choices=list(PRESETS))
    parser.option("--names", list(TOYS), choices=list(TOYS))
    parser.option("--rows", 100_000, "to train on")
    parser.option("--fresh", 100_000, "points to score")
    parser.option("--jobs", 1, "runs at a time", choices=range(1, len(available()) + 1))
    return parser.option("--set", [], "fields of the presets: layers=4", nargs="*", type=setting)


def main() -> None:
    asked = options().parse_args()
    store, provenance = toy_pages.store(asked.results), kit.provenance("toys.py", asked)
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
            store.keep({**row, **provenance})
            toy_pages.keep_tile(asked.pages / f"toys-{preset}.png", name, part)
            print({k: row[k] for k in ("preset", "toy", "gap", "target", "steps", "seconds")}, flush=True)
    if rows := store.read():
        kit.fill(asked.pages / "toys.md", toy_pages.blocks(rows, asked.pages))
    if failed:
        sys.exit("failed:\n" + "\n".join(failed))


def available() -> list[int]:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


if __name__ == "__main__":
    main()
