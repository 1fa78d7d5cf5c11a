"""Multiscale presets of images: RealNVPImage, Glow, SplineGlow."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from diffeo._fields import Bins, Blocks, Layers, Scale, Size, Whole
from diffeo.bijections import (
    LU,
    ActNorm,
    Chain,
    ImageCoupling,
    Multiscale,
    OnChannels,
    Permute,
    Reversible,
    Squeeze,
    channel_mask,
    checkerboard,
)
from diffeo.bijections.base import Bijection
from diffeo.elementwise import Affine, RationalQuadratic
from diffeo.elementwise.base import Elementwise
from diffeo.functional.seeding import generator
from diffeo.nets import ConvNet, ResidualConvNet
from diffeo.presets.base import REACH, ImagePreset


@dataclass(frozen=True)
class _Multiscale(ImagePreset):
    """Levels of steps, each level ending with the learned prior of what leaves."""

    learning_rate: ClassVar[float] = 3e-3

    levels: Annotated[int, Whole(1, 16)] = 2
    layers: Layers = 8
    hidden: Size = 64
    reversible: bool = False

    def map(self, context_shape: torch.Size | None) -> Bijection:
        shape = torch.Size(self.shape)
        levels: list[Bijection] = []
        for level in range(self.levels):
            parts = self.level(shape, context_shape)
            shape = parts[-1].latent_shape
            if level < self.levels - 1:
                kept = shape[0] // 2
                parts.append(self.coupling(channel_mask(shape[0], kept), shape, Affine(), context_shape))
                shape = torch.Size((kept, *shape[1:]))
            else:
                parts.append(OnChannels(ActNorm(shape[:1]), shape))
            levels.append(Reversible(Chain(parts)) if self.reversible else Chain(parts))
        return Multiscale(levels)

    @abstractmethod
    def level(self, shape: torch.Size, context_shape: torch.Size | None) -> list[Bijection]:
        """The parts of one level, for images of this shape; they squeeze."""

    def coupling(
        self, mask: torch.Tensor, shape: torch.Size, family: Elementwise, context_shape: torch.Size | None
    ) -> ImageCoupling:
        """A coupling with this preset's kind of net."""
        by_channel = mask.shape[1:] == (1, 1)
        passing = int(mask.sum()) if by_channel else shape[0]
        changing = (shape[0] - passing) if by_channel else shape[0]
        in_shape = (passing, *shape[1:])
        return ImageCoupling(mask, self.net(in_shape, changing * family.num_params, context_shape), family)

    def net(
        self, in_shape: tuple[int, ...], out_channels: int, context_shape: torch.Size | None
    ) -> ConvNet | ResidualConvNet:
        return ConvNet(in_shape, out_channels, self.hidden, context_shape=context_shape, reach=REACH)


def _mixed(shape: torch.Size, seed: int) -> Bijection:
    """Glow's step before its coupling: ActNorm and the invertible 1 x 1 convolution, one call of the kernels.

    The permutation is fixed, one a layer; without it the LU factors start where every half meets itself.
    """
    channels = shape[0]
    order = torch.randperm(channels, generator=generator(seed))
    return OnChannels(Chain([ActNorm((channels,)), Permute(order), LU(channels)]), shape)


@dataclass(frozen=True)
class _Steps(_Multiscale):
    """Levels of Glow's steps: a squeeze, then convolution and coupling by turns."""

    def level(self, shape: torch.Size, context_shape: torch.Size | None) -> list[Bijection]:
        parts: list[Bijection] = [Squeeze(shape)]
        shape = parts[0].latent_shape
        for i in range(self.layers):
            parts.append(_mixed(shape, i))
            parts.append(self.coupling(channel_mask(shape[0]), shape, self.family(), context_shape))
        return parts

    @abstractmethod
    def family(self) -> Elementwise:
        """The scalar map of the couplings."""


@dataclass(frozen=True)
class Glow(_Steps):
    """Levels of activation normalization, invertible 1 x 1 convolution and affine coupling.

    The standard flow of images: exact, one pass either way, and with latents that interpolate.

    Departures from the paper: the log-scale is softly clipped at log 1000 where the paper has a sigmoid; the
    learned prior of what leaves sees through the couplings' kind of net, not one convolution; 1 x 1
    convolutions start at permutations, not rotations; the last latent has a mean and scale of its own for
    every element; a context enters every net.

    Args:
        shape: ``(channels, height, width)``; height and width divisible by ``2^levels``.
        context: what is conditioned on.
        levels: L; the paper has 3 for 32 x 32 images and 6 for 256 x 256.
        layers: K, steps a level; the paper has 32.
        hidden: channels of the hidden layers of each net; the paper has 512.
        reversible: recompute activations in the backward pass, so that memory does not grow with depth.

    Raises:
        ShapeError: for sizes that cannot be halved so often; it names sizes that can.

    References: Kingma and Dhariwal 2018, "Glow: Generative flow with invertible 1x1 convolutions".

    Example:
        >>> Glow((1, 8, 8), levels=2, layers=2, hidden=8).build().sample(4).shape
        torch.Size([4, 1, 8, 8])
    """

    def family(self) -> Elementwise:
        return Affine()


@dataclass(frozen=True)
class SplineGlow(_Steps):
    """Glow with rational-quadratic splines in its couplings: better fits a step, slower steps.

    Departures from the paper: as in ``Glow``; the nets have three layers, not residual blocks.

    Args:
        shape: ``(channels, height, width)``; height and width divisible by ``2^levels``.
        context: what is conditioned on.
        levels: L.
        layers: K, steps a level.
        hidden: channels of the hidden layers of each net.
        reversible: recompute activations in the backward pass.
        bins: of each spline.
        bound: half-width of each spline's box.

    References: Durkan, Bekasov, Murray and Papamakarios 2019, "Neural spline flows", section 5.2.

    Example:
        >>> SplineGlow((3, 4, 4), levels=1, layers=2, hidden=8).build().sample(4).shape
        torch.Size([4, 3, 4, 4])
    """

    bins: Bins = 4
    bound: Scale = 3.0

    def family(self) -> Elementwise:
        return RationalQuadratic(self.bins, self.bound)


@dataclass(frozen=True)
class RealNVPImage(_Multiscale):
    """RealNVP of images: checkerboard couplings, a squeeze, channel couplings, and half of it leaves.

    Departures from the paper: ActNorm stands where the paper has batch normalization; the log-scale is softly
    clipped; residual blocks are gated; what leaves has a learned prior; a context enters every net.

    Args:
        shape: ``(channels, height, width)``; height and width divisible by ``2^levels``.
        context: what is conditioned on.
        levels: scales; the paper has the last one without a squeeze.
        layers: couplings a level before the squeeze, and as many after it; the paper has 3, and 4 last.
        hidden: channels of each net.
        reversible: recompute activations in the backward pass.
        blocks: residual blocks of each net; the paper has 4 to 8.

    References: Dinh, Sohl-Dickstein and Bengio 2017, "Density estimation using Real NVP", sections 3.4-3.7.

    Example:
        >>> RealNVPImage((1, 8, 8), layers=2, hidden=8, blocks=1).build().sample(4).shape
        torch.Size([4, 1, 8, 8])
    """

    layers: Layers = 3
    hidden: Size = 32
    blocks: Blocks = 1

    def level(self, shape: torch.Size, context_shape: torch.Size | None) -> list[Bijection]:
        parts: list[Bijection] = []
        for i in range(self.layers):
            parts.append(OnChannels(ActNorm(shape[:1]), shape))
            mask = checkerboard(*shape[1:], odd=i % 2 == 1)
            parts.append(self.coupling(mask, shape, Affine(), context_shape))
        parts.append(Squeeze(shape))
        shape = parts[-1].latent_shape
        for i in range(self.layers):
            parts.append(OnChannels(ActNorm(shape[:1]), shape))
            mask = channel_mask(shape[0])
            parts.append(self.coupling(mask if i % 2 else ~mask, shape, Affine(), context_shape))
        return parts

    def net(
        self, in_shape: tuple[int, ...], out_channels: int, context_shape: torch.Size | None
    ) -> ConvNet | ResidualConvNet:
        sizes = out_channels, self.hidden, self.blocks
        return ResidualConvNet(in_shape, *sizes, context_shape=context_shape, reach=REACH)
