"""Piecewise-linear monotone map of an interval onto itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffeo.functional.bins import fractions, knots, locate, outside, snap, take


def linear_spline(
    x: Tensor, logits: Tensor, low: float, high: float, min_slope: float
) -> tuple[Tensor, Tensor]:
    """``(y, log dy/dx)`` of the spline with K equal bins.

    Off ``[low, high]`` the value is the middle of the box, ``log dy/dx`` is -inf and gradients are
    zero.

    Args:
        x: points, shape ``(*batch,)``.
        logits: shape ``(*batch, K)``; softmax gives the increments phi_k.
        low, high: ends of the box.
        min_slope: lower bound of every slope, below one.

    References:
        Prince (2023), *Understanding Deep Learning*, figure 16.5.
    """
    xs, ys, slopes = _parts(logits, low, high, min_slope)
    off = outside(x, low, high)
    inner = torch.where(off, 0.5 * (low + high), x)
    k = locate(inner, xs)
    slope = take(slopes, k)
    y = take(ys, k) + slope * (inner - take(xs, k))
    y = snap(y, take(ys, k), take(ys, k + 1))
    return torch.where(off, 0.5 * (low + high), y), torch.where(off, -math.inf, slope.log())


def linear_spline_inverse(
    y: Tensor, logits: Tensor, low: float, high: float, min_slope: float
) -> tuple[Tensor, Tensor]:
    """``(x, log dx/dy)``: the inverse of ``linear_spline``, in closed form."""
    xs, ys, slopes = _parts(logits, low, high, min_slope)
    off = outside(y, low, high)
    inner = torch.where(off, 0.5 * (low + high), y)
    k = locate(inner, ys)
    slope = take(slopes, k)
    x = take(xs, k) + (inner - take(ys, k)) / slope
    x = snap(x, take(xs, k), take(xs, k + 1))
    return torch.where(off, 0.5 * (low + high), x), torch.where(off, -math.inf, -slope.log())


def _parts(logits: Tensor, low: float, high: float, min_slope: float) -> tuple[Tensor, Tensor, Tensor]:
    """Knots on x, knots on y, and the slopes, which are exact where differences of knots are not."""
    bins = logits.shape[-1]
    phi = fractions(logits, min_slope / bins)
    xs = knots(torch.full_like(phi, 1 / bins), low, high)
    return xs, knots(phi, low, high), bins * phi
