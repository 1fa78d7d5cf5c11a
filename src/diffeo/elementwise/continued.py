"""Base class of families that bend on ``[-bound, bound]`` and are straight lines outside."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from diffeo.contracts import Traits
from diffeo.elementwise.base import Elementwise
from diffeo.errors import ConfigError
from diffeo.functional import roots
from diffeo.functional.far import continued


def check_bound(bound: float) -> None:
    """Refuse a half-width that is not positive and finite."""
    if not 0 < bound < math.inf:
        raise ConfigError(f"bound must be positive and finite, not {bound}.")


class Continued(Elementwise):
    """A map of ``[-bound, bound]`` that goes on outside with the slope it has at the nearer end.

    To write one: ``bound``, ``num_params`` and ``within``.
    """

    bound: float
    traits = Traits(closed_form=False, capturable=False, tolerance=4e-15)

    @property
    def scale(self) -> float:
        return self.bound

    @abstractmethod
    def within(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """``(y, log dy/dx)`` for x in ``[-bound, bound]``."""

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        self.check(params)
        inner = x.clamp(-self.bound, self.bound)
        y, log_slope = self.within(inner, params)
        return y + log_slope.exp() * (x - inner), log_slope

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        self.check(params)
        return continued(lambda y: self._solve(y, params), y)

    def _solve(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        ends = []
        with torch.no_grad():
            for end in (-self.bound, self.bound):
                x = torch.full_like(y, end)
                value, log_slope = self.within(x, params)
                beyond = x + (y - value) * (-log_slope).exp()
                ends.append((x, beyond, y < value, y > value))
        (left, before, under, _), (right, after, _, over) = ends
        low = torch.where(under, before, torch.where(over, after, left))
        high = torch.where(under, before, torch.where(over, after, right))
        return roots.inverse(lambda x: self.forward(x, params), y, low, high, type(self).__name__)
