"""The uniform density on a box."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.distributions import constraints

from diffeo.bases.base import Base
from diffeo.errors import ConfigError
from diffeo.functional.shapes import sum_event


class Uniform(Base):
    """Equal density on ``[low, high]`` for every feature, nothing outside.

    The base of flows that live on an interval: bounded splines, the circle, copulas.

    Formula: ``log p(z) = -D log(high - low)`` inside, -inf outside; zero gradients in both places.
    Support: the closed box. Cost: two comparisons a feature.

    Args:
        event_shape: shape of one latent point, of D elements.
        low: lower end of the box, finite.
        high: upper end, finite, above ``low``.

    Shape:
        ``z``: ``(*batch, *event_shape)``, log-density: ``(*batch,)``.

    Raises:
        ConfigError: unless ``low < high`` and both are finite.

    Example:
        >>> import torch
        >>> from diffeo.bases import Uniform
        >>> Uniform((1,), 0.0, 4.0).log_prob(torch.tensor([[1.0], [5.0]]))
        tensor([-1.3863,    -inf])
    """

    zero: Tensor

    def __init__(self, event_shape: Sequence[int], low: float = 0.0, high: float = 1.0):
        super().__init__(event_shape)
        if not -math.inf < low < high < math.inf:
            raise ConfigError(f"low and high must be finite and low < high, got {low} and {high}.")
        self.low, self.high = low, high
        self.support = constraints.interval(low, high)
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        outside = (z < self.low) | (z > self.high)  # False for NaN
        # 0 * z is NaN for NaN, and a zero gradient for the rest.
        inner = 0 * torch.where(outside, self.low, z) - math.log(self.high - self.low)
        terms = torch.where(outside, -math.inf, inner)
        return sum_event(terms, len(self.event_shape))

    def sample(
        self,
        batch_shape: Sequence[int] = (),
        context: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> Tensor:
        shape = (*batch_shape, *self.event_shape)
        unit = torch.rand(shape, generator=generator, dtype=self.zero.dtype, device=self.zero.device)
        # The sum can round up past the upper end.
        return (self.low + (self.high - self.low) * unit).clamp(self.low, self.high)
