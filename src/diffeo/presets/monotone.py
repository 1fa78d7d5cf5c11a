"""Presets of general monotone maps: NAF, UNAF, SOSPF, BPF, Gaussianization."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from diffeo._fields import Blocks, Layers, Scale, Size, Whole, Widths
from diffeo.bijections import LU, Autoregressive, Chain, Coupling, Orthogonal, Pointwise, Reverse, Standardize
from diffeo.bijections.base import Bijection
from diffeo.elementwise import Bernstein, DeepSigmoid, MixtureCDF, MonotonicNet, SumOfSquares
from diffeo.elementwise.base import Elementwise
from diffeo.nets import MLP, ResMADE
from diffeo.presets.base import REACH, VectorPreset


@dataclass(frozen=True)
class _Masked(VectorPreset):
    """Autoregressive layers of one family, as NSF has them: residual MADE, LU and reversal between."""

    layers: Layers = 3
    hidden: Size = 64
    blocks: Blocks = 2

    def _chain(self, context_features: int, family: Callable[[], Elementwise]) -> Chain:
        parts: list[Bijection] = [Standardize((self.features,))]
        for i in range(self.layers):
            own = family()
            net = ResMADE(
                self.features,
                own.num_params,
                self.hidden,
                self.blocks,
                context_features=context_features,
                reach=REACH,
            )
            parts += [LU(self.features), Reverse(self.features)] if i else []
            parts.append(Autoregressive(net, own))
        return Chain(parts)


@dataclass(frozen=True)
class NAF(_Masked):
    """Neural autoregressive flow: each column through a mixture of sigmoids that a masked net places.

    Smooth, universal in one layer, without a box: the units go where the data are. The density is one pass;
    samples solve for each column.

    An untrained flow is close to its base, not equal to it: the units of a mixture must start apart to be
    told apart. (With ``units=1`` it is equal.)

    Departures from the paper: one layer of sigmoids a flow layer, not a net of them (the paper's DSF, not
    DDSF); a residual MADE computes their parameters; rates and centers start spread, and rates are bounded
    softly; LU layers and reversals between layers; data are standardized.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: autoregressive layers.
        hidden: width of each residual net.
        blocks: residual blocks of each net.
        units: sigmoids of each scalar map, 1 to 512.

    References: Huang, Krueger, Lacoste and Courville 2018, "Neural autoregressive flows", section 3.1,
    equation 8.

    Example:
        >>> NAF(features=3, layers=2, hidden=8).build().sample(4).shape
        torch.Size([4, 3])
    """

    layers: Layers = 2
    hidden: Size = 96
    units: Annotated[int, Whole(1, 512)] = 32

    def bijection(self, context_features: int) -> Bijection:
        return self._chain(context_features, lambda: DeepSigmoid(self.units))


@dataclass(frozen=True)
class UNAF(_Masked):
    """Unconstrained monotonic neural flow: each column through the integral of a positive net.

    The freest scalar maps, and the slowest: one small net is integrated for every scalar.

    Departures from the paper: the integrand is the exponential of a bounded net of hyperbolic tangents,
    constant outside a box; the quadrature has as many nodes as it needs; a residual MADE computes the
    embeddings; LU layers and reversals between layers; data are standardized.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: autoregressive layers.
        hidden: width of each residual net.
        blocks: residual blocks of each net.
        embedding: how many numbers tell the integrand about the columns before.
        width: of the integrand's two hidden layers.
        bound: half-width of the box of each scalar map.

    References: Wehenkel and Louppe 2019, "Unconstrained monotonic neural networks", sections 3-4.

    Example:
        >>> UNAF(features=2, layers=1, hidden=8, width=8).build().sample(4).shape
        torch.Size([4, 2])
    """

    embedding: Annotated[int, Whole(1, 4096)] = 16
    width: Annotated[int, Whole(1, 4096)] = 32
    bound: Scale = 4.0

    def bijection(self, context_features: int) -> Bijection:
        hidden = (self.width, self.width)
        return self._chain(context_features, lambda: MonotonicNet(self.embedding, hidden, self.bound))


@dataclass(frozen=True)
class SOSPF(_Masked):
    """Sum-of-squares polynomial flow: each column through an increasing polynomial.

    Departures from the paper: polynomials live on a box and go on as lines; half of the squares are weighted
    by ``1 - t^2``, so that the start is the identity; a residual MADE computes the coefficients; LU layers
    and reversals between layers; data are standardized.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: autoregressive layers; the paper uses up to 8.
        hidden: width of each residual net.
        blocks: residual blocks of each net.
        degree: of the polynomials that are squared, 1 to 32.
        polynomials: pairs of them in each scalar map, 1 to 64.
        bound: half-width of the box of each scalar map.

    References: Jaini, Selby and Yu 2019, "Sum-of-squares polynomial flow", section 4.

    Example:
        >>> SOSPF(features=2, layers=1, hidden=8).build().sample(4).shape
        torch.Size([4, 2])
    """

    degree: Annotated[int, Whole(1, 128)] = 6
    polynomials: Annotated[int, Whole(1, 64)] = 3
    bound: Scale = 4.0

    def bijection(self, context_features: int) -> Bijection:
        family = SumOfSquares(self.degree, self.polynomials, self.bound)
        return self._chain(context_features, lambda: family)


@dataclass(frozen=True)
class BPF(_Masked):
    """Bernstein polynomial flow: each column through a Bernstein polynomial with increasing coefficients.

    Departures from the paper: the box's image is free, and the map goes on as lines outside, where the paper
    squeezes data into the box; the layers are autoregressive with a residual MADE; LU layers and reversals
    between layers; data are standardized.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: autoregressive layers.
        hidden: width of each residual net.
        blocks: residual blocks of each net.
        degree: of the polynomials, 1 to 128.
        bound: half-width of the box of each scalar map.

    References: Ramasinghe, Fernando, Khan and Barnes 2021, "Robust normalizing flows using Bernstein-type
    polynomials", sections 3-4.

    Example:
        >>> BPF(features=2, layers=1, hidden=8).build().sample(4).shape
        torch.Size([4, 2])
    """

    degree: Annotated[int, Whole(1, 128)] = 24
    bound: Scale = 4.0

    def bijection(self, context_features: int) -> Bijection:
        family = Bernstein(self.degree, self.bound)
        return self._chain(context_features, lambda: family)


@dataclass(frozen=True)
class Gaussianization(VectorPreset):
    """Gaussianization flow: rotations, and between them each column made normal by a mixture of its own.

    No net: columns meet in the rotations alone, so every layer is shallow and cheap, and many are needed.
    With a context a net gives every mixture's parameters from it.

    An untrained flow is close to its base, not equal to it: the components of a mixture must start apart to
    be told apart. (With ``components=1`` it is equal.)

    Departures from the paper: normal components in place of logistic ones; rotations start at the identity;
    components start at the quantiles of a normal, not of the data, which are standardized; the paper takes
    no context.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: mixtures of each column, with a rotation between each two.
        hidden: widths of the net that sees the context; unused without one.
        components: of each mixture, 1 to 512.

    References: Chen and Gopinath 2001, "Gaussianization", section 3; Meng, Song, Song and Ermon 2020,
    "Gaussianization flows", sections 3.1-3.3.

    Example:
        >>> Gaussianization(features=3, layers=2).build().sample(4).shape
        torch.Size([4, 3])
    """

    layers: Layers = 8
    hidden: Widths = (64, 64)
    components: Annotated[int, Whole(1, 512)] = 8

    def bijection(self, context_features: int) -> Bijection:
        family, d = MixtureCDF(self.components), self.features
        parts: list[Bijection] = [Standardize((d,))]
        for i in range(self.layers):
            parts += [Orthogonal(d)] if i and d > 1 else []
            if context_features:
                sizes = 0, d * family.num_params, self.hidden
                net = MLP(*sizes, context_features=context_features, reach=REACH)
                parts.append(Coupling([False] * d, net, family))
            else:
                parts.append(Pointwise(family, (d,)))
        return Chain(parts)
