"""The contract of a base density."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.distributions import constraints


class Base(nn.Module, ABC):
    """A simple density over the latent space, with exact log-density and sampler.

    Args:
        event_shape: shape of one latent point.
        context_shape: shape of the context it is conditioned on, or None.
    """

    support: constraints.Constraint = constraints.real

    def __init__(self, event_shape: Sequence[int], *, context_shape: Sequence[int] | None = None):
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.context_shape = None if context_shape is None else torch.Size(context_shape)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.log_prob(z, context)

    @abstractmethod
    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats, shape ``(*batch,)``; -inf outside the support, NaN for NaN."""

    @abstractmethod
    def sample(
        self,
        batch_shape: Sequence[int] = (),
        context: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> Tensor:
        """Draws of shape ``(*batch_shape, *event_shape)``, reparameterized where the density allows.

        ``context``, if any, has batch shape ``batch_shape``: one draw a context.
        """
