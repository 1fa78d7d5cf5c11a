"""Piecewise-linear monotone map of an interval onto itself."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from diffeo.functional.bins import locate, outside, snap, take
from diffeo.functional.convergence import captured


def linear_spline(
    x: Tensor, logits: Tensor, low: float, high: float, min_slope: float
) -> tuple[Tensor, Tensor]:
    """``(y, log dy/dx)`` of the spline with K equal bins.

    Off ``[low, high]`` the value is the middle of the box, ``log dy/dx`` is -inf and gradients are
    zero. Of hundreds of bins only the softmax and its running sum see all, and the gradient of the running
    sum is left out where nothing depends on y: before a uniform base.

    Args:
        x: points, shape ``(*batch,)``.
        logits: shape ``(*batch, K)``; softmax gives the increments phi_k.
        low, high: ends of the box.
        min_slope: lower bound of every slope, below one.

    References:
        Prince (2023), *Understanding Deep Learning*, figure 16.5.
    """
    bins = logits.shape[-1]
    soft = torch.softmax(logits, -1)
    off = outside(x, low, high)
    inner = torch.where(off, 0.5 * (low + high), x)
    xs = _grid(bins, low, high, x)
    k = _equal_bin(inner, xs, low, high)
    ys = _ends(soft, k, low, high, min_slope)
    slope = _slope(take(soft, k), bins, min_slope)
    y = snap(ys[0] + slope * (inner - _at(xs, k)), *ys)
    return torch.where(off, 0.5 * (low + high), y), torch.where(off, -math.inf, slope.log())


def linear_spline_inverse(
    y: Tensor, logits: Tensor, low: float, high: float, min_slope: float
) -> tuple[Tensor, Tensor]:
    """``(x, log dx/dy)``: the inverse of ``linear_spline``, in closed form."""
    bins = logits.shape[-1]
    soft = torch.softmax(logits, -1)
    off = outside(y, low, high)
    inner = torch.where(off, 0.5 * (low + high), y)
    k = locate(inner, _knots(soft.detach().cumsum(-1), low, high, min_slope))
    ys = _ends(soft, k, low, high, min_slope)
    slope = _slope(take(soft, k), bins, min_slope)
    xs = _grid(bins, low, high, y)
    left, right = _at(xs, k), _at(xs, k + 1)
    x = snap(left + (inner - ys[0]) / slope, left, right)
    return torch.where(off, 0.5 * (low + high), x), torch.where(off, -math.inf, -slope.log())


def _parts(logits: Tensor, low: float, high: float, min_slope: float) -> tuple[Tensor, Tensor]:
    """Knots on x and on y, ``(*batch, K + 1)``."""
    ys = _knots(torch.softmax(logits, -1).cumsum(-1), low, high, min_slope)
    return _grid(logits.shape[-1], low, high, logits).expand_as(ys), ys


def _grid(bins: int, low: float, high: float, like: Tensor) -> Tensor:
    """The K + 1 knots on x, the same for every point; both ends are exact."""
    inner = low + (high - low) * (torch.arange(bins, dtype=like.dtype, device=like.device) / bins)
    return F.pad(inner, (0, 1), value=high)


def _equal_bin(x: Tensor, grid: Tensor, low: float, high: float) -> Tensor:
    """Index of the equal bin that holds x; a knot belongs to the bin at its right. NaN gives 0."""
    bins = len(grid) - 1
    k = ((x.detach() - low) * (bins / (high - low))).nan_to_num(0.0).long().clamp(0, bins - 1)
    # the quotient is a bin off at most, by rounding
    k = torch.where((x >= _at(grid, k + 1)) & (k < bins - 1), k + 1, k)
    return torch.where(x < _at(grid, k), (k - 1).clamp(min=0), k)


def _at(grid: Tensor, k: Tensor) -> Tensor:
    """Entries k of a vector; under ``vmap`` an index without axes would have to be a number."""
    return grid[k.unsqueeze(-1)].squeeze(-1)


def _slope(soft: Tensor, bins: int, min_slope: float) -> Tensor:
    return min_slope + (1 - min_slope) * bins * soft


def _height(sums: Tensor, number: Tensor, bins: int, low: float, high: float, min_slope: float) -> Tensor:
    """Where knot ``number`` lies on y, from the softmax's sum up to it; always in the same arithmetic."""
    height = low + (high - low) * (number.to(sums.dtype) * (min_slope / bins) + (1 - min_slope) * sums)
    return height.clamp(max=high)  # the sum may exceed one by round-off; beyond the box the density is 0


def _knots(sums: Tensor, low: float, high: float, min_slope: float) -> Tensor:
    """The K + 1 knots on y; both ends are exact."""
    bins = sums.shape[-1]
    number = torch.arange(1, bins, device=sums.device)
    inner = _height(sums[..., :-1], number, bins, low, high, min_slope)
    return F.pad(F.pad(inner, (1, 0), value=low), (0, 1), value=high)


def _ends(soft: Tensor, k: Tensor, low: float, high: float, min_slope: float) -> tuple[Tensor, Tensor]:
    """The knots on y at both ends of bin k, those of ``_knots`` to the last bit."""
    bins = soft.shape[-1]
    plain = captured() or forward_ad._current_level >= 0
    sums = _around(soft, k) if plain else _Around.apply(soft, k)
    below, above = (
        _height(part, number, bins, low, high, min_slope)
        for part, number in zip(sums, (k, k + 1), strict=True)  # type: ignore[arg-type]
    )
    return torch.where(k == 0, low, below), torch.where(k == bins - 1, high, above)


def _around(soft: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of ``soft`` before place k (any number where k is 0) and with it."""
    sums = soft.cumsum(-1)
    return take(sums, (k - 1).clamp(min=0)), take(sums, k)


class _Around(torch.autograd.Function):
    """``_around``; its backward pass returns no gradient where every incoming gradient is zero."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(k)
        ctx.bins = soft.shape[-1]
        return _around(soft, k)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None]:
        (k,) = ctx.saved_tensors
        before, through = grad_outputs
        # zeros that have derivatives of their own do count
        wanted = torch.is_grad_enabled() or captured()
        if not wanted and not bool((before != 0).any() | (through != 0).any()):
            return None, None
        place = torch.arange(ctx.bins, device=k.device)
        k = k.unsqueeze(-1)
        before = torch.where(place < k.clamp(min=1), before.unsqueeze(-1), 0.0)
        return before + torch.where(place <= k, through.unsqueeze(-1), 0.0), None
