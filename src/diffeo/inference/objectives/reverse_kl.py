"""Reverse KL: variational inference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.functional.seeding import generator
from diffeo.inference.objectives.reparameterized import (
    Draws,
    DrawsForTarget,
    LogDensity,
    draw,
    of_target,
    shares,
)
from diffeo.objectives.base import Batch, weighted_mean
from diffeo.objectives.likelihood import Likelihood
from diffeo.targets import Sampled


def reverse_kl(flow: Flow, log_density: LogDensity, batch: Batch) -> Tensor:
    """``KL(q || p)`` by one draw a row, with its path gradient; see ``ReverseKL``."""
    draws = draw(flow, log_density, batch)
    return draws.surrogate(*_value_and_coefficients(draws, shares(batch)))


def _value_and_coefficients(draws: Draws, share: Tensor) -> tuple[Tensor, Tensor]:
    inside = torch.where(draws.log_p == -math.inf, 0.0, share)
    total = inside.sum()  # of the flow's mass, the part that the target shares
    log_weights = torch.where(inside == 0, 0.0, draws.log_weights)
    coefficients = inside / total.clamp_min(torch.finfo(inside.dtype).tiny)
    value = -(coefficients * log_weights).sum() - total.log()
    return value, -coefficients


@dataclass(frozen=True)
class ReverseKL(DrawsForTarget):
    """``KL(q || p) = E_q [log q(x) - log p(x)]``: variational inference, the flow fitted to a density.

    The flow draws, the target scores: no data are needed. The loss is the plain Monte Carlo mean, in nats;
    its negative, which a run reports, is the evidence lower bound (ELBO), at most the target's log Z. The
    gradient goes through the path of the draws alone: its noise vanishes where the flow meets the target. It
    seeks modes: what the flow does not reach it does not miss. The
    smoother and the lighter-tailed the target, the better it goes.

    Draws on which the target is -inf or NaN say nothing of where to go. They are left out: the loss is that
    of the flow cut to the target's support, ``-log(share inside)`` included, so that the bound holds. When
    all are outside the loss is infinite and the step is skipped.

    Cost: a draw with its gradient, the target's gradient, and the flow's density with its gradient in x.
    The last is dear for flows whose density goes column by column (``IAF``): there ``path=False`` makes
    twenty and more steps of one.

    Args:
        target: anything with ``log_prob(x)`` that carries a gradient of x.
        path: whether to leave out of the gradient the score of the flow, whose mean is zero but which is
            noise. Without it no density is needed but the one that comes with the draws.

    Raises:
        ConfigError: for a target without gradients.

    References: Rezende and Mohamed 2015, "Variational inference with normalizing flows", eq. 15; Roeder, Wu
    and Duvenaud 2017, "Sticking the landing", eq. 7; Vaitl et al. 2022, "Gradients should stay on path",
    eq. 12.

    Example:
        >>> import torch, diffeo
        >>> target = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
        >>> flow = diffeo.presets.RealNVP(features=2, layers=2, hidden=(16,)).build()
        >>> batch = Batch(torch.zeros(64, 2), None, None, torch.arange(64))
        >>> abs(round(ReverseKL(target)(flow, batch).item(), 3))
        0.0
    """

    path: bool = True

    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        log_density = of_target(self.evaluator)
        if self.path:
            return reverse_kl(flow, log_density, batch)
        draws = draw(flow, log_density, batch, path=False)
        return _value_and_coefficients(draws, shares(batch))[0].to(draws.x.dtype)


@dataclass(frozen=True)
class SymmetricKL(DrawsForTarget):
    """``KL(q || p) + KL(p || q)``, where the target can be sampled: reverse KL and maximum likelihood
    together.

    Seeks modes and covers them. Half of it is ``ReverseKL``, with its gradient; the other half is the
    likelihood of as many exact draws. The target's log Z cancels: the loss is nats above a perfect fit.

    Cost: that of ``ReverseKL``, the likelihood's, and as many evaluations of the target again.

    Args:
        target: one that is ``targets.Sampled`` too and carries a gradient of x.

    Raises:
        ConfigError: for a target that cannot be sampled, or without gradients.

    References: Jeffreys 1946, "An invariant form for the prior probability in estimation problems".

    Example:
        >>> import torch, diffeo
        >>> class Standard(diffeo.targets.Sampled):
        ...     def log_prob(self, x):
        ...         return -0.5 * x.square().sum(-1)
        ...     def sample(self, n, generator=None):
        ...         return torch.randn(n, 2, generator=generator)
        >>> flow = diffeo.presets.RealNVP(features=2, layers=2, hidden=(16,)).build()
        >>> batch = Batch(torch.zeros(64, 2), None, None, torch.arange(64))
        >>> abs(round(SymmetricKL(Standard())(flow, batch).item(), 3))
        0.0
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(known := self.evaluator.target, Sampled):
            raise ConfigError(
                f"{type(known).__name__} cannot be sampled; SymmetricKL needs a targets.Sampled, "
                f"use ReverseKL otherwise."
            )

    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        target = self.evaluator
        draws = None if flow.training else generator(1, batch.x.device)
        x = cast(Sampled, target.target).sample(len(batch.rows), draws).to(batch.x)
        with torch.no_grad():
            log_p = weighted_mean(target(x), batch.weights)
        exact = Batch(x, batch.context, batch.weights, batch.rows)
        return reverse_kl(flow, of_target(target), batch) + Likelihood()(flow, exact) + log_p
