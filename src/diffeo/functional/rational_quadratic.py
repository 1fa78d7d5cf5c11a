"""Monotone rational-quadratic splines: the plain reference in PyTorch.

In a bin of width w, height h, mean slope s = h / w and end slopes d0, d1, with t = (x - x0) / w,

    y  = y0 + h (s t^2 + d0 t (1 - t)) / den,   den = s (t^2 + (1 - t)^2) + (d0 + d1) t (1 - t)
    y' = s^2 (d1 t^2 + 2 s t (1 - t) + d0 (1 - t)^2) / den^2

(Gregory and Delbourgo 1982, eqs. 8-10; Durkan et al. 2019, eqs. 4-5, with the denominator written as
a sum of positive terms.) The inverse solves a quadratic in t. With u = (y - y0) / h and
q = d0 (1 - u) - d1 u its discriminant is q^2 + 4 s^2 u (1 - u), again a sum of non-negative terms, and

    t : 1 - t  =  2 s u : q + r         where q >= 0,      r = sqrt(discriminant)
    t : 1 - t  =  r - q : 2 s (1 - u)   where q < 0,

so neither t nor 1 - t is ever a difference: float32 survives any parameters. Values are built up from
the nearer end of the bin for the same reason.

Logits, knots and slopes stand on axis 0, so that every operation runs along the points: a softmax over a
short last axis takes three times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-3
"""Smallest bin, as a fraction of the box, and smallest slope: what keeps float32 invertible."""


def softmax_knots(logits: Tensor, low: float, high: float) -> Tensor:
    """K logits to K + 1 increasing knots from ``low`` to ``high``, each bin at least ``FLOOR`` of it.

    Args:
        logits: ``(K, *)``, any reals; equal logits give equal bins.

    Shape: ``(K, *)`` to ``(K + 1, *)``.
    """
    fractions = torch.softmax(logits, 0) * (1 - len(logits) * FLOOR) + FLOOR
    inner = fractions[:-1].cumsum(0) * (high - low) + low
    end = torch.zeros_like(logits[:1])
    return torch.cat([end + low, inner, end + high])


def clip_fractions(fractions: Tensor) -> Tensor:
    """Fractions along axis 0 made to sum to 1, each safely above ``FLOOR``."""
    fractions = fractions.clamp(min=2 * FLOOR)
    return fractions / fractions.sum(0)


def fraction_logits(fractions: Tensor) -> Tensor:
    """Logits along axis 0 from which ``softmax_knots`` makes bins of these fractions."""
    logits = ((fractions - FLOOR) / (1 - len(fractions) * FLOOR)).clamp(min=1e-6).log()
    return logits - logits.mean(0)


def _pick(knots_x: Tensor, knots_y: Tensor, slopes: Tensor, bin_index: Tensor) -> tuple[Tensor, ...]:
    index = torch.stack([bin_index, bin_index + 1])
    x0, x1 = knots_x.expand(-1, *index.shape[1:]).gather(0, index)
    y0, y1 = knots_y.expand(-1, *index.shape[1:]).gather(0, index)
    d0, d1 = slopes.expand(-1, *index.shape[1:]).gather(0, index)
    return x0, x1, y0, y1, d0, d1


def _log_slope(t: Tensor, t1: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> Tensor:
    tt = t * t1
    numerator = d1 * t * t + 2 * s * tt + d0 * t1 * t1
    denominator = s * (t * t + t1 * t1) + (d0 + d1) * tt
    return torch.log(numerator) + 2 * (torch.log(s) - torch.log(denominator))


def forward(x: Tensor, knots_x: Tensor, knots_y: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """The spline at ``x`` inside its box: ``(y, log dy/dx)``.

    Shape: ``x`` ``(*,)``; knots and slopes ``(K + 1, *)``, or broadcasting to that.
    """
    bin_index = (x >= knots_x[1:-1]).sum(0)
    x0, x1, y0, y1, d0, d1 = _pick(knots_x, knots_y, slopes, bin_index)
    w, h = x1 - x0, y1 - y0
    s = h / w
    t, t1 = (x - x0) / w, (x1 - x) / w
    tt = t * t1
    denominator = s * (t * t + t1 * t1) + (d0 + d1) * tt
    from_left = y0 + h * (s * t * t + d0 * tt) / denominator
    from_right = y1 - h * (s * t1 * t1 + d1 * tt) / denominator
    numerator = d1 * t * t + 2 * s * tt + d0 * t1 * t1
    log_slope = torch.log(numerator) + 2 * torch.log(s / denominator)
    return torch.where(t < t1, from_left, from_right), log_slope


def inverse(y: Tensor, knots_x: Tensor, knots_y: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse spline at ``y`` inside its box: ``(x, log dx/dy)``."""
    bin_index = (y >= knots_y[1:-1]).sum(0)
    x0, x1, y0, y1, d0, d1 = _pick(knots_x, knots_y, slopes, bin_index)
    w, h = x1 - x0, y1 - y0
    s = h / w
    u, u1 = (y - y0) / h, (y1 - y) / h
    q = d0 * u1 - d1 * u
    r = torch.sqrt(q * q + 4 * s * s * u * u1)
    rising = q >= 0
    a = torch.where(rising, 2 * s * u, r - q)
    b = torch.where(rising, q + r, 2 * s * u1)
    t, t1 = a / (a + b), b / (a + b)
    x = torch.where(t < t1, x0 + w * t, x1 - w * t1)
    return x, -_log_slope(t, t1, s, d0, d1)
