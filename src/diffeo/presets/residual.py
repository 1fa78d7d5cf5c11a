"""Residual presets: RevNet, IResNet, ResidualFlow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from diffeo._fields import Layers, Probability, Widths
from diffeo.bijections import ActNorm, AdditiveResidual, Chain, Contractive, Coupling, Standardize
from diffeo.bijections.base import Bijection
from diffeo.elementwise import Additive
from diffeo.functional.log_dets import EXACT_FEATURES, ExactLogDet, LogDet, RouletteLogDet, SeriesLogDet
from diffeo.nets import MLP, Activation, LipschitzMLP, LipSwish, Sine
from diffeo.presets.base import REACH, VectorPreset
from diffeo.presets.coupling import alternating


@dataclass(frozen=True)
class RevNet(VectorPreset):
    """Reversible residual blocks: each half of the columns moved by a net of the other, then ActNorm.

    As NICE, it keeps volume up to the scales of ActNorm, but every column moves in every block.

    Departures from the paper: it has image classifiers, whose activations are recomputed (``Reversible``
    does that for any chain); here are flows of vectors with MLPs, without batch normalization, strides
    or a division into stages; the halves are every second column and change their roles from block to
    block; the last layer of every net starts at zero; a context enters every net. A lone column has
    no other half: its blocks are shifts, by nets of the context alone.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: residual blocks, of two nets each.
        hidden: widths of each net.

    References: Gomez, Ren, Urtasun and Grosse 2017, "The reversible residual network", section 3.1;
    Prince 2023, section 16.3.6.

    Example:
        >>> RevNet(features=3).build().sample(4).shape
        torch.Size([4, 3])
    """

    layers: Layers = 6
    hidden: Widths = (128, 128)

    def bijection(self, context_features: int) -> Bijection:
        parts: list[Bijection] = [Standardize((self.features,))]
        for i in range(self.layers):
            parts += [self._block(i, context_features), ActNorm((self.features,))]
        return Chain(parts)

    def _block(self, layer: int, context_features: int) -> Bijection:
        mask = alternating(self.features, layer)
        ones, others = sum(mask), len(mask) - sum(mask)
        second = MLP(ones, others, self.hidden, context_features=context_features, reach=REACH)
        if not ones:
            return Coupling(mask, second, Additive())
        first = MLP(others, ones, self.hidden, context_features=context_features, reach=REACH)
        return AdditiveResidual(mask, first, second)


@dataclass(frozen=True)
class IResNet(VectorPreset):
    """Invertible residual network: free-form nets, contracting by certificate, with ActNorm between.

    No halves, no order, no solver: every column sees every other in every block. Sampling solves a fixed
    point for each block.

    Departures from the paper: the Lipschitz bound is certified (the paper's power iteration bounds from
    below) and one of the product of a block's layers, not of each; activations are sines, whose frequency
    the first layers learn; the log-determinant is exact for up to 64 columns, above that the paper's
    truncated series, its length from the bound; data are standardized; a context shifts each net's first
    layer.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: residual blocks.
        hidden: widths of each net.
        lipschitz: bound on each net's Lipschitz constant, in (0, 1).

    References: Behrmann, Grathwohl, Chen, Duvenaud and Jacobsen 2019, "Invertible residual networks",
    sections 2-3; Prince 2023, section 16.3.7.

    Example:
        >>> IResNet(features=3, layers=2).build().sample(4).shape
        torch.Size([4, 3])
    """

    learning_rate: ClassVar[float] = 5e-3
    layers: Layers = 32
    hidden: Widths = (64, 64)
    lipschitz: Probability = 0.97

    def bijection(self, context_features: int) -> Bijection:
        log_det = ExactLogDet() if self.features <= EXACT_FEATURES else SeriesLogDet()
        return _contractive(self, context_features, Sine, log_det, 4.0)


@dataclass(frozen=True)
class ResidualFlow(VectorPreset):
    """Residual flow: as IResNet, with LipSwish nets and an unbiased log-determinant in training.

    For more columns than a Jacobian can be computed for: a training step costs a fixed expected number of
    products with it, whatever D, and memory for one. For few columns IResNet trains faster, its
    log-determinant being exact.

    Departures from the paper: the Lipschitz bound is certified, and one of the product of a block's layers;
    the roulette's stopping probability is 1 - L, after 4 exact terms (the paper: 0.5, after 10), which keeps
    its variance finite for any L; evaluation is exact for up to 64 columns, and above that a series with
    fixed probes; norms are Euclidean throughout; data are standardized.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: residual blocks; the paper uses 100 for toys.
        hidden: widths of each net.
        lipschitz: bound on each net's Lipschitz constant, in (0, 1).

    References: Chen, Behrmann, Duvenaud and Jacobsen 2019, "Residual flows for invertible generative
    modeling", sections 3.1-3.3.

    Example:
        >>> ResidualFlow(features=3, layers=2).build().sample(4).shape
        torch.Size([4, 3])
    """

    layers: Layers = 16
    hidden: Widths = (64, 64)
    lipschitz: Probability = 0.97

    def bijection(self, context_features: int) -> Bijection:
        return _contractive(self, context_features, LipSwish, RouletteLogDet(), 1.0)


def _contractive(
    preset: IResNet | ResidualFlow,
    context: int,
    activation: Callable[[], Activation],
    log_det: LogDet,
    frequency: float,
) -> Bijection:
    """Blocks with ActNorm between them."""
    parts: list[Bijection] = [Standardize((preset.features,))]
    for _ in range(preset.layers):
        net = LipschitzMLP(
            preset.features,
            preset.hidden,
            context_features=context,
            activation=activation,
            lipschitz=preset.lipschitz,
            frequencies=(frequency, frequency),
        )
        parts += [Contractive(net, log_det), ActNorm((preset.features,))]
    return Chain(parts)
