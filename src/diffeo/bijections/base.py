"""The contract of an invertible map."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from diffeo.contracts import Traits
from diffeo.elementwise.base import Elementwise
from diffeo.errors import ShapeError
from diffeo.functional.domains import bounds
from diffeo.functional.stages import Stage


class Bijection(nn.Module, ABC):
    """An invertible map that knows its log-determinant in both directions.

    ``forward`` takes data to latent, the normalizing direction; ``inverse`` takes latent to data,
    the generative one. Both return ``(value, log_det)`` where ``log_det`` is log|det J| *of the map
    just applied*, summed over the event, in nats, with the batch's shape, dtype and device.

    Shapes are ``(*batch, *event_shape)``; context is ``(*batch, *context_shape)``. The batch axes
    of the two are equal: ``Flow`` broadcasts and checks them once, where they enter. A bijection that
    uses no context (``context_shape is None``) ignores what it is handed, so that a chain can pass
    the context to every part.

    ``domain`` and ``codomain`` are elementwise torch constraints; None stands for "any" (a
    permutation). Outside its domain a map gives a finite value, a ``log_det`` of -inf and zero
    gradients. NaN in, NaN out.

    To write one: subclass, call ``super().__init__(event_shape)``, implement ``forward`` and
    ``inverse``, and hold it to ``diffeo.testing.check_bijection``.

    Args:
        event_shape: shape of one data point.
        latent_shape: shape of one latent point; the same number of elements. Default: equal.
        context_shape: shape of one context, or None when the map takes none.
    """

    domain: constraints.Constraint | None = constraints.real
    codomain: constraints.Constraint | None = constraints.real
    traits: Traits = Traits()

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        latent_shape: Sequence[int] | None = None,
        context_shape: Sequence[int] | None = None,
    ):
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.latent_shape = self.event_shape if latent_shape is None else torch.Size(latent_shape)
        self.context_shape = None if context_shape is None else torch.Size(context_shape)

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to latent: ``(z, log|det dz/dx|)``."""

    @abstractmethod
    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent to data: ``(x, log|det dx/dy|)``."""

    def as_stages(self, context: Tensor | None = None) -> list[Stage] | None:
        """This map as the kernels run it, for this context; None where they cannot."""
        return None

    def push(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The value of ``forward`` alone; cheaper where the log-det is the expensive half."""
        return self(x, context)[0]

    def pull(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """The value of ``inverse`` alone."""
        return self.inverse(y, context)[0]


def shelter(x: Tensor, domain: constraints.Constraint | None) -> tuple[Tensor, Tensor | None]:
    """``x`` with a harmless point wherever it lies outside a closed interval, and where that is.

    For layers whose nets see x: a value outside, huge or infinite, would otherwise reach the
    parameters of every other column. The whole line costs nothing: ``(x, None)``. NaN stays.
    """
    low, high = (-math.inf, math.inf) if domain is None else bounds(domain)
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return _shelter_columns(x, torch.as_tensor(low).to(x), torch.as_tensor(high).to(x))
    if low == -math.inf and high == math.inf:
        return x, None
    outside = (x < low) | (x > high)
    middle = 0.5 * (low + high) if math.isfinite(high - low) else (low + 1 if high == math.inf else high - 1)
    return torch.where(outside, middle, x), outside


def _shelter_columns(x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """``shelter`` where each column has ends of its own."""
    outside = (x < low) | (x > high)
    below = torch.where(low.isinf(), torch.where(high.isinf(), -1.0, high - 2), low)
    above = torch.where(high.isinf(), below + 2, high)
    return torch.where(outside, 0.5 * (below + above), x), outside


def check_family(family: Elementwise, features: int) -> None:
    """Refuse a family made for another number of columns."""
    if family.features not in (None, features):
        raise ShapeError(
            f"the family is for {family.features} columns, but the layer has {features}; "
            f"give it a family for each of the {features}."
        )
