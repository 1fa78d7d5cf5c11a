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
    far = x.abs() > threshold
    log1p = torch.log1p(k * torch.where(far, x.abs() - threshold, 0.0))
    return torch.where(far, torch.sign(x) * (threshold + log1p / k), x), -log1p


def inverse(y: Tensor, left: Tensor, right: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """``(x, log dx/dy)``."""
    k = torch.where(y < 0, left, right)
    far = y.abs() > threshold
    log1p = k * torch.where(far, y.abs() - threshold, 0.0)
    return torch.where(far, torch.sign(y) * (threshold + torch.expm1(log1p) / k), y), log1p
