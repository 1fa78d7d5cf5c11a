"""Logarithmic tails: what makes heavy-tailed data light.

Beyond a threshold c the distance t = |x| - c becomes log(1 + k t) / k, with slope 1 at the threshold, so
the map is continuously differentiable; within it nothing changes. k -> 0 is the identity, and a normal
density behind it has log-normal tails. From 1 + k t = e^20 on both directions go on linearly, so that the
exponential of the inverse cannot overflow.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MOST = 20.0
"""The largest logarithm taken; beyond it the tail is linear."""


def forward(x: Tensor, rates: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """``(y, log dy/dx)`` with ``rates``, ``(2, *)`` and > 0, of the left and the right tail."""
    k = torch.where(x < 0, rates[0], rates[1])
    far = x.abs() > threshold
    u = k * torch.where(far, x.abs() - threshold, 0.0)
    near = u.clamp(max=math.expm1(_MOST))
    log1p = torch.log1p(near)
    v = torch.where(u > near, _MOST + (u - near) * math.exp(-_MOST), log1p)
    return torch.where(far, torch.sign(x) * (threshold + v / k), x), -log1p


def inverse(y: Tensor, rates: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """``(x, log dx/dy)``."""
    k = torch.where(y < 0, rates[0], rates[1])
    far = y.abs() > threshold
    v = k * torch.where(far, y.abs() - threshold, 0.0)
    near = v.clamp(max=_MOST)
    # not one sum of both: its gradient would be a difference of two numbers of size e^20
    u = torch.where(v > _MOST, math.expm1(_MOST) + (v - _MOST) * math.exp(_MOST), torch.expm1(near))
    return torch.where(far, torch.sign(y) * (threshold + u / k), y), near
