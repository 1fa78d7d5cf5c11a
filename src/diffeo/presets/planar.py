"""Presets of the flows that began it: Planar, Radial, Sylvester."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from diffeo import bijections
from diffeo._fields import Layers, Size, Widths
from diffeo.bijections import Chain, Standardize
from diffeo.bijections.base import Bijection
from diffeo.nets import MLP
from diffeo.presets.base import REACH, VectorPreset


@dataclass(frozen=True)
class _Layered(VectorPreset):
    """Standardize, then layers whose numbers are their own, or a net's of the context."""

    learning_rate: ClassVar[float] = 2e-2
    layers: Layers = 16
    hidden: Widths = (64, 64)

    @abstractmethod
    def _num_params(self) -> int:
        """How many numbers one layer has."""

    @abstractmethod
    def _layer(self, net: MLP | None) -> Bijection:
        """One layer."""

    def bijection(self, context_features: int) -> Bijection:
        parts: list[Bijection] = [Standardize((self.features,))]
        for _ in range(self.layers):
            net = None
            if context_features:
                sizes = 0, self._num_params(), self.hidden
                net = MLP(*sizes, context_features=context_features, reach=REACH)
            parts.append(self._layer(net))
        return Chain(parts)


@dataclass(frozen=True)
class Planar(_Layered):
    """Planar layers, each one fold along a plane: the first normalizing flow of deep learning.

    For teaching and for few columns: a layer changes one direction, so it takes many, and without a context
    each has only 2 D + 1 numbers. They are trained at ten times the usual learning
    rate. Scoring is fast; samples cost a scalar root a layer.

    Departures from the paper: the layers take data to latent, so that given data are scored, where the paper
    takes latent to data inside a variational autoencoder; the inverse, which it does without, is numeric and
    certified; data are standardized first; the constraint on u leaves the identity in place; a net of the
    context, if any, gives all the numbers of a layer.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: planar layers; the paper uses 2 to 80.
        hidden: widths of the net that gives each layer's numbers from the context. Without a context there is
            no such net, and this changes nothing.

    References: Rezende and Mohamed 2015, "Variational inference with normalizing flows", section 4.1.

    Example:
        >>> Planar(features=3).build().sample(4).shape
        torch.Size([4, 3])
    """

    def _num_params(self) -> int:
        return bijections.Planar.num_params(self.features)

    def _layer(self, net: MLP | None) -> Bijection:
        return bijections.Planar(self.features, net)


@dataclass(frozen=True)
class Radial(_Layered):
    """Radial layers, each one dent or bump around a point; closed forms both ways.

    Departures from the paper: those of ``Planar``, but that the inverse is a closed form, the root of a
    quadratic.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: radial layers.
        hidden: widths of the net that gives each layer's numbers from the context. Without a context there is
            no such net, and this changes nothing.

    References: Rezende and Mohamed 2015, "Variational inference with normalizing flows", section 4.1;
    Trippe and Turner 2018, "Conditional density estimation with Bayesian normalising flows", who give a
    radial flow's numbers by a net of the context.

    Example:
        >>> Radial(features=3, context=2).build().context_shape
        torch.Size([2])
    """

    def _num_params(self) -> int:
        return bijections.Radial.num_params(self.features)

    def _layer(self, net: MLP | None) -> Bijection:
        return bijections.Radial(self.features, net)


@dataclass(frozen=True)
class Sylvester(_Layered):
    """Sylvester layers: planar ones with several directions at once, by Householder reflections.

    Departures from the paper: those of ``Planar``; of the paper's three ways to orthonormal columns this is
    Householder's; the inner diagonal is positive, which loses nothing.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: Sylvester layers.
        hidden: widths of the net that gives each layer's numbers from the context. Without a context there is
            no such net, and this changes nothing.
        rank: M, directions of a layer; of fewer columns, all.
        reflections: reflections that make them; M of them reach any M directions.

    References: van den Berg, Hasenclever, Tomczak and Welling 2018, "Sylvester normalizing flows for
    variational inference", section 3.

    Example:
        >>> Sylvester(features=3, rank=2).build().sample(4).shape
        torch.Size([4, 3])
    """

    learning_rate: ClassVar[float] = 2e-2
    layers: Layers = 8
    rank: Size = 8
    reflections: Size = 8

    def _num_params(self) -> int:
        return bijections.Sylvester.num_params(self.features, min(self.rank, self.features), self.reflections)

    def _layer(self, net: MLP | None) -> Bijection:
        return bijections.Sylvester(self.features, min(self.rank, self.features), self.reflections, net)
