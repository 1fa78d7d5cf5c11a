"""Piecewise-linear map of an interval onto itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.distributions import constraints

from diffeo.elementwise.base import Elementwise
from diffeo.errors import ConfigError
from diffeo.functional.linear_spline import linear_spline, linear_spline_inverse


@dataclass(frozen=True)
class PiecewiseLinear(Elementwise):
    """K equal bins, each climbed at its own slope: a histogram as a flow.

    The easiest of the splines to picture: with a uniform base its density *is* a histogram. It has
    kinks, so densities jump at the knots; the smooth splines fit with fewer bins.

    Formula: on ``[0, 1]``, ``f(x) = phi_1 + ... + phi_(k-1) + (K x - (k - 1)) phi_k`` in bin k, with
    positive increments ``phi`` of sum one: the slope there is ``K phi_k``. Other boxes are shifted
    and scaled.

    Params: K logits of phi, any real values; equal ones give the identity. Domain and codomain:
    ``[low, high]``; off it a finite value, a log-slope of -inf and zero gradients. Limits: slopes
    lie in ``[min_slope, K]``. Cost: one softmax over K and one logarithm.

    Args:
        bins: how many, at least 1.
        low: lower end of the box, in the units of x.
        high: upper end, above ``low``.
        min_slope: lower bound of every slope, in (0, 1).

    Shape:
        x: ``(*batch,)``, params: ``(*batch, bins)``; both results: ``(*batch,)``.

    Raises:
        ConfigError: for a value out of its range.

    References:
        Prince (2023), *Understanding Deep Learning*, figure 16.5; Müller et al. (2019), *Neural
        Importance Sampling*, the piecewise-linear coupling transform.

    Example:
        >>> import torch
        >>> from diffeo.elementwise import PiecewiseLinear
        >>> family = PiecewiseLinear(bins=2, min_slope=1e-6)
        >>> logits = torch.tensor([[0.75, 0.25]]).log()
        >>> y, log_slope = family.forward(torch.tensor([0.25]), logits)
        >>> f"{y.item():.3f} {log_slope.exp().item():.3f}"
        '0.375 1.500'
    """

    bins: int = 8
    low: float = 0.0
    high: float = 1.0
    min_slope: float = 1e-3

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ConfigError(f"bins must be at least 1, got {self.bins}.")
        if not -math.inf < self.low < self.high < math.inf:
            raise ConfigError(f"low and high must be finite and low < high, got {self.low} and {self.high}.")
        if not 0 < self.min_slope < 1:
            raise ConfigError(f"min_slope must be between 0 and 1, got {self.min_slope}.")

    @property
    def num_params(self) -> int:
        return self.bins

    @property
    def scale(self) -> float:
        return max(abs(self.low), abs(self.high))

    @property
    def domain(self) -> constraints.Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return constraints.interval(self.low, self.high)

    @property
    def codomain(self) -> constraints.Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return constraints.interval(self.low, self.high)

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        self.check(params)
        return linear_spline(x, params, self.low, self.high, self.min_slope)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        self.check(params)
        return linear_spline_inverse(y, params, self.low, self.high, self.min_slope)
