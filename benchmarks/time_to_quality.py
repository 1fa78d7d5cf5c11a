"""How long until FlowJAX's quality? Two tables, FlowJAX's ``fit_to_data`` defaults against ``fit_table``'s.

    python benchmarks/time_to_quality.py --data DIR [--names galaxies protein] [--seeds 0] [--full 120]

First FlowJAX fits until it stops: its seconds, its test nats. Then ``fit_table`` with a fifth and with a
tenth of those seconds as its budget, and once with its default budget, whose curve tells when the held-out
nats first passed what FlowJAX ended with (the better of its test and validation nats). One after the
other, on a machine that does nothing else. Run by .bench/torch/bin/python, which `make bench` makes.
Writes RESULTS/time_to_quality.json and RESULTS/time_to_quality.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import data
import numpy as np
import torch
from peers.contestants import OURS
from peers.machine import machine, pin
from peers.processes import ROOT, environment, python, versions

import diffeo
from diffeo.train.report import Progress

NAMES = ("galaxies", "protein")
PARTS = (5, 10)


class Snapshot:
    """Held-out nats by seconds since the start of everything, the race between presets included."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.points: list[tuple[float, float]] = []

    def on_progress(self, progress: Progress) -> None:
        if progress.valid == progress.valid:
            self.points.append((time.perf_counter() - self.started, progress.valid))


def flowjax(train: np.ndarray, test: np.ndarray, seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "train.npy", train)
        np.save(Path(folder) / "test.npy", test)
        arguments = [folder, str(seed), str(asked.depth), str(asked.threads)]
        done = subprocess.run(
            [str(python("jax")), "-m", "peers.flowjax_fit", *arguments],
            env=environment(asked.threads),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def ours(train: diffeo.Table, test: diffeo.Table, budget: float, seed: int) -> dict[str, Any]:
    watch = Snapshot()
    flow, report = diffeo.fit_table(train, max_seconds=budget, seed=seed, callbacks=[watch])
    seconds = time.perf_counter() - watch.started
    score = float(diffeo.tables.score_table(flow, test).log_prob.mean())
    return {"budget": budget, "seconds": seconds, "test": score, "valid": report.valid, "curve": watch.points}


def compare(name: str, seed: int, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    train, test = (diffeo.Table.read(folder / f"{name}_{part}.parquet") for part in ("train", "test"))
    theirs = flowjax(train.values.astype(np.float32), test.values.astype(np.float32), seed, asked)
    print(name, seed, "FlowJAX", json.dumps(theirs), flush=True)
    target = max(theirs["test"], theirs["valid"])
    runs = []
    for budget in [asked.full, *(theirs["seconds"] / part for part in PARTS)]:
        run = ours(train, test, budget, seed)
        run["reached"] = next((seconds for seconds, valid in run["curve"] if valid >= target), None)
        runs.append(run)
        print(name, seed, "diffeo", json.dumps({**run, "curve": "..."}), flush=True)
    return {"table": name, "seed": seed, "flowjax": theirs, "target": target, "diffeo": runs}


def markdown(found: dict[str, Any]) -> str:
    place = found["machine"]
    lines = [
        "# Time to quality",
        "",
        "Mean test nats a row and seconds of wall-clock time from data in memory to a fitted flow. FlowJAX:",
        f"five layers, nets with {found['depth']} hidden layers of 128, 8 knots, `fit_to_data` with its",
        "defaults, its compilation included. diffeo: `fit_table` with its defaults but for the budget; its",
        "seconds include what it does after training (reference densities, score quantiles). Held-out nats",
        "are each library's own, on its own tenth of the training rows. Last column: when diffeo's held-out",
        "nats first reached the better of FlowJAX's two figures, and that over FlowJAX's time.",
        f"{place['processor']}, {place['threads']} threads, {place['date']}.",
        "",
        "| table | seed | model | budget | seconds | test nats | held-out nats | reaches FlowJAX's after |",
        "| -- | --: | -- | --: | --: | --: | --: | --: |",
    ]
    for table in found["tables"]:
        theirs, start = table["flowjax"], f"| {table['table']} | {table['seed']}"
        whole, score, valid = theirs["seconds"], theirs["test"], theirs["valid"]
        lines.append(f"{start} | FlowJAX | | {whole:.1f} s | {score:.3f} | {valid:.3f} | |")
        for run in table["diffeo"]:
            after = run["reached"]
            reached = "never" if after is None else f"{after:.1f} s, {after / whole:.2f}"
            lines.append(
                f"{start} | diffeo | {run['budget']:.1f} s | {run['seconds']:.1f} s | "
                f"{run['test']:.3f} | {run['valid']:.3f} | {reached} |"
            )
    return "\n".join([*lines, "", ", ".join(f"{k} {v}" for k, v in found["versions"].items())]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    data.add_arguments(parser)
    parser.add_argument("--names", nargs="+", default=NAMES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--depth", type=int, default=2, help="hidden layers of FlowJAX's nets")
    parser.add_argument("--full", type=float, default=120.0, help="diffeo's default budget in seconds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    asked = parser.parse_args()
    folder = data.folder(asked, "compare")
    pin(asked.threads)
    torch.set_num_threads(asked.threads)
    found = {"machine": machine(asked.threads), "depth": asked.depth}
    found["versions"] = versions([OURS, "FlowJAX"], asked.threads)
    found["tables"] = [compare(name, seed, folder, asked) for name in asked.names for seed in asked.seeds]
    asked.results.mkdir(parents=True, exist_ok=True)
    (asked.results / "time_to_quality.json").write_text(json.dumps(found, indent=1) + "\n")
    (asked.results / "time_to_quality.md").write_text(markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
