"""Logarithmic tails: what makes heavy-tailed data light.

Beyond a threshold c the distance t = |x| - c becomes log(1 + k t) / k, with slope 1 at the threshold, so
the map is continuously differentiable; within it nothing changes. k -> 0 is the identity, and a normal
density behind it has log-normal tails.
"""

from __future__ import annotations

import torch
from torch import Tensor


def forward(x: Tensor, left: Tensor, right: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """``(y, log dy/dx)`` with rates ``left``, ``right`` > 0 of the two tails."""
    k = torch.where(x < 0, left, right)
    t = (x.abs() - threshold).clamp(min=0)
    log1p = torch.log1p(k * t)
    inner = x.clamp(-threshold, threshold)
    return inner + torch.sign(x) * (log1p / k), -log1p


def inverse(y: Tensor, left: Tensor, right: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """``(x, log dx/dy)``."""
    k = torch.where(y < 0, left, right)
    log1p = k * (y.abs() - threshold).clamp(min=0)
    inner = y.clamp(-threshold, threshold)
    return inner + torch.sign(y) * (torch.expm1(log1p) / k), log1p
