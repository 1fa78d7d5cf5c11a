"""Encodings of the context: from what the user conditions on to the vector the layers see."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from diffeo._typing import Initializable


class ContextEncoding(nn.Module, Initializable):
    """Takes a context of ``event_shape`` to a vector of ``latent_shape``."""

    event_shape: torch.Size
    latent_shape: torch.Size

    @abstractmethod
    def forward(self, context: Tensor) -> Tensor: ...


class StandardizedContext(ContextEncoding):
    """Shifts and scales a context vector to mean 0 and standard deviation 1 over training rows.

    A column that does not vary keeps scale 1. Until ``initialize`` it passes contexts unchanged.
    """

    loc: Tensor
    scale: Tensor
    initialized: Tensor

    def __init__(self, features: int):
        super().__init__()
        self.event_shape = self.latent_shape = torch.Size((features,))
        self.register_buffer("loc", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("initialized", torch.tensor(False))

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        if self.initialized:
            return
        rows = x.reshape(-1, *self.event_shape).double()
        std = rows.std(0, unbiased=False)
        varies = std > 1e-12 * rows.abs().amax(0)
        self.loc.copy_(rows.mean(0))
        self.scale.copy_(torch.where(varies, std, torch.ones_like(std)))
        self.initialized.fill_(True)

    def forward(self, context: Tensor) -> Tensor:
        return (context - self.loc) / self.scale


class OneHotContext(ContextEncoding):
    """Turns a class number 0 .. classes - 1 into a one-hot vector."""

    marker: Tensor

    def __init__(self, classes: int):
        super().__init__()
        self.event_shape, self.latent_shape = torch.Size(()), torch.Size((classes,))
        self.register_buffer("classes", torch.arange(classes), persistent=False)
        self.register_buffer("marker", torch.zeros(()), persistent=False)  # carries the dtype

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Nothing to learn from data."""

    def forward(self, context: Tensor) -> Tensor:
        return (context.unsqueeze(-1) == self.classes).to(self.marker.dtype)
