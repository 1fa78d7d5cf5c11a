"""Bins on an interval: knots, look-up and the rounding rules that splines share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def fractions(logits: Tensor, floor: float) -> Tensor:
    """Positive parts of one on the last axis: a softmax, none of them below ``floor``."""
    return floor + (1 - logits.shape[-1] * floor) * torch.softmax(logits, -1)


def knots(parts: Tensor, low: float, high: float) -> Tensor:
    """The K + 1 knots of K bins whose sizes are ``parts`` of ``[low, high]``; both ends are exact."""
    inner = low + (high - low) * parts[..., :-1].cumsum(-1)
    return F.pad(F.pad(inner, (1, 0), value=low), (0, 1), value=high)


def locate(x: Tensor, knots: Tensor) -> Tensor:
    """Index of the bin that holds ``x``; a knot belongs to the bin at its right. NaN gives 0."""
    return (x.unsqueeze(-1) >= knots[..., 1:-1]).sum(-1)


def take(table: Tensor, index: Tensor) -> Tensor:
    """``table[..., index]``, one entry for each element of ``index``."""
    return table.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def snap(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Clamp away round-off: the value is clamped, the gradient is the identity's.

    A value kept inside its own bin is inverted with its own bin's slope; one ulp beyond a knot, the
    neighbor's slope could be thousands of times smaller and the error as much larger.
    """
    inside = torch.clamp(x, low, high)
    return x + (inside - x).detach()


def outside(x: Tensor, low: float, high: float) -> Tensor:
    """Whether ``x`` is off the closed interval; False for NaN, which passes through the maths."""
    return (x < low) | (x > high)
