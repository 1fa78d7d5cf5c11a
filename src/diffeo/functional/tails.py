"""Logarithmic tails: what makes heavy-tailed data light.

Beyond a threshold c the distance t = |x| - c becomes log(1 + k t) / k, with slope 1 at the threshold, so
the map is continuously differentiable; within it nothing changes. k -> 0 is the identity, and a normal
density behind it has log-normal tails.
"""

from __future__ import annotations

import torch
from torch import Tensor


def forward(x: Tensor, rates: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """``(y, log dy/dx)`` with ``rates``, ``(2, *)`` and > 0, of the left and the right tail."""
    k = torch.where(x < 0, rates[0], rates[1])
    far = x.abs() > threshold
    log1p = torch.log1p(k * torch.where(far, x.abs() - threshold, 0.0))
    return torch.where(far, torch.sign(x) * (threshold + log1p / k), x), -log1p


def inverse(y: Tensor, rates: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """``(x, log dx/dy)``."""
    k = torch.where(y < 0, rates[0], rates[1])
    far = y.abs() > threshold
    log1p = k * torch.where(far, y.abs() - threshold, 0.0)
    return torch.where(far, torch.sign(y) * (threshold + torch.expm1(log1p) / k), y), log1p
