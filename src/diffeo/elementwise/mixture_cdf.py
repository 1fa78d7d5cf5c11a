"""Gaussianization's scalar map: the normal quantile of a mixture's distribution function."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from torch import Tensor

from diffeo.elementwise.mixture import Start, UnitMixture, check_count, spread
from diffeo.functional.normal_cdf import probit_mixture


@lru_cache
def _start(components: int) -> Start:
    return spread(components, NormalDist().inv_cdf, NormalDist().pdf)


@dataclass(frozen=True)
class MixtureCDF(UnitMixture):
    """``y = Phi^-1(sum_j w_j Phi((x - m_j) / s_j))``: a mixture of K normals, made normal.

    The exact normalizing map of data that are such a mixture: a density of x is fitted as one fits a mixture,
    and any density can be. Tails are linear, as components are normal.

    Formula: ``log S = logsumexp_j(log w_j + log Phi(z_j))`` where that is below one half, else its mirror
    image; ``y`` by the inverse of ``log Phi``. The far slope on either side is ``1 / s`` of the widest
    component; no slope is above ``1 / s`` of the narrowest; between distant narrow components it may be tiny.

    Params: K logits of the weights, K shifts of the centers, K logarithms of the rates ``1 / s``, softly
    clipped. Components start apart: one of width 1 at 0 with half the weight, the others at quantiles of the
    normal, widths by their distance; so zero parameters are close to the identity (it exactly for one
    component), but not equal to it.
    Domain: the whole line. Cost: some 3 K error functions; the inverse solves for x, some ten times that.

    Args:
        components: K, 1 to 512.

    Shape:
        x: ``(*batch,)``, params: ``(*batch, 3 components)``; both results: ``(*batch,)``.

    Raises:
        ConfigError: for another number of components.
        NotConverged: by ``inverse``, where a y cannot be reached to round-off.

    References:
        Chen and Gopinath (2001), *Gaussianization*, section 3. Meng, Song, Song and Ermon (2020),
        *Gaussianization flows*, equation 6, whose kernels are logistic; normal ones keep the tails linear.

    Example:
        >>> import torch
        >>> from diffeo.elementwise import MixtureCDF
        >>> family = MixtureCDF(components=4)
        >>> x, params = torch.tensor([-1e6, 0.5, 30.0]), torch.randn(3, family.num_params)
        >>> y, log_slope = family.forward(x, params)
        >>> torch.allclose(family.inverse(y, params)[0], x, rtol=1e-4)
        True
    """

    components: int = 8

    def __post_init__(self) -> None:
        check_count("components", self.components)

    def start(self) -> Start:
        return _start(self.components)

    def transform(
        self, x: Tensor, logits: Tensor, centers: Tensor, log_rates: Tensor
    ) -> tuple[Tensor, Tensor]:
        return probit_mixture(x, logits, centers, log_rates)
