"""Annealed importance sampling: from a flow's draws to a target's, by way of what lies between."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from diffeo.errors import ConfigError, DataError
from diffeo.flow import Flow, evaluating
from diffeo.inference.importance import Importance, as_evaluator
from diffeo.inference.resampling import systematic
from diffeo.inference.transitions import ChainState, Transition, fastest
from diffeo.targets import Evaluator, Target


@dataclass(frozen=True)
class Annealing:
    """Carries draws of a flow q to a target p through ``q^(1 - b) p^b``, b from 0 to ``end``.

    Each stage raises b as far as the draws' weights allow, then moves the draws by transitions that leave
    the density at b unchanged; draws that lost their weight give way to copies of others. The mean weight
    estimates the integral of ``q^(1 - end) p^end``, with ``end = 1`` the evidence; consistently, whatever the
    transitions do, and without bias but for what is adapted to the draws themselves (stages, steps). With a
    good q one stage is enough, and this is importance sampling with a few steps behind it; from far away it
    is sequential Monte Carlo.

    Formula: a raise by d multiplies a draw's weight by ``(p / q)^d``; d is the largest for which the
    conditional effective sample size ``(sum W w)^2 / sum W w^2`` stays at ``keep``. Draws are resampled
    where the effective sample size of the accumulated weights falls below ``resample``.

    Cost: stages x moves x a transition's evaluations, for each row; stages grow with the divergence between
    q and p.

    Args:
        transition: by default Hamiltonian where the target brings gradients, else a random walk.
        moves: transitions of each stage; 0 for a single raise, as far as ``keep`` allows, and no evaluation
            but the first: reweighted draws of a tempered target, whose mean weight is not the evidence.
        keep: conditional effective fraction that a raise must leave, in (0, 1).
        resample: effective fraction below which draws are resampled, in [0, 1]; 0 never does.
        end: last exponent of p; 2 makes ``p^2 / q``, whose draws FAB learns from.
        stages: the most stages.

    References: Neal 2001, "Annealed importance sampling"; Del Moral, Doucet and Jasra 2006, section 3.3.2;
    Zhou, Johansen and Aston 2016, section 3.3.2, for the conditional effective sample size; Midgley et al.
    2023, "Flow annealed importance sampling bootstrap", section 3.1, for ``end = 2``.

    Example:
        >>> import torch, diffeo
        >>> from diffeo.targets import FromTorch
        >>> start = diffeo.presets.MAF(features=2).build()
        >>> target = FromTorch(lambda x: -0.5 * ((x - 3) / 0.1).square().sum(-1))
        >>> draws = Annealing().run(start, target, 500, generator=torch.Generator().manual_seed(0))
        >>> bool(abs(draws.log_z - math.log(2 * math.pi * 0.01)) < 0.5)
        True
    """

    transition: Transition | None = None
    moves: int = 2
    keep: float = 0.8
    resample: float = 0.5
    end: float = 1.0
    stages: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1:
            raise ConfigError(f"keep must be in (0, 1), not {self.keep}.")
        if not 0 <= self.resample <= 1:
            raise ConfigError(f"resample must be in [0, 1], not {self.resample}.")
        if not 0 < self.end <= 8:
            raise ConfigError(f"end must be in (0, 8], not {self.end}.")
        if self.moves < 0 or self.stages < 1:
            raise ConfigError("moves must be at least 0 and stages at least 1.")
        if self.moves == 0 and self.end != 1:
            raise ConfigError("without moves the draws stop where keep says, so end must be 1.")

    def run(
        self,
        flow: Flow,
        target: Target,
        num_draws: int,
        *,
        generator: Generator | None = None,
        on_stage: Callable[[float], None] | None = None,
        on_rows: Callable[[Tensor, Tensor], None] | None = None,
    ) -> Importance:
        """``num_draws`` weighted draws of ``q^(1 - end) p^end``.

        Args:
            flow: q; takes no context.
            target: p, unnormalized.
            num_draws: how many.
            generator: of the random numbers.
            on_stage: told the part of the way done, after each stage.
            on_rows: told all rows that the target is evaluated at, with its log-densities.

        Raises:
            DataError: where the target gives no draw a finite density, or the way does not end.
        """
        evaluator = as_evaluator(target)
        with evaluating(flow), torch.no_grad():
            x = flow.sample(num_draws, generator=generator).double()
            transition = self.transition or fastest(evaluator, x)
            return _Run(self, transition, flow, evaluator, generator, on_rows).go(x, on_stage)


@dataclass
class _Run:
    """One run: how far it is and how long its steps are."""

    settings: Annealing
    transition: Transition
    flow: Flow
    evaluator: Evaluator
    generator: Generator | None
    on_rows: Callable[[Tensor, Tensor], None] | None
    exponent: float = 0.0
    log_weights: Tensor = field(default_factory=lambda: torch.zeros(()))

    def go(self, x: Tensor, on_stage: Callable[[float], None] | None) -> Importance:
        settings = self.settings
        state = ChainState.at(self._evaluate, x, self._coefficients(x, 0.0))
        if not bool((state.terms[1] > -math.inf).any()):
            nans = f" ({self.evaluator.nans:,} were NaN)" if self.evaluator.nans else ""
            raise DataError(
                f"the target gave none of {len(x)} starting points a finite density{nans}; start where it "
                f"has mass."
            )
        self.log_weights = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        size = x.new_tensor(self.transition.first)
        for _ in range(settings.stages):
            state = self._raise(state)
            if settings.moves == 0:
                return Importance(state.x, self.log_weights)
            scale_tril = spread(state.x, self.log_weights)
            for _ in range(settings.moves):
                state, accepted = self.transition.step(
                    self._evaluate, state, size, scale_tril, self.generator
                )
                size = size * (accepted.mean() - self.transition.goal).exp()
            if on_stage is not None:
                on_stage(self.exponent / settings.end)
            if self.exponent >= settings.end:
                return Importance(state.x, self.log_weights)
        raise DataError(
            f"after {settings.stages} stages the draws had come {self.exponent / settings.end:.2g} of the "
            f"way to the target; start nearer to its mass, or at its scale."
        )

    def _raise(self, state: ChainState) -> ChainState:
        """The next exponent, with weights for it; resampled where few draws carry them."""
        settings = self.settings
        log_q, log_p = state.terms
        ratio = torch.where(log_p == -math.inf, -math.inf, log_p - log_q)
        left = settings.end - self.exponent
        step = _largest_step(ratio, self.log_weights, settings.keep, left)
        self.exponent = settings.end if step == left else self.exponent + step
        self.log_weights = self.log_weights + step * ratio
        state = state.weighted(self._coefficients(state.x, self.exponent))
        if _effective(self.log_weights) < settings.resample:
            index = systematic(self.log_weights, len(state), self.generator)
            mean = self.log_weights.logsumexp(0) - math.log(len(state))
            self.log_weights = mean.expand(len(state)).clone()
            state = state.take(index)
        return state

    def _coefficients(self, like: Tensor, exponent: float) -> Tensor:
        return like.new_tensor([1 - exponent, exponent])

    def _evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gradients = self.transition.gradients and self.settings.moves > 0
        log_p, grad_p = evaluated(self.evaluator, x, gradients)
        if self.on_rows is not None:
            self.on_rows(x, log_p)
        log_q, grad_q = of_flow(self.flow, x, gradients)
        return torch.stack([log_q, log_p]), torch.stack([grad_q, grad_p])


def of_flow(flow: Flow, x: Tensor, gradients: bool) -> tuple[Tensor, Tensor]:
    """The flow's log-density at float64 rows, and its gradient or zeros, computed in the flow's own dtype."""
    dtype = next((p.dtype for p in flow.parameters()), x.dtype)
    if not gradients:
        return flow.log_prob(x.to(dtype)).to(x), torch.zeros_like(x)
    with torch.enable_grad():
        leaf = x.detach().to(dtype).requires_grad_()
        log_q = flow.log_prob(leaf)
        (grad,) = torch.autograd.grad(log_q.sum(), leaf)
    return log_q.detach().to(x), grad.to(x)


def evaluated(evaluator: Evaluator, x: Tensor, gradients: bool) -> tuple[Tensor, Tensor]:
    """The target's log-density, and its gradient or zeros."""
    return evaluator.value_and_grad(x) if gradients else (evaluator(x), torch.zeros_like(x))


def _effective(log_weights: Tensor) -> float:
    """The effective fraction of weighted draws."""
    share = log_weights.softmax(0)
    return float(1 / (len(share) * share.square().sum()))


def _conditional(ratio: Tensor, log_weights: Tensor, step: float) -> float:
    """The conditional effective fraction after a raise by ``step``."""
    share, scaled = log_weights.softmax(0).log(), step * ratio
    return float((2 * (share + scaled).logsumexp(0) - (share + 2 * scaled).logsumexp(0)).exp())


def _largest_step(ratio: Tensor, log_weights: Tensor, keep: float, left: float) -> float:
    """How far the exponent may go, by bisection."""
    # draws outside the target's support are lost at the first step, however small
    goal = keep * _conditional(torch.where(ratio == -math.inf, ratio, 0.0), log_weights, 1.0)
    if _conditional(ratio, log_weights, left) >= goal:
        return left
    low, high = 0.0, left
    while high - low > max(1e-3 * low, 1e-14):
        middle = 0.5 * (low + high) if low > 0 else 0.1 * high
        low, high = (middle, high) if _conditional(ratio, log_weights, middle) >= goal else (low, middle)
    return high if low == 0 else low


def spread(x: Tensor, log_weights: Tensor) -> Tensor:
    """The Cholesky factor of weighted rows' covariance, shrunk toward its diagonal where rows are few."""
    share = log_weights.softmax(0).unsqueeze(-1)
    mean = (share * x).sum(0)
    centered = x - mean
    covariance = (share * centered).T @ centered
    effective = float(1 / share.square().sum())
    diagonal, size = covariance.diagonal(), mean.abs().clamp_min(1.0)
    # rows that coincide say nothing of the spread: a thousandth of their size lets them part
    diagonal = torch.where(diagonal > (1e-12 * size).square(), diagonal, (1e-3 * size).square())
    keep = 1 - (x.shape[-1] / (x.shape[-1] + effective)) ** 2
    covariance = keep * covariance + torch.diag((1 - keep + 1e-6) * diagonal)
    return torch.linalg.cholesky(covariance)
