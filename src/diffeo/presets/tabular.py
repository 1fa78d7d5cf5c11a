"""The default flow for tables, and the choice of its size.

A table's flow starts from closed forms. It whitens with the training covariance, cuts heavy tails by
logarithms before the first learned layer, and, where a short race says so, maps every column through a
spline of its quantiles. Whitening alone was worth two nats after equal steps on strongly correlated columns.
Logarithmic tails gave half a nat of test likelihood on one heavy-tailed table, nearly all of it from a few
outliers (single runs). The rates of ``LogTails`` are positive, so zero parameters are not the identity
there.

Circular columns come last. Real columns never depend on an angle's raw value, which would put a jump at the
seam; angles depend on the reals, and on each other through cosine and sine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from diffeo._fields import MOST_BINS, Bins, Blocks, Layers, Probability, Scale, Several, Size, Stretch, Whole
from diffeo.bijections import (
    LU,
    Autoregressive,
    Chain,
    LogTails,
    Marginal,
    OnColumns,
    Probit,
    Reverse,
    Standardize,
    Whiten,
)
from diffeo.bijections.base import Bijection
from diffeo.contexts import ContextSpec
from diffeo.elementwise import CircularRationalQuadratic, Elementwise
from diffeo.errors import ConfigError
from diffeo.nets import OnAngles, ResMADE
from diffeo.presets.base import MAX_SCALE, REACH, VectorPreset, splines


@dataclass(frozen=True)
class Tabular(VectorPreset):
    """What ``fit_table`` builds: a neural spline flow that starts where simple statistics end.

    Optionally each column through a spline that makes it normal (``Marginal``), then whitening
    (``Whiten``), both set in closed form from the training rows; behind them the layers of ``NSF``.
    Untrained it already is the full-covariance Gaussian (or Gaussian copula) fitted to the rows.

    Circular columns, angles in [-pi, pi), come after the real ones: ``p(reals) p(angles | reals)``. Each
    goes through a circular spline of twice the bins, whose parameters see the real columns and, as
    cosines and sines, the angles before it, so that the density is continuous across every seam.
    Untrained they are uniform.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: autoregressive layers.
        hidden: width of each residual masked net.
        blocks: residual blocks of each net.
        bins: K of each layer's splines.
        bound: half-width of each layer's spline box.
        max_scale: how far the location and scale behind each spline may stretch or shrink, at least 1; at 1
            there is none.
        dropout: in the nets, in [0, 1).
        marginal: bins of the per-column splines; 0 for none.
        circular: which columns are angles, each a number from 0 to D - 1.

    Raises:
        ConfigError: for a field out of its range.

    References: Durkan et al. 2019; Dai and Seljak 2021 for what marginals and a linear map can do alone;
    Rezende et al. 2020, section 2.1, for circular splines.

    Example:
        >>> Tabular(features=3, marginal=16).build().sample(4).shape
        torch.Size([4, 3])
    """

    layers: Layers = 5
    hidden: Size = 128
    blocks: Blocks = 2
    bins: Bins = 8
    bound: Scale = 3.0
    max_scale: Stretch = MAX_SCALE
    dropout: Probability = 0.0
    marginal: Annotated[int, Whole(0, 256)] = 0
    circular: Annotated[tuple[int, ...], Several(Whole(0, 16384), 0, 16384)] = ()  # pyright: ignore[reportIncompatibleVariableOverride]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.circular)) < len(self.circular) or not all(i < self.features for i in self.circular):
            raise ConfigError(
                f"Tabular.circular must be distinct columns below {self.features}, not {self.circular}."
            )

    def bijection(self, context_features: int) -> Bijection:
        D, C = self.features, len(self.circular)
        if not C:
            return Chain(self._reals(D, context_features))
        reals = sorted(set(range(D)) - set(self.circular))
        angles = self._angles(C, len(reals) + context_features)
        if not reals:
            return OnColumns(self.circular, angles, D)
        seen = Chain(self._normalized(len(reals)))
        stack = Chain(self._reals(len(reals), context_features))
        return Chain([OnColumns(self.circular, angles, D, given=seen), OnColumns(reals, stack, D)])

    def _normalized(self, D: int) -> list[Bijection]:
        """D real columns to roughly independent normal ones, set from the rows."""
        first = [LogTails(D), Marginal(D, self.marginal)] if self.marginal else [Standardize((D,))]
        return [*first, Whiten(D), LogTails(D)]

    def _reals(self, D: int, context_features: int) -> list[Bijection]:
        family = splines(self.bins, self.bound, self.max_scale)
        parts = self._normalized(D)
        for i in range(self.layers):
            parts += [LU(D), Reverse(D)] if i else []
            parts.append(Autoregressive(self._net(D, family, context_features), family))
        return parts

    def _angles(self, C: int, context_features: int) -> Bijection:
        """C angles to normal numbers: a spline of the whole circle is any density, once it is fine enough."""
        family = CircularRationalQuadratic(min(2 * self.bins, MOST_BINS))
        net = OnAngles(self._net(2 * C - 1, family, context_features))
        return Chain([Autoregressive(net, family), Probit((C,), -math.pi, math.pi)])

    def _net(self, D: int, family: Elementwise, context_features: int) -> ResMADE:
        return ResMADE(
            D,
            family.num_params,
            self.hidden,
            self.blocks,
            context_features=context_features,
            dropout=self.dropout,
            reach=REACH,
        )


def choose(
    rows: int, features: int, context: ContextSpec | None = None, circular: tuple[int, ...] = ()
) -> list[VectorPreset]:
    """The presets worth racing on a table of this size, the safest first.

    Args:
        rows: training rows.
        features: columns to model.
        context: what is conditioned on.
        circular: which columns are angles.

    Example:
        >>> [p.marginal for p in choose(50_000, 8)]
        [0, 32]
    """
    if rows < 3_000:
        sizes = {"layers": 3, "hidden": 64, "blocks": 1, "dropout": 0.2, "bins": 8}
    elif rows < 20_000:
        sizes = {"hidden": 128, "dropout": 0.1}
    else:
        sizes = {"hidden": 128}
    bins = max(4, min(32, rows // 100))
    marginals = (0, bins) if len(circular) < features else (0,)
    return [Tabular(features, context, marginal=m, circular=circular, **sizes) for m in marginals]
