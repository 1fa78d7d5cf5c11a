"""The deep sigmoidal flow's scalar map: the logit of a mixture of sigmoids."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from diffeo.elementwise.mixture import Start, UnitMixture, check_count, spread
from diffeo.functional.sigmoidal import logit_mixture


@lru_cache
def _start(units: int) -> Start:
    return spread(units, lambda q: math.log(q / (1 - q)), lambda m: 0.25 / math.cosh(m / 2) ** 2)


@dataclass(frozen=True)
class DeepSigmoid(UnitMixture):
    """``y = logit(sum_j w_j sigmoid(a_j (x - m_j)))``: a smooth universal map of the line, of K sigmoids.

    The scalar map of neural autoregressive flows. Where splines bend at fixed resolution in a box, its units
    move to where they are needed; tails are linear and there is no box.

    Formula: ``log S = logsumexp_j(log w_j + log sigmoid(u_j))`` and likewise ``log (1 - S)`` with ``-u_j``;
    ``y = log S - log(1 - S)``. Each tail is exact in logarithms: its slope is the least ``a_j``,
    asymptotically. No slope is above the greatest ``a_j``; between distant steep units it may be tiny. The
    paper's ``b_j = -a_j m_j`` is written with the center ``m_j``, so that a steep step far from 0 takes no
    huge parameters.

    Params: K logits of the weights, K shifts of the centers, K logarithms of the rates a, softly clipped.
    The units start apart: one of rate 1 at 0 with half the weight, the others at quantiles of the logistic,
    rates by their distance; so zero parameters are close to the identity (it exactly for one unit), but not
    equal to it.
    Domain: the whole line. Cost: 5 K exponentials; the inverse solves for x, some ten times that.

    Args:
        units: K, 1 to 512.

    Shape:
        x: ``(*batch,)``, params: ``(*batch, 3 units)``; both results: ``(*batch,)``.

    Raises:
        ConfigError: for another number of units.
        NotConverged: by ``inverse``, where a y cannot be reached to round-off.

    References:
        Huang, Krueger, Lacoste and Courville (2018), *Neural autoregressive flows*, equation 8.

    Example:
        >>> import torch
        >>> from diffeo.elementwise import DeepSigmoid
        >>> family = DeepSigmoid(units=4)
        >>> x, params = torch.tensor([-1e6, 0.5, 30.0]), torch.randn(3, family.num_params)
        >>> y, log_slope = family.forward(x, params)
        >>> torch.allclose(family.inverse(y, params)[0], x, rtol=1e-4)
        True
    """

    units: int = 16

    def __post_init__(self) -> None:
        check_count("units", self.units)

    def start(self) -> Start:
        return _start(self.units)

    def transform(
        self, x: Tensor, logits: Tensor, centers: Tensor, log_rates: Tensor
    ) -> tuple[Tensor, Tensor]:
        return logit_mixture(x, logits, centers, log_rates)
