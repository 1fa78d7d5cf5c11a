"""The default flow for tables, and the choice of its size."""

from __future__ import annotations

from dataclasses import dataclass

from diffeo.bijections import LU, Autoregressive, Chain, LogTails, Marginal, Reverse, Standardize, Whiten
from diffeo.bijections.base import Bijection
from diffeo.elementwise import RationalQuadratic
from diffeo.nets import ResMADE
from diffeo.presets.base import Classes, Preset, Vector


@dataclass(frozen=True)
class Tabular(Preset):
    """What ``fit_table`` builds: a neural spline flow that starts where simple statistics end.

    Optionally each column through a spline that makes it normal (``Marginal``), then whitening
    (``Whiten``), both set in closed form from the training rows; behind them the layers of ``NSF``.
    Untrained it already is the full-covariance Gaussian (or Gaussian copula) fitted to the rows.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: autoregressive layers.
        hidden: width of each residual masked net.
        blocks: residual blocks of each net.
        bins: K of each layer's splines.
        bound: half-width of each layer's spline box.
        dropout: in the nets, in [0, 1).
        marginal: bins of the per-column splines; 0 for none.

    References: Durkan et al. 2019; Dai and Seljak 2021 for what marginals and a linear map can do alone.

    Example:
        >>> Tabular(features=3, marginal=16).build().sample(4).shape
        torch.Size([4, 3])
    """

    layers: int = 5
    hidden: int = 128
    blocks: int = 2
    bins: int = 8
    bound: float = 3.0
    dropout: float = 0.0
    marginal: int = 0

    def bijection(self, context_features: int) -> Bijection:
        D = self.features
        family = RationalQuadratic(self.bins, self.bound)
        parts: list[Bijection] = [LogTails(D), Marginal(D, self.marginal)] if self.marginal else [Standardize((D,))]
        parts += [Whiten(D), LogTails(D)]
        for i in range(self.layers):
            net = ResMADE(
                D,
                family.num_params,
                self.hidden,
                self.blocks,
                context_features=context_features,
                dropout=self.dropout,
            )
            parts += [LU(D), Reverse(D)] if i else []
            parts.append(Autoregressive(net, family))
        return Chain(parts)


def choose(rows: int, features: int, context: Vector | Classes | None = None) -> list[Preset]:
    """The presets worth racing on a table of this size, the safest first.

    Args:
        rows: training rows.
        features: columns to model.
        context: what is conditioned on.

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
    return [Tabular(features, context, marginal=m, **sizes) for m in (0, bins)]
