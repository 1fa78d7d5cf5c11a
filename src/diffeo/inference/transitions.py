"""Transitions that leave a density unchanged: one step of a Markov chain for every row at once.

Chains live in float64 whatever the flow's dtype: a log-density of 10^6 nats in float32 has steps of 0.06.

The Hamiltonian steps are our own. Samplers of libraries evaluate one chain's gradient at a time (nutpie,
Stan) or want JAX; here hundreds of chains are one batch for flow and target. The diagnostics (R-hat, ESS,
Pareto k) are ArviZ'.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from diffeo.errors import ConfigError
from diffeo.targets import Evaluator

Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Rows ``(rows, D)`` to the K terms of their log-density, ``(K, rows)``, and these terms' gradients, ``(K,
rows, D)``."""


@dataclass(frozen=True)
class ChainState:
    """Rows, and the terms of a log-density there: ``log p(x) = sum_k c_k t_k(x)``.

    Keeping the terms apart lets the coefficients change, from one temperature to the next, without
    another evaluation.

    Args:
        x: ``(rows, D)``.
        terms: ``(K, rows)``; -inf where a term allows no point.
        grads: ``(K, rows, D)``; zeros where a transition needs none.
        coefficients: ``(K,)``.
    """

    x: Tensor
    terms: Tensor
    grads: Tensor
    coefficients: Tensor

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def at(cls, evaluate: Evaluate, x: Tensor, coefficients: Tensor | None = None) -> ChainState:
        """``x``, evaluated; all coefficients 1 unless given."""
        terms, grads = evaluate(x)
        return cls(x, terms, grads, terms.new_ones(len(terms)) if coefficients is None else coefficients)

    @property
    def log_prob(self) -> Tensor:
        """``(rows,)``; -inf where any term that counts is."""
        used = self.coefficients.unsqueeze(-1) != 0
        outside = (used & (self.terms == -math.inf)).any(0)
        terms = torch.where(used & ~outside, self.terms, 0.0)
        return torch.where(outside, -math.inf, self.coefficients @ terms)

    @property
    def grad(self) -> Tensor:
        """``(rows, D)``."""
        used = self.coefficients != 0  # what does not count may be NaN
        return torch.einsum("k,krd->rd", self.coefficients[used], self.grads[used])

    def weighted(self, coefficients: Tensor) -> ChainState:
        """The same points under other coefficients."""
        return ChainState(self.x, self.terms, self.grads, coefficients)

    def where(self, accept: Tensor, other: ChainState) -> ChainState:
        """The rows of ``other`` where ``accept`` holds, else these."""
        wide = accept.unsqueeze(-1)
        return ChainState(
            torch.where(wide, other.x, self.x),
            torch.where(accept, other.terms, self.terms),
            torch.where(wide, other.grads, self.grads),
            self.coefficients,
        )

    def take(self, index: Tensor) -> ChainState:
        """The rows at ``index``."""
        return ChainState(self.x[index], self.terms[:, index], self.grads[:, index], self.coefficients)


@dataclass(frozen=True)
class Transition(ABC):
    """One move of a chain, in units in which the density is about a standard normal.

    ``scale_tril`` is the lower triangle L that takes these units to x: moves are made in L^-1 x.

    Args:
        steps: what a move consists of, at least 1.
    """

    gradients: ClassVar[bool]
    """Whether the evaluation must bring gradients."""
    goal: ClassVar[float]
    """The mean probability of acceptance at which the chain is about fastest."""
    first: ClassVar[float]
    """A step size to begin with."""

    steps: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"{type(self).__name__}.steps must be at least 1, not {self.steps}.")

    @abstractmethod
    def step(
        self,
        evaluate: Evaluate,
        state: ChainState,
        size: Tensor,
        scale_tril: Tensor,
        generator: Generator | None = None,
    ) -> tuple[ChainState, Tensor]:
        """The next state, and each row's probability of acceptance, ``(rows,)``.

        Args:
            evaluate: the density.
            state: where the rows are.
            size: step size, a scalar or ``(rows, 1)``.
            scale_tril: lower triangle, ``(D, D)``.
            generator: of the random numbers.
        """


def standard_normal(like: Tensor, generator: Generator | None) -> Tensor:
    """Independent numbers, of the shape, dtype and device of ``like``."""
    return torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)


def accept_or_stay(
    state: ChainState, new: ChainState, log_ratio: Tensor, generator: Generator | None
) -> tuple[ChainState, Tensor]:
    """Metropolis' rule for each row: where it is next, and with what probability it took the new point."""
    # a row that comes from outside the support takes any step into it; NaN is never accepted
    log_ratio = torch.where(state.log_prob == -math.inf, math.inf, log_ratio)
    possible = (new.log_prob > -math.inf) & ~log_ratio.isnan()
    probability = torch.where(possible, log_ratio.clamp_max(0.0).exp(), 0.0)
    draw = torch.rand(
        probability.shape, dtype=probability.dtype, device=probability.device, generator=generator
    )
    return state.where(draw < probability, new), probability


@dataclass(frozen=True)
class Hamiltonian(Transition):
    """Hamiltonian Monte Carlo: several leapfrog steps along the gradient, then accept or stay.

    Formula: with momentum p ~ N(0, I) and ``H = -log p(x) + |p|^2 / 2``, accept with probability
    ``min(1, exp(H_old - H_new))``. The number of leapfrog steps is drawn anew each time, evenly from 1 to
    ``steps``, the same for all rows: one length alone can be a multiple of a period.

    Cost: as many gradients as leapfrog steps.

    Args:
        steps: the most leapfrog steps of one transition.

    References: Neal 2011, "MCMC using Hamiltonian dynamics", sections 3.2 and 5.2.3; Beskos et al. 2013 for
    the acceptance of 0.651 in high dimension.

    Example:
        >>> import torch
        >>> def normal(x):
        ...     return -0.5 * x.square().sum(-1)[None], -x[None]
        >>> state = ChainState.at(normal, torch.zeros(4, 2))
        >>> moved, probability = Hamiltonian(5).step(normal, state, torch.tensor(0.3), torch.eye(2))
        >>> moved.x.shape, bool((probability > 0.8).all())
        (torch.Size([4, 2]), True)
    """

    gradients = True
    goal = 0.7
    first = 0.2

    steps: int = 10

    def step(
        self,
        evaluate: Evaluate,
        state: ChainState,
        size: Tensor,
        scale_tril: Tensor,
        generator: Generator | None = None,
    ) -> tuple[ChainState, Tensor]:
        p = standard_normal(state.x, generator)
        leaps = int(torch.randint(1, self.steps + 1, (), generator=generator))
        new, momentum = leapfrog(evaluate, state, p, size, leaps, scale_tril)
        kinetic = 0.5 * (p.square().sum(-1) - momentum.square().sum(-1))
        return accept_or_stay(state, new, new.log_prob - state.log_prob + kinetic, generator)


def leapfrog(
    evaluate: Evaluate, state: ChainState, p: Tensor, size: Tensor, leaps: int, scale_tril: Tensor
) -> tuple[ChainState, Tensor]:
    """So many leapfrog steps of each row from momentum ``p``, ``(rows, D)``: the end and its momentum.

    Volume-preserving, and its own inverse with the momentum's sign turned.
    """
    for _ in range(leaps):
        p = p + 0.5 * size * (state.grad @ scale_tril)
        state = ChainState.at(evaluate, state.x + size * (p @ scale_tril.T), state.coefficients)
        p = p + 0.5 * size * (state.grad @ scale_tril)
    return state, p


@dataclass(frozen=True)
class RandomWalk(Transition):
    """Metropolis' random walk: normal steps, each accepted or not. Needs no gradient.

    Cost: one evaluation a step.

    Args:
        steps: of one transition, each accepted or not.

    References: Roberts, Gelman and Gilks 1997 for the acceptance of 0.234.

    Example:
        >>> import torch
        >>> def normal(x):
        ...     return -0.5 * x.square().sum(-1)[None], torch.zeros_like(x)[None]
        >>> state = ChainState.at(normal, torch.zeros(4, 2))
        >>> RandomWalk().step(normal, state, torch.tensor(0.5), torch.eye(2))[0].x.shape
        torch.Size([4, 2])
    """

    gradients = False
    goal = 0.25
    first = 0.5

    steps: int = 5

    def step(
        self,
        evaluate: Evaluate,
        state: ChainState,
        size: Tensor,
        scale_tril: Tensor,
        generator: Generator | None = None,
    ) -> tuple[ChainState, Tensor]:
        total = state.log_prob.new_zeros(len(state))
        for _ in range(self.steps):
            x = state.x + size * (standard_normal(state.x, generator) @ scale_tril.T)
            new = ChainState.at(evaluate, x, state.coefficients)
            state, probability = accept_or_stay(state, new, new.log_prob - state.log_prob, generator)
            total = total + probability
        return state, total / self.steps


def fastest(evaluator: Evaluator, x: Tensor) -> Transition:
    """Hamiltonian transitions for a target that brings gradients at ``x``, a random walk for any other."""
    return Hamiltonian() if evaluator.differentiable(x[:1]) else RandomWalk()
