"""Logarithmic tails: what makes heavy-tailed data light.

Beyond a threshold c the distance t = |x| - c becomes log(1 + k t) / k, with slope 1 at the threshold, so
the map is continuously differentiable; within it nothing changes. k -> 0 is the identity, and a normal
density behind it has log-normal tails. From an end on both directions go on linearly, with the slope that
they have there: the rows say nothing of what lies beyond them, and a step of the latent would multiply it by
e^k. The end is never beyond 1 + k t = e^20, so that the exponential of the inverse cannot overflow.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MOST = 20.0
"""The largest logarithm taken; beyond it the tail is linear."""
NO_END = 1e30
"""An end that is none."""


def forward(
    x: Tensor, rates: Tensor, threshold: float, ends: Tensor | float = NO_END
) -> tuple[Tensor, Tensor]:
    """``(y, log dy/dx)`` with ``rates`` and ``ends``, ``(2, *)`` and > 0, of the left and the right tail.

    An end is the t from which a tail is linear.
    """
    k, most = _side(x < 0, rates, ends)
    far = x.abs() > threshold
    u = k * torch.where(far, x.abs() - threshold, 0.0)
    near = torch.minimum(u, most)
    log1p = torch.log1p(near)
    v = torch.where(u > near, log1p + (u - near) / (1 + near), log1p)
    return torch.where(far, torch.sign(x) * (threshold + v / k), x), -log1p


def inverse(
    y: Tensor, rates: Tensor, threshold: float, ends: Tensor | float = NO_END
) -> tuple[Tensor, Tensor]:
    """``(x, log dx/dy)``."""
    k, most = _side(y < 0, rates, ends)
    far = y.abs() > threshold
    v = k * torch.where(far, y.abs() - threshold, 0.0)
    last = torch.log1p(most)
    near = torch.minimum(v, last)
    # not one sum of both: its gradient would be a difference of two numbers of size e^20
    u = torch.where(v > last, most + (v - last) * (1 + most), torch.expm1(near))
    return torch.where(far, torch.sign(y) * (threshold + u / k), y), near


def _side(left: Tensor, rates: Tensor, ends: Tensor | float) -> tuple[Tensor, Tensor]:
    """The rate of each number's own tail, and the largest k t whose logarithm is taken."""
    most = (rates * ends).clamp(max=math.expm1(_MOST))
    return torch.where(left, rates[0], rates[1]), torch.where(left, most[0], most[1])
