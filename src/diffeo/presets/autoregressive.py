"""Autoregressive presets: MAF, IAF, NSF."""

from __future__ import annotations

from dataclasses import dataclass

from diffeo._fields import Bins, Blocks, Layers, Probability, Scale, Size, Stretch, Widths
from diffeo.bijections import LU, ActNorm, Autoregressive, Chain, Inverse, Reverse, Standardize
from diffeo.bijections.base import Bijection
from diffeo.elementwise import Affine
from diffeo.nets import MADE, ResMADE
from diffeo.presets.base import MAX_SCALE, REACH, VectorPreset, splines


@dataclass(frozen=True)
class MAF(VectorPreset):
    """Masked autoregressive flow: affine, one net pass a density, the order reversed between layers.

    Departures from the paper: ActNorm stands where the paper has batch normalization; log-scales are
    bounded by a soft clip at log 1000; degrees are spread evenly, not drawn; data are standardized.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: autoregressive layers; the paper uses 5 and 10.
        hidden: widths of each MADE.

    References: Papamakarios, Pavlakou and Murray 2017, "Masked autoregressive flow for density
    estimation", eqs. 2-5.

    Example:
        >>> MAF(features=3).build().sample(4).shape
        torch.Size([4, 3])
    """

    layers: Layers = 5
    hidden: Widths = (128, 128)

    def bijection(self, context_features: int) -> Bijection:
        family = Affine()
        parts: list[Bijection] = [Standardize((self.features,))]
        for i in range(self.layers):
            sizes = self.features, family.num_params, self.hidden
            net = MADE(*sizes, context_features=context_features, reach=REACH)
            parts += [Reverse(self.features)] if i else []
            parts += [Autoregressive(net, family), ActNorm((self.features,))]
        return Chain(parts)


@dataclass(frozen=True)
class IAF(VectorPreset):
    """Inverse autoregressive flow: one net pass a sample; density of one's own samples comes free.

    For variational inference and distillation, where sampling is what is trained. The density of
    outside points takes the columnwise inverse.

    Departures from the paper: the affine step is the inverse of MAF's, with a soft-clipped log-scale
    instead of the LSTM-style gate; the context enters each net's first layer; data are standardized.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: autoregressive layers.
        hidden: widths of each MADE.

    References: Kingma et al. 2016, "Improved variational inference with inverse autoregressive flow",
    eqs. 9-11, algorithm 1.

    Example:
        >>> IAF(features=3).build().sample(4).shape
        torch.Size([4, 3])
    """

    layers: Layers = 5
    hidden: Widths = (128, 128)

    def bijection(self, context_features: int) -> Bijection:
        family = Affine()
        parts: list[Bijection] = [Standardize((self.features,))]
        for i in range(self.layers):
            sizes = self.features, family.num_params, self.hidden
            net = MADE(*sizes, context_features=context_features, reach=REACH)
            parts += [Reverse(self.features)] if i else []
            parts.append(Inverse(Autoregressive(net, family)))
        return Chain(parts)


@dataclass(frozen=True)
class NSF(VectorPreset):
    """Neural spline flow, autoregressive: residual MADE, rational-quadratic splines, LU between layers.

    The best density estimator of the classical kinds, and the default for tables.

    Departures from the paper: a location and a scale stand behind each spline, which its tails follow; data
    are standardized first; between layers the order is reversed where the paper draws a permutation, and the
    LU layer starts at the identity; the context is added in each residual block, without the gate; no batch
    normalization; no LU layer after the last spline.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: autoregressive layers; the paper uses 10.
        hidden: width of each residual net; the paper uses 256 or 512.
        blocks: residual blocks of each net.
        bins: K of each spline.
        bound: half-width of each spline's box.
        max_scale: how far the location and scale behind each spline may stretch or shrink, at least 1; at 1
            there is none, as in the paper.
        dropout: in the nets, in [0, 1).

    References: Durkan, Bekasov, Murray and Papamakarios 2019, "Neural spline flows", sections 3-4, B.1.

    Example:
        >>> import torch
        >>> NSF(features=3).build().log_prob(torch.zeros(4, 3)).shape
        torch.Size([4])
    """

    layers: Layers = 5
    hidden: Size = 128
    blocks: Blocks = 2
    bins: Bins = 8
    bound: Scale = 3.0
    max_scale: Stretch = MAX_SCALE
    dropout: Probability = 0.0

    def bijection(self, context_features: int) -> Bijection:
        family = splines(self.bins, self.bound, self.max_scale)
        parts: list[Bijection] = [Standardize((self.features,))]
        for i in range(self.layers):
            net = ResMADE(
                self.features,
                family.num_params,
                self.hidden,
                self.blocks,
                context_features=context_features,
                dropout=self.dropout,
                reach=REACH,
            )
            parts += [LU(self.features), Reverse(self.features)] if i else []
            parts.append(Autoregressive(net, family))
        return Chain(parts)
