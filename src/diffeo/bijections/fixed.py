"""Fixed scalar maps, one element at a time: to and from bounded domains."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid  # softplus would cut off at 20, too early for float64

from diffeo.bijections.base import Bijection
from diffeo.errors import ConfigError
from diffeo.functional.domains import bounds
from diffeo.functional.shapes import sum_event


class PointwiseMap(Bijection, ABC):
    """A fixed increasing map of each element; the one place that handles open domains.

    Subclasses declare open intervals ``domain`` and ``codomain`` and give ``_map`` and ``_unmap``,
    which only ever see points inside, and NaN. An end of the interval counts as outside, unless the
    map is ``closed`` and the end is finite.

    Args:
        event_shape: shape of one point; every element is mapped alike.
    """

    closed: bool = False

    def __init__(self, event_shape: Sequence[int]):
        super().__init__(event_shape)

    @abstractmethod
    def _map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(y, log dy/dx)`` of each element."""

    @abstractmethod
    def _unmap(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """``(x, log dx/dy)`` of each element."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outside, inner = _split(x, self.domain, self.closed)
        y, log_slope = self._map(inner)
        return y, sum_event(torch.where(outside, -math.inf, log_slope), len(self.event_shape))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outside, inner = _split(y, self.codomain, self.closed)
        x, log_slope = self._unmap(inner)
        return x, sum_event(torch.where(outside, -math.inf, log_slope), len(self.event_shape))


def _split(x: Tensor, domain: constraints.Constraint | None, closed: bool) -> tuple[Tensor, Tensor]:
    """Where ``x`` is outside the domain, and ``x`` with a harmless point put there.

    The point carries no gradient, so nothing of the maths behind it reaches x.
    """
    low, high = bounds(domain or constraints.real)
    outside = (x < low) | (x > high) | x.isinf() if closed else (x <= low) | (x >= high)  # False for NaN
    middle = 0.5 * (low + high) if math.isfinite(high - low) else (1.0 if low == 0 else 0.0)
    return outside, torch.where(outside, middle, x)


def _open_unit(y: Tensor) -> Tensor:
    """Rounded values brought back inside (0, 1): between the least normal number and 1 - eps / 2."""
    info = torch.finfo(y.dtype)
    return y.clamp(info.tiny, 1 - info.eps / 2)


def _sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    return _open_unit(torch.sigmoid(x)), logsigmoid(x) + logsigmoid(-x)


def _logit(y: Tensor) -> tuple[Tensor, Tensor]:
    y = _open_unit(y)
    low, high = y.log(), torch.log1p(-y)
    return low - high, -low - high


class Sigmoid(PointwiseMap):
    """The whole line to (0, 1): ``y = 1 / (1 + exp(-x))``.

    Before a base or spline that lives on the unit interval.

    Formula: ``log dy/dx = log y + log(1 - y)``, from log-sigmoids, so exact in both tails. Limits: the
    value never rounds to 0 or 1 but saturates at the least normal number below (x < -87 in float32,
    -708 in float64) and at ``1 - eps / 2`` above (x > 16.6, 36.7): beyond these the log-det is still
    exact but the value's inverse returns the saturation point. Near 1 the value is known to eps, so
    large positive x come back with an absolute error of ``eps exp(x)``.

    Args:
        event_shape: shape of one point.

    Shape:
        ``x``: ``(*batch, *event_shape)``, log-det: ``(*batch,)``.

    Example:
        >>> import torch
        >>> from diffeo.bijections import Sigmoid
        >>> y, log_det = Sigmoid((1,))(torch.tensor([[0.0]]))
        >>> y.item(), round(log_det.exp().item(), 4)
        (0.5, 0.25)
    """

    codomain = constraints.unit_interval

    def _map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return _sigmoid(x)

    def _unmap(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return _logit(y)


class Logit(PointwiseMap):
    """(0, 1) to the whole line: ``y = log(x / (1 - x))``, the inverse of ``Sigmoid``.

    Before layers for unbounded data, when the data are proportions. 0 and 1 themselves are outside.
    Limits: as ``Sigmoid``, with the directions exchanged.

    Args:
        event_shape: shape of one point.

    Shape:
        ``x``: ``(*batch, *event_shape)``, log-det: ``(*batch,)``.

    Example:
        >>> import torch
        >>> from diffeo.bijections import Logit
        >>> Logit((1,))(torch.tensor([[0.5], [2.0]]))[1]
        tensor([1.3863,   -inf])
    """

    domain = constraints.unit_interval

    def _map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return _logit(x)

    def _unmap(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return _sigmoid(y)


class Exp(PointwiseMap):
    """The whole line to the positive numbers: ``y = exp(x)``.

    ``Inverse(Exp(...))`` is the logarithm that positive data start with.

    Formula: ``log dy/dx = x``. Limits: the value saturates at the least normal and the greatest number
    (|x| > 87 in float32, 708 in float64); beyond, the log-det is still x, with zero gradient in the
    value.

    Args:
        event_shape: shape of one point.

    Shape:
        ``x``: ``(*batch, *event_shape)``, log-det: ``(*batch,)``.

    Example:
        >>> import torch
        >>> from diffeo.bijections import Exp
        >>> y, log_det = Exp((1,))(torch.tensor([[2.0]]))
        >>> round(y.item(), 4), log_det.item()
        (7.3891, 2.0)
    """

    codomain = constraints.positive

    def _map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        info = torch.finfo(x.dtype)
        # The argument is clamped, not the value: exp's own gradient is inf where it overflows. The
        # margin keeps the rounded logarithm of the greatest number from overflowing.
        margin = 1 - 2 * info.eps
        return x.clamp(math.log(info.tiny) * margin, math.log(info.max) * margin).exp(), x

    def _unmap(self, y: Tensor) -> tuple[Tensor, Tensor]:
        x = y.clamp_min(torch.finfo(y.dtype).tiny).log()
        return x, -x


class Softplus(PointwiseMap):
    """The whole line to the positive numbers: ``y = log(1 + exp(x))``, linear for large x.

    Gentler than ``Exp`` on large values: a tail keeps its shape.

    Formula: ``log dy/dx = log sigmoid(x)``; inverse ``x = y + log(1 - exp(-y))``. Limits: the value
    saturates at the least normal number (x < -87 in float32, -708 in float64); beyond, the log-det is
    still exact.

    Args:
        event_shape: shape of one point.

    Shape:
        ``x``: ``(*batch, *event_shape)``, log-det: ``(*batch,)``.

    Example:
        >>> import torch
        >>> from diffeo.bijections import Softplus
        >>> round(Softplus((1,))(torch.tensor([[0.0]]))[0].item(), 4)
        0.6931
    """

    codomain = constraints.positive

    def _map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (-logsigmoid(-x)).clamp_min(torch.finfo(x.dtype).tiny), logsigmoid(x)

    def _unmap(self, y: Tensor) -> tuple[Tensor, Tensor]:
        y = y.clamp_min(torch.finfo(y.dtype).tiny)
        log_slope = -torch.log(-torch.expm1(-y))
        return y - log_slope, log_slope


class Tanh(PointwiseMap):
    """The whole line to (-1, 1): ``y = tanh(x)``.

    Squashes samples into a symmetric box (bounded actions, angles).

    Formula: ``log dy/dx = log 4 + log sigmoid(2 x) + log sigmoid(-2 x)``, exact in both tails. Limits:
    the value saturates at ``+-(1 - eps / 2)`` (|x| > 8.7 in float32, 18.7 in float64); beyond, the
    log-det is still exact but the value's inverse returns the saturation point.

    Args:
        event_shape: shape of one point.

    Shape:
        ``x``: ``(*batch, *event_shape)``, log-det: ``(*batch,)``.

    Example:
        >>> import torch
        >>> from diffeo.bijections import Tanh
        >>> y, log_det = Tanh((1,))(torch.tensor([[1e6]]))
        >>> y.item() < 1, round(log_det.item())
        (True, -1999999)
    """

    codomain = constraints.interval(-1.0, 1.0)

    def _map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        edge = 1 - torch.finfo(x.dtype).eps / 2
        log_slope = math.log(4) + logsigmoid(2 * x) + logsigmoid(-2 * x)
        return torch.tanh(x).clamp(-edge, edge), log_slope

    def _unmap(self, y: Tensor) -> tuple[Tensor, Tensor]:
        up, down = torch.log1p(y), torch.log1p(-y)
        return 0.5 * (up - down), -up - down


class Probit(PointwiseMap):
    """[low, high] to the whole line: what is uniform becomes standard normal.

    Before a normal base, for what is already even on an interval or a circle: a uniform density stays
    exactly uniform, and one that is continuous across a circle's seam stays so.

    Formula: ``y = ndtri((x - low) / w)``, ``log dy/dx = y^2 / 2 + log(sqrt(2 pi) / w)``, ``w = high - low``,
    from the middle or the nearer end. Limits: the ends themselves belong to the domain and go to
    the quantile of the least normal number, -+13 in float32 and -+37.5 in float64, so that a normal base
    gives them their density too. Where the inverse comes within round-off of an end (|y| > 6 in
    float32, 9 in float64, unless that end is 0) its value is that end; its log-det stays exact.

    Args:
        event_shape: shape of one point.
        low: lower end of the interval, finite.
        high: upper end, > low.

    Shape:
        ``x``: ``(*batch, *event_shape)``, log-det: ``(*batch,)``.

    Raises:
        ConfigError: unless low < high, both finite.

    Example:
        >>> import torch
        >>> from diffeo.bijections import Probit
        >>> Probit((1,))(torch.tensor([[0.5], [0.975]]))[0].flatten()
        tensor([0.0000, 1.9600])
    """

    closed = True

    def __init__(self, event_shape: Sequence[int], low: float = 0.0, high: float = 1.0):
        super().__init__(event_shape)
        if not -math.inf < low < high < math.inf:
            raise ConfigError(f"low and high must be finite and low < high, got {low} and {high}.")
        self.low, self.middle, self.high = low, 0.5 * (low + high), high
        self.domain = constraints.interval(low, high)
        self.log_height = math.log(high - low) - 0.5 * math.log(2 * math.pi)

    def _map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # from the middle, or from the nearer end: both distances are exact where they are small
        below, above, t = x - self.low, self.high - x, (x - self.middle) / (self.high - self.low)
        part = torch.minimum(below, above) / (self.high - self.low)
        tail = torch.special.ndtri(part.clamp_min(torch.finfo(x.dtype).tiny))
        center = math.sqrt(2) * torch.special.erfinv(2 * t.clamp(-0.25, 0.25))
        y = torch.where(part > 0.25, center, torch.where(t < 0, tail, -tail))
        return y, 0.5 * y.square() - self.log_height

    def _unmap(self, y: Tensor) -> tuple[Tensor, Tensor]:
        width, s = self.high - self.low, y * math.sqrt(0.5)
        # not ndtr, which loses its lower tail from -5.5 on in float32
        below, above = (0.5 * torch.erfc(t).clamp_min(torch.finfo(y.dtype).tiny) for t in (-s, s))
        tail = torch.where(y < 0, self.low + width * below, self.high - width * above)
        x = torch.where(s.abs() < 0.5, self.middle + 0.5 * width * torch.erf(s), tail)
        return x, self.log_height - 0.5 * y.square()


class LeakyReLU(PointwiseMap):
    """The whole line to itself: x above zero, ``slope`` times x below.

    The simplest nonlinearity that is a bijection; its kink makes the density jump at zero, where the
    slope is taken from above.

    Formula: ``log dy/dx = 0`` for ``x >= 0``, ``log slope`` for ``x < 0``. Limits: none. Cost: one
    comparison.

    Args:
        event_shape: shape of one point.
        slope: slope below zero, positive and finite.

    Shape:
        ``x``: ``(*batch, *event_shape)``, log-det: ``(*batch,)``.

    Raises:
        ConfigError: unless ``0 < slope < inf``.

    Example:
        >>> import torch
        >>> from diffeo.bijections import LeakyReLU
        >>> LeakyReLU((1,), slope=0.5)(torch.tensor([[-4.0]]))[0].item()
        -2.0
    """

    def __init__(self, event_shape: Sequence[int], slope: float = 0.01):
        super().__init__(event_shape)
        if not 0 < slope < math.inf:
            raise ConfigError(f"slope must be positive and finite, got {slope}.")
        self.slope = slope

    def _map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        above = x >= 0
        return torch.where(above, x, x * self.slope), self._log_slope(above, x)

    def _unmap(self, y: Tensor) -> tuple[Tensor, Tensor]:
        above = y >= 0
        return torch.where(above, y, y / self.slope), -self._log_slope(above, y)

    def _log_slope(self, above: Tensor, like: Tensor) -> Tensor:
        return torch.where(above, torch.zeros_like(like), math.log(self.slope))
