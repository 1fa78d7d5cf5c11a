"""Layers and masks for an image's channels: ``OnChannels``, ``channel_mask``, ``checkerboard``.

Image layers are vector layers where they can be: with ``OnChannels``, ActNorm, permutation and LU of a Glow
step are one call of the kernels. Glow's learned prior is an ``ImageCoupling`` at a level's end, since
``bijections`` cannot know ``bases``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffeo.bijections.base import Bijection
from diffeo.contracts import Initializable
from diffeo.errors import ShapeError
from diffeo.functional.shapes import image_shape


class OnChannels(Bijection, Initializable):
    """A bijection of vectors applied to the channels of every pixel, with the same weights at each.

    Makes image layers of what vectors have: ``OnChannels(LU(C), shape)`` is Glow's invertible 1 x 1
    convolution with a log-det that costs C logarithms, ``OnChannels(Dense(C), shape)`` the one with a free
    matrix, ``OnChannels(ActNorm((C,)), shape)`` its activation normalization, ``OnChannels(Permute(...))``
    a shuffle of channels; a ``Chain`` of these is one call of the kernels.

    Formula: ``y[:, i, j] = f(x[:, i, j])``, log-det the sum over pixels. Domain: f's.

    Args:
        bijection: f, of events ``(C,)``, without context.
        shape: ``(C, height, width)``.

    Shape: ``(*batch, C, H, W)``.

    Raises:
        ShapeError: for a bijection of other events.

    References: Kingma and Dhariwal 2018 (Glow), sections 3.1 and 3.2.

    Example:
        >>> import torch
        >>> from diffeo.bijections import Exp, OnChannels
        >>> y, log_det = OnChannels(Exp((2,)), (2, 3, 3))(torch.ones(2, 3, 3))
        >>> log_det.item()
        18.0
    """

    def __init__(self, bijection: Bijection, shape: Sequence[int]):
        shape = image_shape(shape)
        if bijection.event_shape != shape[:1] or bijection.latent_shape != shape[:1]:
            raise ShapeError(
                f"the bijection is of events {tuple(bijection.event_shape)}, but the images have {shape[0]} "
                f"channels; it must be of events ({shape[0]},)."
            )
        if bijection.context_shape is not None:
            raise ShapeError("a bijection on channels takes no context; use ImageCoupling for what does.")
        super().__init__(shape)
        self.bijection = bijection
        self.domain, self.codomain, self.traits = bijection.domain, bijection.codomain, bijection.traits

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _by_pixel(*self.bijection(x.movedim(-3, -1)))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _by_pixel(*self.bijection.inverse(y.movedim(-3, -1)))

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set f from the pixels of training images, where it is set from data."""
        if isinstance(self.bijection, Initializable):
            self.bijection.initialize(x.movedim(-3, -1))


def _by_pixel(y: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
    return y.movedim(-1, -3), log_det.sum((-2, -1))


def channel_mask(channels: int, passing: int | None = None) -> Tensor:
    """A coupling's mask, ``(channels, 1, 1)``: the first half of the channels pass, or so many of them."""
    return (torch.arange(channels) < (channels // 2 if passing is None else passing))[:, None, None]


def checkerboard(height: int, width: int, odd: bool = False) -> Tensor:
    """A coupling's mask, ``(1, height, width)``: every second pixel passes, the even ones or the odd ones."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    return ((rows + columns) % 2 == int(odd))[None]
