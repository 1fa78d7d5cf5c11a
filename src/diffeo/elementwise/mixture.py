"""Base class of families that are mixtures of K equal-shaped units: parameters, start, inverse."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from diffeo.contracts import Traits
from diffeo.elementwise.base import Elementwise
from diffeo.errors import ConfigError
from diffeo.functional import roots
from diffeo.functional.affine import soft_clip
from diffeo.functional.far import continued

MAX_RATE = 1e3
"""How far a rate may be from its start, up or down, as a factor."""

Start = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
"""Logits, centers and logarithms of the rates at zero parameters, K each, no two units alike."""


def spread(count: int, quantile: Callable[[float], float], density: Callable[[float], float]) -> Start:
    """A start whose mixture is close to the unit distribution itself, so the map is close to the identity.

    One unit is that distribution and has half the weight, for the tails. The others stand at its quantiles,
    twice as narrow as they are apart, but none wider than the first. Two units have to share.
    """
    whole = 0 if count == 2 else 1
    points = [quantile((j + 0.5) / (count - whole)) for j in range(count - whole)]
    log_rates = [math.log(max(1.0, 2 * len(points) * density(m))) for m in points]
    logits = [math.log(max(1, len(points)))] * whole + [0.0] * len(points)
    return tuple(logits), (*[0.0] * whole, *points), (*[0.0] * whole, *log_rates)


def check_count(name: str, count: int) -> None:
    """Refuse a number of units that is not 1 to 512."""
    if not 1 <= count <= 512:
        raise ConfigError(f"{name} must be 1 to 512, not {count}.")


class UnitMixture(Elementwise):
    """``y = G^-1(sum_j w_j G(a_j (x - m_j)))`` for a distribution function G.

    To write one: ``start`` and ``transform``.
    """

    traits = Traits(closed_form=False, capturable=False, tolerance=4e-15)

    @abstractmethod
    def start(self) -> Start:
        """The units at zero parameters."""

    @abstractmethod
    def transform(
        self, x: Tensor, logits: Tensor, centers: Tensor, log_rates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``(y, log dy/dx)`` from what the units are, ``(K, *x.shape)`` each."""

    @property
    def num_params(self) -> int:
        return 3 * len(self.start()[0])

    @property
    def scale(self) -> float:
        return max(1.0, self.start()[1][-1])

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        units = self._units(x, params)
        return continued(lambda x: self.transform(x, *units), x)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        units = self._units(y, params)
        return continued(lambda y: self._solve(y, units), y)

    def _solve(self, y: Tensor, units: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        _, centers, log_rates = units
        # where every unit is below y so is the mixture, and likewise above
        with torch.no_grad():
            reach = y / log_rates.exp()
            ends, slack = centers + reach, 32 * torch.finfo(y.dtype).eps * (centers.abs() + reach.abs())
            low, high = (ends - slack).amin(0), (ends + slack).amax(0)
        return roots.inverse(lambda x: self.transform(x, *units), y, low, high, type(self).__name__)

    def _units(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, centers and logarithms of the rates, ``(K, *x.shape)`` each."""
        self.check(params)
        parts = params.expand(*x.shape, params.shape[-1]).movedim(-1, 0).contiguous()
        start = torch.tensor(self.start(), dtype=x.dtype, device=x.device)
        logits, centers, log_rates = start.reshape(3, -1, *[1] * x.dim())
        weighs, shifts, raw = parts.chunk(3)
        return logits + weighs, centers + shifts, log_rates + soft_clip(raw, math.log(MAX_RATE))
