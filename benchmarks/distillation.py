"""A MAF of a real table, distilled to an IAF: how near it comes, and how much faster it samples.

    python benchmarks/distillation.py --data DIR [--steps 30000] [--teacher-seconds 60] [--hidden 256 256]

The table: 4,399 rows of 36 columns, the normal rows of ``satellite`` (Statlog), integers from 0 to 255, which
are dequantized. The teacher is the best by held-out likelihood of a few MAFs. Divergences are means over
10,000 draws; times are medians of interleaved runs, in milliseconds a batch.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import data
import numpy as np
import torch

import diffeo
from diffeo.bijections import Autoregressive
from diffeo.nets import MADE, FullPasses
from diffeo.presets import IAF, MAF
from diffeo.train import Recipe

TEACHERS = ((64,), (128,), (64, 64), (128, 128))


class ByFullPasses(MADE):
    """The same net, inverted the plain way: a network pass a column."""

    def stepper(self, context, batch_shape):
        return FullPasses(self, context, batch_shape)

    def stack(self, context):
        return None


def fitted(rows: np.ndarray, seconds: float) -> diffeo.Flow:
    """The best of the teachers by held-out likelihood."""
    best, score = None, -float("inf")
    for hidden in TEACHERS:
        preset = MAF(rows.shape[1], hidden=hidden)
        flow, report = diffeo.fit_table(rows, preset=preset, max_seconds=seconds)
        held = ", ".join(f"{name} {value:.2f}" for name, value in report.baselines.items())
        print(f"teacher {hidden}: best step {report.training.best_step:,}, held-out nats: {held}", flush=True)
        if report.training.valid > score:
            best, score = flow, report.training.valid
    assert best is not None
    return best


def full_passes(flow: diffeo.Flow) -> diffeo.Flow:
    """The same flow, sampled the plain way."""
    plain = copy.deepcopy(flow)
    for part in plain.modules():
        if isinstance(part, Autoregressive):
            part.net.__class__ = ByFullPasses
    return plain


@torch.no_grad()
def medians(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(repeats + 2):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if i >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    data.add_arguments(parser)
    parser.add_argument("--steps", type=int, default=30_000, help="to distill")
    parser.add_argument("--teacher-seconds", type=float, default=60, help="for each teacher")
    parser.add_argument(
        "--hidden", type=int, nargs="+", default=[256, 256], help="widths of the student's nets"
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with np.load(
        data.folder(arguments, "adbench_classical") / "30_satellite.npz", allow_pickle=False
    ) as file:
        rows = file["X"][file["y"] == 0]
    teacher = fitted(rows, arguments.teacher_seconds)
    preset = IAF(rows.shape[1], hidden=tuple(arguments.hidden))
    recipe = Recipe(learning_rate=5e-3)
    student, report = diffeo.distill(
        teacher, preset, max_steps=arguments.steps, batch_size=128, recipe=recipe
    )
    found = report.judgment
    print(
        f"\ndistilled in {report.training.steps:,} steps, {report.seconds:.0f} s, {rows.shape[1]} columns\n"
    )
    print("| | nats | standard error |\n|---|--:|--:|")
    print(f"| KL(teacher, student) | {found.forward_kl:.4f} | {found.forward_kl_error:.4f} |")
    print(f"| KL(student, teacher) | {found.reverse_kl:.4f} | {found.reverse_kl_error:.4f} |")
    print(f"\nESS of the student's draws: {found.ess:.1%}\n")

    own, theirs = student.without_encoding(), teacher.without_encoding()
    plain = full_passes(theirs)
    z = torch.randn(64, rows.shape[1])
    error = (theirs.to_data(z) - plain.to_data(z)).abs().max().item()
    print(f"largest difference between the teacher's two inverses: {error:.1e}\n")
    titles = ("rows", "student", "one pass's work", "full passes", "full / student", "one / student")
    print(f"| {' | '.join(titles)} |")
    print("|--:|--:|--:|--:|--:|--:|")
    for batch in (1, 1024):
        took = medians(
            {
                "student": lambda batch=batch: own.sample(batch),
                "one": lambda batch=batch: theirs.sample(batch),
                "full": lambda batch=batch: plain.sample(batch),
            },
            arguments.repeats,
        )
        cells = [f"{took[name]:.2f}" for name in ("student", "one", "full")]
        ratios = [f"{took[name] / took['student']:.1f}" for name in ("full", "one")]
        print(f"| {batch} | {' | '.join(cells + ratios)} |", flush=True)


if __name__ == "__main__":
    main()
