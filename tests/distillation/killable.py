"""Distillations, to be killed and taken up again: see ``tests/killing.py``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from killing import Case, run
from torch import Tensor

import diffeo
from diffeo.distillation import BothKL
from diffeo.distillation import fit as distillation
from diffeo.presets import MAF, RealNVP


def fit(student: Any = None, objective: Any = None, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(1)
    teacher = MAF(2, layers=2, hidden=(8,)).build()
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    own = None if objective is None else objective(teacher)
    flow, report = diffeo.distill(teacher, student, objective=own, **options)
    found = torch.tensor(list(asdict(report.judgment).values()), dtype=torch.float64)
    return {**flow.state_dict(), "judgment": found}


def layers(**options: Any) -> dict[str, Tensor]:
    return fit(max_steps=48, **options)


def seconds(**options: Any) -> dict[str, Tensor]:
    return fit(RealNVP(2, layers=2, hidden=(8,)), max_seconds=0.8, **options)


def both(**options: Any) -> dict[str, Tensor]:
    return fit(RealNVP(2, layers=2, hidden=(8,)), BothKL, max_steps=48, **options)


CASES = {
    "layers": Case(layers, "distill", 40),
    "seconds": Case(seconds, "distill", 40),
    "both": Case(both, "distill", 40),
}

if __name__ == "__main__":
    distillation.POOL, distillation.JUDGED = 2000, 500  # to be fast
    run(CASES)
