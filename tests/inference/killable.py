"""Fits to a target, to be killed and taken up again: see ``tests/killing.py``."""

from __future__ import annotations

from typing import Any

import torch
from killing import Case, run
from torch import Tensor

import diffeo
from diffeo.inference import Annealed, Annealing, ReplayLikelihood, ReverseKL, survey
from diffeo.presets import MAF
from diffeo.targets import FromTorch


def ring(x: Tensor) -> Tensor:
    return -2 * (x.square().sum(-1).sqrt() - 2).square()


def fit(objective: Any = None, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(1)
    flow = MAF(2, layers=2, hidden=(8,)).build()
    target = FromTorch(ring)
    own = None if objective is None else objective(target)
    report = diffeo.fit_target(flow, target, objective=own, num_draws=200, **options)
    counts = torch.tensor([report.evaluations, report.gradients, report.nans])
    found = {"x": report.weighted.x, "w": report.weighted.log_weights, "chains": report.at_chains.log_target}
    return {**flow.state_dict(), **found, "counts": counts}


def steps(**options: Any) -> dict[str, Tensor]:
    return fit(max_steps=48, **options)


def seconds(**options: Any) -> dict[str, Tensor]:
    return fit(max_seconds=2.0, **options)


def reverse(**options: Any) -> dict[str, Tensor]:
    return fit(ReverseKL, max_steps=48, **options)


def fab(**options: Any) -> dict[str, Tensor]:
    def objective(target: Any) -> ReplayLikelihood:
        source = Annealed(target, num_draws=32, annealing=Annealing(moves=1, end=2.0))
        return ReplayLikelihood(source, every=3)

    return fit(objective, max_steps=48, batch_size=64, **options)


CASES = {
    "found": Case(steps, "fit", 0),
    "steps": Case(steps, "fit", 40),
    "end": Case(steps, "fit", 48),
    "seconds": Case(seconds, "fit", 40),
    "reverse": Case(reverse, "fit", 40),
    "fab": Case(fab, "fit", 40),
}

if __name__ == "__main__":
    survey.CHAINS, survey.MOVING = 256, 64  # to be fast
    run(CASES)
