"""A MAF of a real table, distilled to an IAF: how near it comes, and how much faster it samples.

    python benchmarks/distillation.py --data DIR [--steps 30000] [--seconds 60] [--hidden 256 256]

The table: 4,399 rows of 36 columns, the normal rows of ``satellite`` (Statlog), integers from 0 to 255, which
are dequantized. The teacher is the best by held-out likelihood of a few MAFs. Divergences are means over
10,000 draws; times are medians of interleaved runs, in milliseconds a batch.
"""

from __future__ import annotations

import statistics

import kit
import numpy as np
import torch
from measurements.sampling import full_passes

import diffeo
from diffeo.presets import IAF, MAF
from diffeo.train import OptimizerSettings

TEACHERS = ((64,), (128,), (64, 64), (128, 128))


def fitted(rows: np.ndarray, seconds: float) -> diffeo.Flow:
    """The best of the teachers by held-out likelihood."""
    best, score = None, -float("inf")
    for hidden in TEACHERS:
        flow, report = diffeo.fit_table(rows, preset=MAF(rows.shape[1], hidden=hidden), max_seconds=seconds)
        held = kit.cell(report.baselines)
        print(f"teacher {hidden}: best step {report.training.best_step:,}, held-out nats: {held}", flush=True)
        if report.training.valid > score:
            best, score = flow, report.training.valid
    assert best is not None
    return best


@torch.no_grad()
def times(student: diffeo.Flow, teacher: diffeo.Flow, rounds: int) -> list[kit.Row]:
    """Milliseconds to draw by the student, by the teacher's one pass's work, and by full passes."""
    plain, found = full_passes(teacher), []
    z = torch.randn(64, *teacher.latent_shape)
    error = (teacher.to_data(z) - plain.to_data(z)).abs().max().item()
    print(f"largest difference between the teacher's two inverses: {error:.1e}\n")
    flows = {"student": student, "one pass's work": teacher, "full passes": plain}
    for batch in (1, 1024):
        runs = {name: lambda flow=flow, batch=batch: flow.sample(batch) for name, flow in flows.items()}
        ms = {name: 1e3 * statistics.median(taken) for name, taken in kit.by_turns(runs, rounds).items()}
        ratios = {
            f"{name} / student": ms[name] / ms["student"] for name in ("full passes", "one pass's work")
        }
        found.append({"rows": batch, **ms, **ratios})
    return found


def options() -> kit.Options:
    parser = kit.Options(__doc__, data=..., seconds=60.0, rounds=15, threads=...)
    parser.option("--steps", 30_000, "to distill")
    return parser.option("--hidden", [256, 256], "widths of the student's nets")


def main() -> None:
    asked = options().ask()
    path = kit.folder(asked, "adbench_classical") / "30_satellite.npz"
    with np.load(path, allow_pickle=False) as file:
        rows = file["X"][file["y"] == 0]
    teacher = fitted(rows, asked.seconds)
    preset = IAF(rows.shape[1], hidden=tuple(asked.hidden))
    settings = OptimizerSettings(learning_rate=5e-3)
    student, report = diffeo.distill(
        teacher, preset, max_steps=asked.steps, batch_size=128, optimizer=settings
    )
    found = report.judgment
    kl = {"KL(teacher, student)": found.forward_kl, "standard error": found.forward_kl_error}
    kl |= {"KL(student, teacher)": found.reverse_kl, "its standard error": found.reverse_kl_error}
    print(
        f"\ndistilled in {report.training.steps:,} steps, {report.seconds:.0f} s, {rows.shape[1]} columns\n"
    )
    print(kit.shown([{**kl, "ESS of the student's draws": found.ess}]) + "\n")
    print(kit.shown(times(student.without_encoding(), teacher.without_encoding(), asked.rounds)))


if __name__ == "__main__":
    main()
