"""What a flow can be conditioned on: specs of contexts that build their encodings.

A spec of one's own, such as an embedding net, is a frozen dataclass with these two members:

    >>> import torch
    >>> from torch import nn
    >>> from diffeo.encodings import ContextEncoding
    >>> class Mean(ContextEncoding):
    ...     event_shape, latent_shape = torch.Size((8, 2)), torch.Size((2,))
    ...
    ...     def initialize(self, x, context=None):
    ...         pass
    ...
    ...     def forward(self, context):
    ...         return context.mean(-2)
    >>> @dataclass(frozen=True)
    ... class Observations(ContextSpec):
    ...     latent_shape = torch.Size((2,))
    ...
    ...     def build(self):
    ...         return Mean()
    >>> from diffeo.presets import NSF
    >>> flow = NSF(features=3, context=Observations()).build()
    >>> flow.sample(context=torch.zeros(5, 8, 2)).shape
    torch.Size([5, 3])
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch

from diffeo._fields import Side, Size, check_fields
from diffeo.encodings.context import ContextEncoding, ImageContext, OneHotContext, StandardizedContext
from diffeo.functional.shapes import image_shape

__all__ = ["CONTEXTS", "Classes", "ContextSpec", "Image", "Vector"]


class ContextSpec(ABC):
    """What a preset's flow is conditioned on: a plain value that builds the context's encoding.

    Presets take any. A model file knows those in ``CONTEXTS``; a flow with another is saved with
    ``weights_only=True``.
    """

    @property
    @abstractmethod
    def latent_shape(self) -> torch.Size:
        """What the layers see: a vector ``(n,)``, or an image ``(c, h, w)`` for presets of images."""

    @abstractmethod
    def build(self) -> ContextEncoding:
        """The encoding, from the user's context to the layers'; its latent shape is the spec's."""


@final
@dataclass(frozen=True)
class Vector(ContextSpec):
    """A context of ``size`` numbers, standardized over the training rows."""

    size: Size

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def latent_shape(self) -> torch.Size:
        return torch.Size((self.size,))

    def build(self) -> ContextEncoding:
        return StandardizedContext(self.size)


@final
@dataclass(frozen=True)
class Classes(ContextSpec):
    """A context that is a class number, 0 .. size - 1."""

    size: Size

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def latent_shape(self) -> torch.Size:
        return torch.Size((self.size,))

    def build(self) -> ContextEncoding:
        return OneHotContext(self.size)


@final
@dataclass(frozen=True)
class Image(ContextSpec):
    """A context that is an image, pixel values 0 .. 255; for presets of images."""

    channels: Side
    height: Side
    width: Side

    def __post_init__(self) -> None:
        check_fields(self)
        image_shape(self.latent_shape)

    @property
    def latent_shape(self) -> torch.Size:
        return torch.Size((self.channels, self.height, self.width))

    def build(self) -> ContextEncoding:
        return ImageContext(self.latent_shape)


CONTEXTS: dict[str, type[Vector] | type[Classes] | type[Image]] = {
    "Vector": Vector,
    "Classes": Classes,
    "Image": Image,
}
"""The specs that a model file can name."""
