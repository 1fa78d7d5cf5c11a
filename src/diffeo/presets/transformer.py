"""Transformer flows of images: TarFlow and Jet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from diffeo._fields import Blocks, Layers, Probability, Scale, Size, Whole
from diffeo.bijections import (
    ActNorm,
    AutoregressiveTokens,
    Chain,
    ImageCoupling,
    Inverse,
    OnChannels,
    Permute,
    Reversible,
    Squeeze,
    Tokens,
    channel_mask,
)
from diffeo.bijections.base import Bijection
from diffeo.contexts import Classes
from diffeo.elementwise import Affine
from diffeo.encodings.base import Encoding
from diffeo.encodings.context import OneHotContext
from diffeo.encodings.dequantization import Dequantization
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.functional.seeding import generator
from diffeo.nets import CausalTransformer, VisionTransformer
from diffeo.objectives import Likelihood, NoisyLikelihood, Objective
from diffeo.presets.base import REACH, ImagePreset


@dataclass(frozen=True)
class TarFlow(ImagePreset):
    """Affine autoregressive layers over patches of an image, each a causal transformer: TarFlow.

    Simple and strong, for images: every layer sees all patches before, and layers alternate in
    direction. Sampling goes patch by patch on a cache of keys and values, in one pass's work a layer; other
    ways are the layers' ``sampler``. With ``noise`` it learns the density of noisy images, whose samples
    ``diffeo.latents`` cleans; with ``Classes`` and ``drop``, ``diffeo.latents`` makes samples more typical
    of their class.

    Cost: like a transformer of ``blocks * layers`` blocks over ``H W / patch^2`` tokens.

    Args:
        shape: ``(channels, height, width)``, height and width multiples of ``patch``.
        context: ``Classes(n)``, ``Image(c, h, w)``, ``Vector(n)``, an integer (a ``Vector``), or None.
        patch: side of a patch; a token has ``channels * patch^2`` numbers.
        blocks: autoregressive layers.
        layers: transformer blocks in each.
        hidden: width of the transformers, a multiple of ``heads``.
        heads: of attention.
        noise: sigma of ``NoisyLikelihood``, in units of the encoded pixels; 0 for plain likelihood.
        drop: in training, the probability of forgetting a row's class.
        checkpoint: train in less memory, for a fourth more work.

    References: Zhai et al. 2025, "Normalizing flows are capable generative models".

    Example:
        >>> TarFlow((1, 8, 8), hidden=8).build().sample(5).shape
        torch.Size([5, 1, 8, 8])
    """

    learning_rate: ClassVar[float] = 1e-3

    patch: Annotated[int, Whole(1, 256)] = 4
    blocks: Blocks = 4
    layers: Layers = 2
    hidden: Size = 128
    heads: Annotated[int, Whole(1, 256)] = 4
    noise: Scale = 0.0
    drop: Probability = 0.0
    checkpoint: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drop > 0 and not isinstance(self.context, Classes):
            raise ConfigError(f"TarFlow.drop must be 0 unless context=Classes(n), not {self.drop}.")

    def map(self, context_shape: torch.Size | None) -> Bijection:
        squeeze = Squeeze(self.shape, self.patch)
        tokens = Tokens(squeeze.latent_shape)
        length, width = tokens.latent_shape
        family = Affine()
        parts: list[Bijection] = [squeeze, _normalized(squeeze), tokens]
        for i in range(self.blocks):
            net = CausalTransformer(
                length,
                width,
                family.num_params,
                self.hidden,
                self.layers,
                self.heads,
                context_shape=context_shape,
                checkpoint=self.checkpoint,
                reach=REACH,
            )
            parts.append(AutoregressiveTokens(net, family, reverse=i % 2 == 1))
        return Chain([*parts, Inverse(tokens), Inverse(squeeze)])

    def encoding(self, bits: int = 8) -> Dequantization:
        """With ``noise``, whose unit is a pixel's, plain centered pixels."""
        return Dequantization(self.shape, bits) if self.noise > 0 else super().encoding(bits)

    def objective(self) -> Objective:
        return NoisyLikelihood(self.noise) if self.noise > 0 else Likelihood()

    def build(self, encoding: Encoding | None = None) -> Flow:
        flow = super().build(encoding)
        if isinstance(flow.context_encoding, OneHotContext):
            flow.context_encoding.drop = self.drop
        return flow


@dataclass(frozen=True)
class Jet(ImagePreset):
    """Affine couplings whose nets are vision transformers over patches: Jet.

    Sampling and scoring both take one pass. Each layer shuffles the numbers in every patch by a fixed
    permutation, passes half of them, and moves the other half; the last puts all back in their places.

    Cost: like a transformer of ``layers * blocks`` blocks over ``H W / patch^2`` tokens.

    Args:
        shape: ``(channels, height, width)``, height and width multiples of ``patch``.
        context: ``Classes(n)``, ``Image(c, h, w)``, ``Vector(n)``, an integer (a ``Vector``), or None.
        patch: side of a patch.
        layers: couplings.
        hidden: width of the transformers, a multiple of ``heads``.
        blocks: transformer blocks in each coupling.
        heads: of attention.
        reversible: train in memory that does not grow with ``layers``, for two more passes a step.

    References: Kolesnikov, Pinto and Tschannen 2024, "Jet: a modern transformer-based normalizing flow".

    Example:
        >>> Jet((1, 8, 8), hidden=8).build().sample(5).shape
        torch.Size([5, 1, 8, 8])
    """

    learning_rate: ClassVar[float] = 1e-3

    patch: Annotated[int, Whole(1, 256)] = 4
    layers: Layers = 8
    hidden: Size = 128
    blocks: Blocks = 1
    heads: Annotated[int, Whole(1, 256)] = 4
    reversible: bool = False

    def map(self, context_shape: torch.Size | None) -> Bijection:
        squeeze = Squeeze(self.shape, self.patch)
        shape = channels, *size = squeeze.latent_shape
        mask, family = channel_mask(channels), Affine()
        passing, moved = channels // 2, torch.arange(channels)
        parts: list[Bijection] = [squeeze, _normalized(squeeze)]
        for i in range(self.layers):
            order = torch.randperm(channels, generator=generator(i))
            net = VisionTransformer(
                (passing, *size),
                ((channels - passing) * family.num_params, *size),
                self.hidden,
                self.blocks,
                self.heads,
                context_shape=context_shape,
                reach=REACH,
            )
            parts += [OnChannels(Permute(order), shape), ImageCoupling(mask, net, family)]
            moved = moved[order]
        chain = Chain([*parts, OnChannels(Permute(moved.argsort()), shape), Inverse(squeeze)])
        return Reversible(chain) if self.reversible else chain


def _normalized(squeeze: Squeeze) -> Bijection:
    """Each place in a patch at mean 0 and scale 1 over the training images."""
    shape = squeeze.latent_shape
    return OnChannels(ActNorm(shape[:1]), shape)
