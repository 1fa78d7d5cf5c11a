"""Coupling presets: NICE, RealNVP, CouplingNSF."""

from __future__ import annotations

from dataclasses import dataclass

from diffeo._fields import Bins, Blocks, Layers, Probability, Scale, Size, Stretch, Widths
from diffeo.bijections import LU, ActNorm, Chain, Coupling, Pointwise, Standardize
from diffeo.bijections.base import Bijection
from diffeo.elementwise import Additive, Affine
from diffeo.elementwise.base import Elementwise
from diffeo.nets import MLP, ResidualMLP
from diffeo.presets.base import MAX_SCALE, REACH, VectorPreset, splines


def alternating(features: int, layer: int) -> list[bool]:
    """Every second column passes, the other half in every other layer; a lone column never passes."""
    return [features > 1 and (i + layer) % 2 == 0 for i in range(features)]


def _sizes(mask: list[bool], family: Elementwise) -> tuple[int, int]:
    passing = sum(mask)
    return passing, (len(mask) - passing) * family.num_params


@dataclass(frozen=True)
class NICE(VectorPreset):
    """Additive couplings and one diagonal scaling: volume-preserving up to that scaling.

    The first coupling flow, and the cheapest; kept for teaching and as a baseline.

    Departures from the paper: data are standardized first; the base is a standard normal (the paper
    uses a logistic for most of its data); hidden layers are smaller by default (the paper's: five of
    1000 for images); a context enters every net.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: additive couplings; the paper uses 4.
        hidden: widths of each coupling's MLP.

    References: Dinh, Krueger and Bengio 2015, "NICE: Non-linear independent components estimation",
    sections 3.2-3.3 and 5.1.

    Example:
        >>> NICE(features=3).build().sample(4).shape
        torch.Size([4, 3])
    """

    layers: Layers = 4
    hidden: Widths = (128, 128)

    def bijection(self, context_features: int) -> Bijection:
        family = Additive()
        parts: list[Bijection] = [Standardize((self.features,))]
        for i in range(self.layers):
            mask = alternating(self.features, i)
            sizes = *_sizes(mask, family), self.hidden
            net = MLP(*sizes, context_features=context_features, reach=REACH)
            parts.append(Coupling(mask, net, family))
        return Chain([*parts, Pointwise(Affine(), (self.features,))])


@dataclass(frozen=True)
class RealNVP(VectorPreset):
    """Affine couplings with bounded log-scales: fast both ways.

    Departures from the paper: for vectors, not images (no squeezing, checkerboards or convolutions);
    ActNorm stands where the paper has batch normalization; the log-scale is bounded by a soft clip at
    log 1000 where the paper has a scaled tanh; a context enters every net.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: affine couplings.
        hidden: widths of each coupling's MLP.

    References: Dinh, Sohl-Dickstein and Bengio 2017, "Density estimation using Real NVP", eqs. 4-8.

    Example:
        >>> RealNVP(features=3).build().sample(4).shape
        torch.Size([4, 3])
    """

    layers: Layers = 8
    hidden: Widths = (128, 128)

    def bijection(self, context_features: int) -> Bijection:
        family = Affine()
        parts: list[Bijection] = [Standardize((self.features,))]
        for i in range(self.layers):
            mask = alternating(self.features, i)
            sizes = *_sizes(mask, family), self.hidden
            net = MLP(*sizes, context_features=context_features, reach=REACH)
            parts += [Coupling(mask, net, family), ActNorm((self.features,))]
        return Chain(parts)


@dataclass(frozen=True)
class CouplingNSF(VectorPreset):
    """Neural spline flow with coupling layers: rational-quadratic splines, LU mixing between layers.

    Nearly as good as the autoregressive one and equally fast both ways.

    Departures from the paper: a location and a scale stand behind each spline, which its tails follow; data
    are standardized first; the LU layers start at the identity and carry no random permutation (masks
    alternate); the context enters each residual block by concatenation, without the gate; no batch
    normalization.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: couplings, each followed by an LU layer; the paper uses 10 to 20.
        hidden: width of each residual net.
        blocks: residual blocks of each net.
        bins: K of each spline.
        bound: half-width of each spline's box.
        max_scale: how far the location and scale behind each spline may stretch or shrink, at least 1; at 1
            there is none, as in the paper.
        dropout: in the nets, in [0, 1).

    References: Durkan, Bekasov, Murray and Papamakarios 2019, "Neural spline flows", sections 3-4, B.1.

    Example:
        >>> CouplingNSF(features=3, context=2).build().context_shape
        torch.Size([2])
    """

    layers: Layers = 6
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
            mask = alternating(self.features, i)
            net = ResidualMLP(
                *_sizes(mask, family),
                self.hidden,
                self.blocks,
                context_features=context_features,
                dropout=self.dropout,
                reach=REACH,
            )
            parts += [Coupling(mask, net, family), LU(self.features)]
        return Chain(parts)
