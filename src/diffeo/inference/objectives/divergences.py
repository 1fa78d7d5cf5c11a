"""Alpha-divergences and importance-weighted bounds, with doubly reparameterized gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.inference.objectives.reparameterized import DrawsForTarget, draw, of_target, shares
from diffeo.objectives.base import Batch


@dataclass(frozen=True)
class AlphaDivergence(DrawsForTarget):
    """Renyi's divergence over alpha, ``1 / (alpha (alpha - 1)) log E_q [(p / q)^alpha]``.

    Between the two KL divergences and beyond: alpha -> 0 is ``ReverseKL``, alpha -> 1 is ``KL(p || q)``,
    maximum likelihood, which needs draws of p. The larger alpha, the more it costs to miss a part of the
    target, and the noisier the estimate: what counts are the few draws with large weights. Begin where the
    flow already covers the target, say after some steps of ``ReverseKL``.

    The loss, in nats, is off by ``log Z / (alpha - 1)`` for an unnormalized target. As the log of a mean
    over the batch, it and its gradient are biased by about (variance of the weights) / rows; use large
    batches.

    Formula: gradient ``-sum_i v_i (dx_i / dtheta)' d/dx log(p / q)(x_i)`` with ``v = softmax(alpha log(p /
    q))``.

    Args:
        target: anything with ``log_prob(x)`` that carries a gradient of x; one density, whatever the context.
        alpha: above 0, not 1.

    Raises:
        ConfigError: for another alpha, or a target without gradients.

    References: Li and Turner 2016, "Renyi divergence variational inference", eq. 4; Tucker et al. 2019,
    "Doubly reparameterized gradient estimators", eq. 8; Daudel, Benton, Shi and Doucet 2023,
    "Alpha-divergence variational inference meets importance weighted auto-encoders".

    Example:
        >>> import torch, diffeo
        >>> target = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
        >>> flow = diffeo.presets.RealNVP(features=2, layers=2, hidden=(16,)).build()
        >>> batch = Batch(torch.zeros(64, 2), None, None, torch.arange(64))
        >>> abs(round(AlphaDivergence(target, alpha=0.5)(flow, batch).item(), 3))
        0.0
    """

    alpha: float

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf or self.alpha == 1:
            raise ConfigError(
                f"alpha must be finite, above 0 and not 1, not {self.alpha}; its limit at 0 is ReverseKL, at "
                f"1 Likelihood on draws of the target."
            )
        super().__post_init__()

    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        draws = draw(flow, of_target(self.evaluator), batch)
        terms = self.alpha * draws.log_weights + shares(batch).log()
        log_mean = terms.logsumexp(0)
        value = log_mean / (self.alpha * (self.alpha - 1))
        return draws.surrogate(value, -torch.exp(terms - log_mean))


@dataclass(frozen=True)
class ChiSquare(DrawsForTarget):
    """``1/2 log(1 + chi^2(p || q))``, ``AlphaDivergence`` at alpha = 2: half the log of what importance
    sampling costs.

    ``1 + chi^2`` is the factor by which weights shrink the sample: the effective fraction (ESS) of the
    flow's draws is its inverse. An unnormalized target adds its log Z: the loss is an upper bound of it, as
    ``-ReverseKL`` is a lower one.

    Args:
        target: anything with ``log_prob(x)`` that carries a gradient of x.

    Raises:
        ConfigError: for a target without gradients.

    References: Dieng, Tran, Ranganath, Paisley and Blei 2017, "Variational inference via chi upper bound
    minimization", eq. 2.

    Example:
        >>> import torch, diffeo
        >>> target = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
        >>> flow = diffeo.presets.RealNVP(features=2, layers=2, hidden=(16,)).build()
        >>> batch = Batch(torch.zeros(64, 2), None, None, torch.arange(64))
        >>> abs(round(ChiSquare(target)(flow, batch).item(), 3))
        0.0
    """

    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        return AlphaDivergence(self.target, 2.0)(flow, batch)


@dataclass(frozen=True)
class ImportanceBound(DrawsForTarget):
    """``-E log 1/K sum_k p(x_k) / q(x_k)``: the importance-weighted bound (IWAE), tighter with every draw.

    Its negative is at most log Z, and at least the ELBO, which is K = 1. It trains a flow that is good to
    draw importance samples from, and spreads it wider than ``ReverseKL`` does. With many draws the gradient
    stays usable, as the score is out of it; plain gradients would drown in noise. A row none of whose draws
    meets the target makes the loss infinite, and the step is skipped.

    Formula: gradient ``-sum_k w_k^2 (dx_k / dtheta)' d/dx log(p / q)(x_k)``, w the row's weights over their
    sum.

    Cost: K times that of ``ReverseKL``.

    Args:
        target: anything with ``log_prob(x)`` that carries a gradient of x.
        num_draws: K, for each row of the batch.

    Raises:
        ConfigError: for fewer than 1 draw, or a target without gradients.

    References: Burda, Grosse and Salakhutdinov 2016, "Importance weighted autoencoders", eq. 8; Tucker et
    al. 2019, "Doubly reparameterized gradient estimators", eq. 8.

    Example:
        >>> import torch, diffeo
        >>> target = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
        >>> flow = diffeo.presets.RealNVP(features=2, layers=2, hidden=(16,)).build()
        >>> batch = Batch(torch.zeros(64, 2), None, None, torch.arange(64))
        >>> abs(round(ImportanceBound(target, num_draws=5)(flow, batch).item(), 3))
        0.0
    """

    num_draws: int = 8

    def __post_init__(self) -> None:
        if self.num_draws < 1:
            raise ConfigError(f"num_draws must be at least 1, not {self.num_draws}.")
        super().__post_init__()

    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        draws = draw(flow, of_target(self.evaluator), batch, self.num_draws)
        log_sum = draws.log_weights.logsumexp(0)
        share = shares(batch)
        # a row without any weight has none to share
        normalized = torch.where(log_sum == -math.inf, 0.0, torch.exp(draws.log_weights - log_sum))
        value = -(share * (log_sum - math.log(self.num_draws))).sum()
        return draws.surrogate(value, -share * normalized.square())
