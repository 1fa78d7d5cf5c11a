"""``Squeeze`` and ``Haar``: few large channels of an image as many small ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffeo.bijections.base import Bijection
from diffeo.errors import ConfigError, ShapeError
from diffeo.functional.far import within
from diffeo.functional.shapes import image_shape


def smaller(shape: torch.Size, block: int) -> torch.Size:
    """The shape whose pixels are ``block x block`` squares; a ``ShapeError`` where they do not fit."""
    channels, height, width = shape
    if block < 1:
        raise ConfigError(f"block must be at least 1, not {block}.")
    if height % block or width % block:
        fit = " x ".join(str(-(-n // block) * block) for n in (height, width))
        raise ShapeError(
            f"{height} x {width} pixels do not divide into squares of {block} x {block}; pad or crop the "
            f"images, to {fit} for instance, or squeeze fewer times (a multiscale flow: fewer levels)."
        )
    return torch.Size((channels * block * block, height // block, width // block))


class Squeeze(Bijection):
    """Squares of ``block x block`` pixels become channels: ``(C, H, W)`` to ``(C b^2, H/b, W/b)``.

    Gives couplings over channels something to couple, and halves the size that nets work on. The value at
    row ``b i + k`` and column ``b j + l`` of channel c goes to channel ``(k b + l) C + c`` at ``(i, j)``.

    Formula: a permutation, log-det 0. Domain: any.

    Args:
        shape: ``(channels, height, width)``.
        block: b, the side of a square; height and width are multiples of it.

    Shape: ``(*batch, C, H, W)`` to ``(*batch, C b^2, H/b, W/b)``.

    Raises:
        ShapeError: for sizes that squares do not fill; it names sizes that would do.

    References: Dinh et al. 2017, section 3.6.

    Example:
        >>> import torch
        >>> Squeeze((1, 2, 2))(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))[0].flatten().tolist()
        [1.0, 2.0, 3.0, 4.0]
    """

    domain = codomain = None

    def __init__(self, shape: Sequence[int], block: int = 2):
        shape = image_shape(shape)
        super().__init__(shape, latent_shape=smaller(shape, block))
        self.block = block

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        (channels, h, w), b, batch = self.latent_shape, self.block, x.shape[:-3]
        blocks = x.reshape(*batch, self.event_shape[0], h, b, w, b)  # (C, h, k, w, l)
        y = blocks.movedim((-4, -2), (-5, -4))  # (h, w, C, k, l)
        y = y.movedim(-3, -1).reshape(*batch, h, w, channels)
        return y.movedim(-1, -3), x.new_zeros(batch)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        (channels, height, width), b, batch = self.event_shape, self.block, y.shape[:-3]
        _, h, w = self.latent_shape
        blocks = y.movedim(-3, -1).reshape(*batch, h, w, b, b, channels)  # (h, w, k, l, C)
        x = blocks.movedim(-3, -4).reshape(*batch, height, width, channels)
        return x.movedim(-1, -3), y.new_zeros(batch)

    def extra_repr(self) -> str:
        return f"{tuple(self.event_shape)}, block={self.block}"


class Haar(Bijection):
    """One step of the Haar wavelet transform: ``(C, H, W)`` to ``(4C, H/2, W/2)``.

    Separates what is smooth from detail, so that a multiscale flow can let the detail leave first: the first
    C channels are the image at half its size (times two), then come differences along rows, along columns and
    along both.

    Formula: each 2 x 2 square by an orthogonal matrix with entries +-1/2; log-det 0. Domain: the whole line.

    Args:
        shape: ``(channels, height, width)``, height and width even.

    Shape: ``(*batch, C, H, W)`` to ``(*batch, 4C, H/2, W/2)``.

    Raises:
        ShapeError: for an odd size; it names sizes that would do.

    References: Haar 1910; Ardizzone et al. 2019, "Guided image generation with conditional invertible neural
    networks", section 3.

    Example:
        >>> import torch
        >>> Haar((1, 2, 2))(torch.ones(1, 2, 2))[0].flatten().tolist()
        [2.0, 0.0, 0.0, 0.0]
    """

    def __init__(self, shape: Sequence[int]):
        squeeze = Squeeze(shape)
        super().__init__(squeeze.event_shape, latent_shape=squeeze.latent_shape)
        self.squeeze = squeeze

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, log_det = self.squeeze(x)
        return _butterfly(y), log_det

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.squeeze.inverse(_butterfly(y))  # symmetric and orthogonal: its own inverse


def _butterfly(x: Tensor) -> Tensor:
    """Sums and differences of the four quarters of the channels."""
    a, b, c, d = within(x).chunk(4, -3)
    s, t, u, v = a + b, a - b, c + d, c - d
    return 0.5 * torch.cat([s + u, t + v, s - u, t - v], -3)
