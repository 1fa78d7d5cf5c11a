"""PixelFlow: an autoregressive flow over the pixels of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from diffeo._fields import Bins, Blocks, Layers, Size, Whole
from diffeo.bases import Uniform
from diffeo.bases.base import Base
from diffeo.bijections import AutoregressiveTokens, Chain, Interleave, Inverse
from diffeo.bijections.base import Bijection
from diffeo.elementwise import PiecewiseLinear
from diffeo.encodings.base import Encoding
from diffeo.encodings.dequantization import Dequantization
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.nets import MaskedConvNet
from diffeo.presets.base import REACH, ImagePreset

HALF = 0.5
"""Centered pixels lie in [-1/2, 1/2]."""


@dataclass(frozen=True)
class PixelFlow(ImagePreset):
    """Every pixel through a histogram of its own, drawn from the pixels before by a masked convolution net.

    The best likelihoods of the presets for small images, and the slowest samples: pixel by pixel, although on
    a cache, in one pass's work. With as many bins as gray levels each histogram is a distribution over the
    levels, so that the flow is PixelCNN as a flow, and uniform noise in ``Dequantization`` costs next to
    nothing: it moves what the net sees, by less than a level, and no pixel's own density. Data lie in
    [-1/2, 1/2], as ``Dequantization`` without ``logit`` gives them; the base is uniform there.

    Departures from the papers: the net sees a pixel's level by an embedding, next to its value; there is a
    bias for every pixel; convolutions are spread out by 1, 2 and 4 pixels; no stack goes around the blind
    spot at the upper right, but every block sees the mean over all rows above.

    Args:
        shape: ``(channels, height, width)``.
        context: what is conditioned on.
        layers: autoregressive layers, alternating in direction. Each costs the same work again, and with more
            than one the noise costs more.
        hidden: channels of each net.
        blocks: residual blocks of each net.
        kernel: side of each net's first convolution, odd.
        bins: of each histogram; 2 to the bits of the encoding.

    Raises:
        ConfigError: for an even kernel, and by ``build`` for an encoding onto the whole line.

    References: van den Oord et al. 2016, "Pixel recurrent neural networks"; van den Oord et al. 2016,
    "Conditional image generation with PixelCNN decoders"; Theis et al. 2016, section 3.1 (densities that are
    constant on a level's cell).

    Example:
        >>> PixelFlow((1, 4, 4), hidden=8, blocks=1, bins=4).build().sample(5).shape
        torch.Size([5, 1, 4, 4])
    """

    learning_rate: ClassVar[float] = 2e-3

    layers: Layers = 1
    hidden: Size = 64
    blocks: Blocks = 6
    kernel: Annotated[int, Whole(1, 63)] = 7
    bins: Bins = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise ConfigError(f"PixelFlow.kernel must be odd, so that it has a middle, not {self.kernel}.")

    def map(self, context_shape: torch.Size | None) -> Bijection:
        channels, height, width = self.shape
        sequence = Interleave(self.shape)
        # The floor of the slopes is mass that no level gets: of every level's likelihood so much is lost.
        family = PiecewiseLinear(self.bins, -HALF, HALF, min_slope=1e-5)
        parts: list[Bijection] = [sequence]
        for i in range(self.layers):
            net = MaskedConvNet(
                height,
                width * channels,
                family.num_params,
                self.hidden,
                self.blocks,
                self.kernel,
                levels=self.bins,
                context_shape=context_shape,
                reach=REACH,
            )
            parts.append(AutoregressiveTokens(net, family, reverse=i % 2 == 1))
        return Chain([*parts, Inverse(sequence)])

    def base(self, latent_shape: torch.Size) -> Base:
        return Uniform(latent_shape, -HALF, HALF)

    def encoding(self, bits: int = 8) -> Dequantization:
        """Centered pixels with uniform noise: the bins are the levels' cells."""
        return Dequantization(self.shape, bits)

    def build(self, encoding: Encoding | None = None) -> Flow:
        if isinstance(encoding, Dequantization) and encoding.logit is not None:
            raise ConfigError(
                "PixelFlow takes pixels in [-1/2, 1/2], but this encoding spreads them over the whole line; "
                "use Dequantization without logit."
            )
        return super().build(encoding)
