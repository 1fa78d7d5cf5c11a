"""Rational-quadratic spline families (Durkan et al. 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints

from diffeo.elementwise.base import Elementwise
from diffeo.errors import ConfigError
from diffeo.functional import rational_quadratic as rq
from diffeo.functional import scalar as kernels
from diffeo.functional.exact import exactly
from diffeo.functional.rational_quadratic import FLOOR
from diffeo.functional.wire import MAX_BINS, Ends, FamilyKind, Scalar

# softplus(ZERO) + FLOOR = 1, so that a zero parameter means slope 1.
_ZERO = math.log(math.expm1(1 - FLOOR))


def slope(raw: Tensor) -> Tensor:
    """The slope at a knot from its parameter."""
    return F.softplus(raw + _ZERO) + FLOOR


def inverse_slope(slopes: Tensor) -> Tensor:
    """The parameters that give these slopes, each above ``FLOOR``."""
    return torch.log(torch.expm1(slopes - FLOOR)) - _ZERO


@dataclass(frozen=True)
class _Spline(Elementwise):
    """Base class of the three: knots and slopes from one vector of parameters."""

    bins: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.bins <= 512:
            raise ConfigError(f"bins must be 1 to 512, not {self.bins}.")

    @property
    def box(self) -> tuple[float, float]:
        """The interval the spline maps onto itself."""
        raise NotImplementedError

    @property
    def scale(self) -> float:
        return max(map(abs, self.box))

    @property
    def _ends(self) -> Ends:
        """Which slopes are parameters."""
        raise NotImplementedError

    @property
    def _kernel(self) -> Scalar:
        return Scalar(FamilyKind.SPLINE, self.bins, self._ends, *self.box)

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        self.check(params)
        return kernels.apply(self._known, x, params, self._forward)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        self.check(params)
        return kernels.apply(self._known, y, params, self._inverse, inverse=True)

    @property
    def _known(self) -> Scalar | None:
        """``_kernel``, unless this derives from what the kernels know."""
        return self._kernel if exactly(self, *_KINDS) else None

    def _forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _slopes(self, raw: Tensor) -> Tensor:
        """The K + 1 slopes at the knots from the parameters left after the 2 K logits."""
        raise NotImplementedError

    def _knots(self, params: Tensor, dims: int) -> tuple[Tensor, Tensor, Tensor]:
        """Knots and slopes, ``(K + 1, *)``, from params, for points of ``dims`` axes."""
        k = self.bins
        params = params[(None,) * (dims + 1 - params.dim())].movedim(-1, 0).contiguous()
        widths, heights, raw = params.split([k, k, len(params) - 2 * k])
        low, high = self.box
        knots_x = rq.softmax_knots(widths, low, high)
        knots_y = rq.softmax_knots(heights, low, high)
        return knots_x, knots_y, self._slopes(slope(raw))

    def _outside(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.box
        outside = (x < low) | (x > high)
        return outside, torch.where(outside, torch.full_like(x, (low + high) / 2), x)


@dataclass(frozen=True)
class RationalQuadratic(_Spline):
    """Monotone rational-quadratic spline on ``[-bound, bound]``, the identity outside.

    The family to reach for first: as flexible as a neural monotone map, with a closed-form inverse,
    and linear tails that keep far points finite. The slopes at the box's ends are 1, so the map is
    continuously differentiable everywhere. Zero parameters are the identity.

    Cost: 3 K - 1 parameters and O(K) work a scalar, the same both ways.

    Args:
        bins: K, number of bins, 1 to 512.
        bound: half-width of the box, > 0; standardized data mostly lie within 3.

    Shape: ``x`` ``(*,)``, ``params`` ``(*, 3 K - 1)``; leading axes may be left out where points share them.

    References: Durkan et al. 2019, "Neural spline flows", eqs. 4-8.

    Example:
        >>> import torch
        >>> family = RationalQuadratic(bins=4)
        >>> y, log_slope = family.forward(torch.tensor([0.5, 9.0]), torch.zeros(2, family.num_params))
        >>> y.round(decimals=4).tolist(), log_slope.abs().max().item() < 1e-5
        ([0.5, 9.0], True)
    """

    bound: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.bound < math.inf:
            raise ConfigError(f"bound must be positive and finite, not {self.bound}.")

    @property
    def num_params(self) -> int:
        return 3 * self.bins - 1

    @property
    def box(self) -> tuple[float, float]:
        return -self.bound, self.bound

    @property
    def scalar(self) -> Scalar | None:
        return self._kernel if exactly(self, RationalQuadratic) and self.bins <= MAX_BINS else None

    @property
    def _ends(self) -> Ends:
        return Ends.FIXED

    def _slopes(self, raw: Tensor) -> Tensor:
        end = raw.new_ones(1, *raw.shape[1:])
        return torch.cat([end, raw, end])

    def _forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        outside, inner = self._outside(x)
        y, log_slope = rq.forward(inner, *self._knots(params, x.dim()))
        return torch.where(outside, x, y), torch.where(outside, torch.zeros_like(x), log_slope)

    def _inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        outside, inner = self._outside(y)
        x, log_slope = rq.inverse(inner, *self._knots(params, y.dim()))
        return torch.where(outside, y, x), torch.where(outside, torch.zeros_like(y), log_slope)


@dataclass(frozen=True)
class _BoundedSpline(_Spline):
    """A spline whose domain is its box: -inf outside."""

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        return constraints.interval(*self.box)

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        return constraints.interval(*self.box)

    def _forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        outside, inner = self._outside(x)
        y, log_slope = rq.forward(inner, *self._knots(params, x.dim()))
        return self._bounded(outside, y, log_slope)

    def _inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        outside, inner = self._outside(y)
        x, log_slope = rq.inverse(inner, *self._knots(params, y.dim()))
        return self._bounded(outside, x, log_slope)

    def _bounded(self, outside: Tensor, value: Tensor, log_slope: Tensor) -> tuple[Tensor, Tensor]:
        centre = torch.full_like(value, sum(self.box) / 2)
        return (
            torch.where(outside, centre, value.clamp(*self.box)),
            torch.where(outside, torch.full_like(value, -math.inf), log_slope),
        )


@dataclass(frozen=True)
class IntervalRationalQuadratic(_BoundedSpline):
    """Monotone rational-quadratic spline of ``[low, high]`` onto itself, with free end slopes.

    For bounded data on their own interval. Outside it ``log_slope`` is -inf.

    Args:
        bins: K, number of bins, 1 to 512.
        low: lower end.
        high: upper end, > low.

    Shape: ``x`` ``(*,)``, ``params`` ``(*, 3 K + 1)``.

    References: Durkan et al. 2019, eqs. 4-8.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -math.inf < self.low < self.high < math.inf:
            raise ConfigError(f"need finite low < high, not {self.low} and {self.high}.")

    @property
    def num_params(self) -> int:
        return 3 * self.bins + 1

    @property
    def box(self) -> tuple[float, float]:
        return self.low, self.high

    @property
    def _ends(self) -> Ends:
        return Ends.OPEN

    def _slopes(self, raw: Tensor) -> Tensor:
        return raw


@dataclass(frozen=True)
class CircularRationalQuadratic(_BoundedSpline):
    """Monotone rational-quadratic spline of the circle, ``[-pi, pi]`` with its ends joined.

    The slopes at -pi and pi are one parameter, so the density is continuous across the seam. The
    point pi stays where it is: rotate between layers. Outside ``[-pi, pi]`` ``log_slope`` is -inf.

    Args:
        bins: K, number of bins, 1 to 512.

    Shape: ``x`` ``(*,)``, ``params`` ``(*, 3 K)``.

    References: Rezende et al. 2020, "Normalizing flows on tori and spheres", section 2.1.2.
    """

    @property
    def num_params(self) -> int:
        return 3 * self.bins

    @property
    def box(self) -> tuple[float, float]:
        return -math.pi, math.pi

    @property
    def _ends(self) -> Ends:
        return Ends.JOINED

    def _slopes(self, raw: Tensor) -> Tensor:
        return torch.cat([raw, raw[:1]])


_KINDS = RationalQuadratic, IntervalRationalQuadratic, CircularRationalQuadratic
"""What the kernels know; not what derives from it."""
