"""Piecewise-quadratic monotone map with identity tails."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from diffeo.functional.bins import fractions, knots, locate, outside, snap, take


def quadratic_spline(
    x: Tensor, widths: Tensor, heights: Tensor, bound: float, min_width: float, min_slope: float
) -> tuple[Tensor, Tensor]:
    """``(y, log dy/dx)`` of the spline whose slope is piecewise linear, one at and beyond the ends.

    Args:
        x: points, shape ``(*batch,)``.
        widths: shape ``(*batch, K)``; softmax gives the bins' parts of the box.
        heights: shape ``(*batch, K - 1)``; logits of the slopes at the inner knots.
        bound: the box is ``[-bound, bound]``.
        min_width: least part of the box that a bin takes.
        min_slope: lower bound of every slope, below one.

    References:
        Müller et al. (2019), *Neural Importance Sampling*, the piecewise-quadratic coupling transform.
    """
    xs, w, slopes, ys = _parts(widths, heights, bound, min_width, min_slope)
    off = outside(x, -bound, bound)
    inner = torch.where(off, 0.0, x)
    k = locate(inner, xs)
    x0, width, v0, v1 = take(xs, k), take(w, k), take(slopes, k), take(slopes, k + 1)
    t = (inner - x0) / width
    # y - y0 and the slope as sums of positive terms: nothing cancels.
    y = take(ys, k) + width * t * (v0 * (1 - 0.5 * t) + v1 * 0.5 * t)
    y = snap(y, take(ys, k), take(ys, k + 1))
    slope = v0 * (1 - t) + v1 * t
    return torch.where(off, x, y), torch.where(off, 0.0, slope.log())


def quadratic_spline_inverse(
    y: Tensor, widths: Tensor, heights: Tensor, bound: float, min_width: float, min_slope: float
) -> tuple[Tensor, Tensor]:
    """``(x, log dx/dy)``: the inverse of ``quadratic_spline``, in closed form.

    With s the part of the bin's rise that y has climbed, the squared slope there is the mixture
    ``v0^2 (1 - s) + v1^2 s``: a discriminant of positive terms. The root is the one with the plus
    sign in the denominator, ``t = s (v0 + v1) / (v0 + slope)``.
    """
    xs, w, slopes, ys = _parts(widths, heights, bound, min_width, min_slope)
    off = outside(y, -bound, bound)
    inner = torch.where(off, 0.0, y)
    k = locate(inner, ys)
    x0, width, v0, v1 = take(xs, k), take(w, k), take(slopes, k), take(slopes, k + 1)
    s = (inner - take(ys, k)) / (0.5 * width * (v0 + v1))
    s = snap(s, torch.zeros_like(s), torch.ones_like(s))
    slope = (v0.square() * (1 - s) + v1.square() * s).sqrt()
    x = x0 + width * s * (v0 + v1) / (v0 + slope)
    x = snap(x, x0, take(xs, k + 1))
    return torch.where(off, y, x), torch.where(off, 0.0, -slope.log())


def _parts(
    widths: Tensor, heights: Tensor, bound: float, min_width: float, min_slope: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Knots on x, widths, slopes at the knots, knots on y."""
    xs = knots(fractions(widths, min_width), -bound, bound)
    w = xs.diff(dim=-1)  # from the rounded knots, so that t stays within [0, 1]
    # An inner slope belongs to half of either neighboring bin. With the end slopes fixed at one the
    # rise equals the box exactly when the inner slopes average one under these weights.
    weight = 0.5 * (w[..., 1:] + w[..., :-1])
    u = torch.softmax(heights, -1)
    u = u * weight.sum(-1, keepdim=True) / (u * weight).sum(-1, keepdim=True)
    slopes = F.pad(min_slope + (1 - min_slope) * u, (1, 1), value=1.0)
    rise = w * 0.5 * (slopes[..., 1:] + slopes[..., :-1])
    return xs, w, slopes, knots(rise / (2 * bound), -bound, bound)
