"""Encodings of the context: from what the user conditions on to the vector the layers see."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from diffeo._typing import Initializable
from diffeo.errors import DataError


class ContextEncoding(nn.Module, Initializable):
    """Takes a context of ``event_shape`` to a vector of ``latent_shape``."""

    event_shape: torch.Size
    latent_shape: torch.Size

    @abstractmethod
    def forward(self, context: Tensor) -> Tensor: ...


class StandardizedContext(ContextEncoding):
    """Shifts and scales a context vector to mean 0 and standard deviation 1 over training rows.

    A column that does not vary keeps scale 1. Until ``initialize`` it passes contexts unchanged. The
    moments are float64 whatever the flow's dtype is cast to, so that a large offset (a timestamp) costs
    no precision; they are stored as their bits, which no cast touches.
    """

    moment_bits: Tensor
    initialized: Tensor
    marker: Tensor

    def __init__(self, features: int):
        super().__init__()
        self.event_shape = self.latent_shape = torch.Size((features,))
        moments = torch.stack([torch.zeros(features), torch.ones(features)]).double()
        self.register_buffer("moment_bits", moments.view(torch.int64))
        self.register_buffer("initialized", torch.tensor(False))
        self.register_buffer("marker", torch.zeros(()), persistent=False)  # carries the dtype

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set the moments from training contexts ``x``; does nothing where they were set before."""
        if bool(self.initialized):
            return
        rows = x.reshape(-1, *self.event_shape).double()
        std = rows.std(0, unbiased=False)
        varies = std > 1e-12 * rows.abs().amax(0)
        moments = torch.stack([rows.mean(0), torch.where(varies, std, torch.ones_like(std))])
        self.moment_bits.copy_(moments.view(torch.int64))
        self.initialized.fill_(True)

    def forward(self, context: Tensor) -> Tensor:
        loc, scale = self.moment_bits.view(torch.float64)
        return ((context.double() - loc) / scale).to(self.marker.dtype)


class OneHotContext(ContextEncoding):
    """Turns a class number 0 .. classes - 1 into a one-hot vector; any other number into zeros."""

    classes: Tensor
    marker: Tensor

    def __init__(self, classes: int):
        super().__init__()
        self.event_shape, self.latent_shape = torch.Size(()), torch.Size((classes,))
        self.register_buffer("classes", torch.arange(classes), persistent=False)
        self.register_buffer("marker", torch.zeros(()), persistent=False)  # carries the dtype

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Nothing to learn from data; refuses numbers that are no class."""
        bad = ~(x.unsqueeze(-1) == self.classes).any(-1)
        if bool(bad.any()):
            raise DataError(
                f"the context holds {x[bad][0].item()}, but the classes are 0 to {len(self.classes) - 1}."
            )

    def forward(self, context: Tensor) -> Tensor:
        return (context.unsqueeze(-1) == self.classes).to(self.marker.dtype)
