"""The scalar map ``t + gain tanh(t)``, increasing for every gain above -1: planar and Sylvester flows.

A gain is known by its *slope*, ``1 + gain > 0``, the slope of the map at 0. Formulas in the slope are sums of
positive terms and lose nothing where the gain is near -1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffeo.functional import roots

MARGIN = 2.0**-10
"""What a slope stays above; a power of two, so that a slope of 1 is exactly 1."""


def slope_of(raw: Tensor) -> Tensor:
    """A slope above ``MARGIN`` for any real number; 1 at 0, with derivative 1 there.

    ``1 + raw + sqrt(raw^2 + c^2) - c`` with ``c = 1 - MARGIN``: smooth, and about ``2 raw`` far out.
    """
    size = torch.where(raw < 0, -raw, raw) + _root(raw)
    return MARGIN + torch.where(raw < 0, (1 - MARGIN) ** 2 / size, size)


def lift_of(raw: Tensor) -> Tensor:
    """``(slope_of(raw) - 1 - raw) / raw^2``, which is positive and at most ``1 / (2 - 2 MARGIN)``."""
    return 1 / (_root(raw) + (1 - MARGIN))


def _root(raw: Tensor) -> Tensor:
    return (raw.square() + (1 - MARGIN) ** 2).sqrt()


def bend(t: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """``(t + gain tanh(t), log of its slope at t)``.

    Args:
        t: any numbers.
        slope: ``1 + gain``, positive.
    """
    value = t.tanh()
    e = (-2 * t.abs()).exp()
    flat = 4 * e / (1 + e).square()  # 1 - tanh^2, down to its smallest values
    return t + (slope - 1) * value, (slope * flat + value.square()).log()


def unbend(y: Tensor, slope: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """``(t, log dt/dy)`` where ``t + gain tanh(t) = y``, with implicit first and second derivatives.

    The root lies within ``|gain|`` of y, since ``|tanh| <= 1``; ``roots.inverse`` finds and certifies it.

    Args:
        y: any finite numbers.
        slope: ``1 + gain``, positive; of y's shape or broadcasting against it.
        what: whose inverse it is, for the message.
    """
    reach = (slope - 1).abs()
    return roots.inverse(lambda t: bend(t, slope), y, y - reach, y + reach, what)
