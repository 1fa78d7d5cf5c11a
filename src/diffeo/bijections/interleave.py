"""``Interleave``: an image as a sequence of single numbers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from diffeo.bijections.base import Bijection
from diffeo.functional.shapes import image_shape


class Interleave(Bijection):
    """An image's numbers as a sequence, all of a pixel before the next: ``(C, H, W)`` to ``(H W C, 1)``.

    Where ``Tokens`` takes a pixel for a token, here every number is one: an autoregressive layer behind it
    lets green see red, and blue both. As an image of one channel the sequence has C W columns. Domain: any.
    log-det: 0. Cost: none to speak of.

    Args:
        shape: ``(C, H, W)``.

    Shape:
        ``x``: ``(*batch, C, H, W)``, ``z``: ``(*batch, H W C, 1)``, log-det: ``(*batch,)``.

    Raises:
        ShapeError: when the shape is not that of an image.

    References: van den Oord et al. 2016, "Pixel recurrent neural networks", section 3.4.

    Example:
        >>> import torch
        >>> Interleave((2, 1, 2))(torch.tensor([[[1.0, 2.0]], [[10.0, 20.0]]]))[0].flatten().tolist()
        [1.0, 10.0, 2.0, 20.0]
    """

    domain = codomain = None

    def __init__(self, shape: Sequence[int]):
        shape = image_shape(shape)
        super().__init__(shape, latent_shape=(shape.numel(), 1))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.movedim(-3, -1).flatten(-3).unsqueeze(-1), x.new_zeros(x.shape[:-3])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        channels, *size = self.event_shape
        return y.squeeze(-1).unflatten(-1, (*size, channels)).movedim(-1, -3), y.new_zeros(y.shape[:-2])

    def extra_repr(self) -> str:
        return f"{tuple(self.event_shape)}"
