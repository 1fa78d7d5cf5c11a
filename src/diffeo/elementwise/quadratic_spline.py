"""Piecewise-quadratic map with identity tails."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from diffeo.elementwise.base import Elementwise
from diffeo.errors import ConfigError
from diffeo.functional.quadratic_spline import quadratic_spline, quadratic_spline_inverse


@dataclass(frozen=True)
class PiecewiseQuadratic(Elementwise):
    """A spline whose slope is continuous and piecewise linear, and the identity off its box.

    Between the histogram and the rational-quadratic spline: continuous densities, and an inverse
    that costs one square root.

    Formula: in a bin of width w with end slopes ``v0, v1`` and ``t = (x - x0) / w``, the slope is
    ``v0 (1 - t) + v1 t`` and ``y = y0 + w t (v0 (1 - t / 2) + v1 t / 2)``. The outer slopes are one,
    to meet the tails, and the inner ones are normalized so that the box maps onto itself.

    Params: K logits of the widths, then K - 1 logits of the inner slopes; zeros give the identity.
    Domain: the whole line; ``y = x`` exactly off ``[-bound, bound]``. Limits: slopes from
    ``min_slope`` to about ``1 / min_width``. Cost: two softmaxes over K and one logarithm.

    Args:
        bins: how many, at least 2.
        bound: half the box, in the units of x, positive.
        min_width: least part of the box that a bin takes, in (0, 1 / bins).
        min_slope: lower bound of every slope, in (0, 1).

    Shape:
        x: ``(*batch,)``, params: ``(*batch, 2 bins - 1)``; both results: ``(*batch,)``.

    Raises:
        ConfigError: for a value out of its range.

    References:
        Müller et al. (2019), *Neural Importance Sampling*, the piecewise-quadratic coupling
        transform. Theirs lives on the unit interval and leaves the outer slopes free; the tails and the
        fixed outer slopes are ours.

    Example:
        >>> import torch
        >>> from diffeo.elementwise import PiecewiseQuadratic
        >>> family = PiecewiseQuadratic(bins=4)
        >>> x, params = torch.tensor([-9.0, 0.5]), torch.randn(2, family.num_params)
        >>> y, log_slope = family.forward(x, params)
        >>> y[0].item(), torch.allclose(family.inverse(y, params)[0], x, atol=1e-4)
        (-9.0, True)
    """

    bins: int = 8
    bound: float = 3.0
    min_width: float = 1e-3
    min_slope: float = 1e-3

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise ConfigError(f"bins must be at least 2, got {self.bins}.")
        if not 0 < self.bound < math.inf:
            raise ConfigError(f"bound must be positive and finite, got {self.bound}.")
        if not 0 < self.min_width < 1 / self.bins:
            raise ConfigError(
                f"min_width must be between 0 and 1 / bins = {1 / self.bins:g}, got {self.min_width}."
            )
        if not 0 < self.min_slope < 1:
            raise ConfigError(f"min_slope must be between 0 and 1, got {self.min_slope}.")

    @property
    def num_params(self) -> int:
        return 2 * self.bins - 1

    @property
    def scale(self) -> float:
        return self.bound

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        self.check(params)
        widths, heights = params[..., : self.bins], params[..., self.bins :]
        return quadratic_spline(x, widths, heights, self.bound, self.min_width, self.min_slope)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        self.check(params)
        widths, heights = params[..., : self.bins], params[..., self.bins :]
        return quadratic_spline_inverse(y, widths, heights, self.bound, self.min_width, self.min_slope)
