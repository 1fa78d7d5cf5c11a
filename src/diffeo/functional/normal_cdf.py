"""The normal distribution function in logarithms, its inverse, and mixtures of it, exact in both tails."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_LOG_2 = math.log(2)
_LOG_2_PI = math.log(2 * math.pi)


def _log_erfcx(t: Tensor) -> Tensor:
    """``log erfcx(t / sqrt 2)`` for ``t >= 0``.

    Far out by its asymptotic series, as the derivative of the function itself is a difference of nearly
    equal numbers there.
    """
    # the first term left out is 945 / t^10
    border = 12.0 if t.dtype == torch.float32 else 100.0
    near = torch.special.erfcx(t.clamp_max(border) / math.sqrt(2)).log()
    far = t.clamp_min(border)
    r = far.square().reciprocal()
    series = torch.log1p(r * (-1 + r * (3 + r * (-15 + r * 105))))
    return torch.where(t > border, series - far.log() + 0.5 * math.log(2 / math.pi), near)


def log_tails(z: Tensor) -> tuple[Tensor, Tensor]:
    """``(log Phi(z), log Phi(-z))``, both to relative round-off at any z."""
    left = z < 0
    t = torch.where(left, -z, z)
    less = _log_erfcx(t) - 0.5 * t * t - _LOG_2
    more = torch.log1p(-less.exp())
    return torch.where(left, less, more), torch.where(left, more, less)


_NARROW = 0.02
"""Widths, over one plus the distance from 0, below which the difference of two logarithms loses digits."""


def log_normal_mass(low: Tensor, high: Tensor) -> Tensor:
    """``log(Phi(high) - Phi(low))`` for ``low <= high``, in either tail and between near ends; -inf for equal
    ones.

    On the left side, where both logarithms are exact: ``log Phi(b) + log(1 - Phi(a) / Phi(b))``. Of a width w
    around m that is too small for a difference, ``log phi(m) + log w + (m w)^2 / 24 - w^2 / 24``.
    """
    right = low + high > 0
    a, b = torch.where(right, -high, low), torch.where(right, -low, high)
    width = b - a
    middle = torch.where(width < 1, 0.5 * (a + b), 0.0)
    narrow = width * (1 + middle.abs()) < _NARROW
    below, upto = (log_tails(torch.where(narrow, other, end))[0] for end, other in ((a, -1.0), (b, 0.0)))
    wide = upto + torch.log1p(-(below - upto).exp())
    w = torch.where(narrow, width, 1.0)
    tiny = w * w * (middle * middle - 1) / 24 - 0.5 * (middle * middle + _LOG_2_PI) + w.log()
    return torch.where(narrow, tiny, wide)


def log_hazard(z: Tensor) -> Tensor:
    """``log(phi(z) / Phi(z))``, the logarithm of the derivative of ``log Phi``.

    Left of 0 it grows as slowly as ``log -z``, although density and distribution function vanish.
    """
    left = z < 0
    t = torch.where(left, -z, z)
    log_erfcx = _log_erfcx(t)
    density = -0.5 * t * t
    more = density - 0.5 * _LOG_2_PI - torch.log1p(-(log_erfcx + density - _LOG_2).exp())
    return torch.where(left, 0.5 * math.log(2 / math.pi) - log_erfcx, more)


def log_ndtri(log_p: Tensor) -> Tensor:
    """``Phi^-1(exp(log_p))``, the inverse of ``log Phi``, for any ``log_p`` up to about ``log(1/2)``.

    A start from ``torch.special.ndtri`` or, below ``exp(-2)``, from ``z^2 = q - log q`` with
    ``q = -2 log p - log(2 pi)``, within 0.07; then two of Halley's steps, each of which cubes what is wrong.
    """
    return _LogNdtri.apply(log_p)  # type: ignore[no-any-return]


class _LogNdtri(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(log_p: Tensor) -> Tensor:
        q = (-2 * log_p - _LOG_2_PI).clamp_min(2.0)
        z = torch.where(log_p > -2, torch.special.ndtri(log_p.exp()), -(q - q.log()).sqrt())
        for _ in range(2):
            log_erfcx = _log_erfcx(-z)  # z is negative, but for round-off
            mills = log_erfcx.exp() * math.sqrt(math.pi / 2)
            step = (log_erfcx - 0.5 * z * z - _LOG_2 - log_p) * mills
            z = z - step / (1 + 0.5 * step * (1 / mills + z))
        return z

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        (z,) = ctx.saved_tensors
        return g * (-log_hazard(z)).exp()

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:  # type: ignore[override]
        (z,) = ctx.saved_tensors
        return tangent * (-log_hazard(z)).exp()


def probit_mixture(x: Tensor, logits: Tensor, centers: Tensor, log_rates: Tensor) -> tuple[Tensor, Tensor]:
    """``y = Phi^-1(sum_j w_j Phi(z_j))`` and ``log dy/dx``, with ``z_j = exp(log_rate_j) (x - center_j)``.

    By ``log S = log sum_j w_j Phi(z_j)`` where that is below one half, else by the mirrored sum, so that
    both tails are linear at any distance. The slope ``sum_j w_j a_j phi(z_j) / phi(y)`` is written with the
    hazards ``phi / Phi`` of the same side, as ``S = Phi(y)``: the squares in the densities would cancel to
    nothing.

    Args:
        x: ``(*,)``.
        logits, centers, log_rates: ``(K, *)`` each; the weights w are the softmax of the logits.

    Shape: both results as x.
    """
    # Squares leave the floats long before x does; the map is straight by then, to the last bit.
    reach = 1e-6 * torch.finfo(x.dtype).max ** 0.5
    inner = x.clamp(-reach, reach)
    z = log_rates.exp() * (inner - centers)
    below, above = log_tails(z)
    log_w = logits.log_softmax(0)
    below, above = log_w + below, log_w + above
    log_s, log_c = below.logsumexp(0), above.logsumexp(0)
    left = log_s <= log_c
    parts, total = torch.where(left, below, above), torch.where(left, log_s, log_c)
    y = log_ndtri(total)
    shares = parts - parts.detach().amax(0)
    slopes = log_hazard(torch.where(left, z, -z)) + log_rates
    log_slope = (shares + slopes).logsumexp(0) - shares.logsumexp(0) - log_hazard(y)
    return torch.where(left, y, -y) + log_slope.exp() * (x - inner), log_slope
