"""Draws for a flow that learns a target: where they come from as it learns.

A flow learns a target from chains, not from its own weighted draws. Annealed chains find the mass. Then they
go on walking, each with its own steps and with jumps that the flow proposes, and the flow learns their
points by maximum likelihood. On many wells in 32 dimensions, equal CPU time and one run each, draws of the
flow annealed anew each time (AIS, FAB) left an effective 0.1%, maximum likelihood on 16,384 fixed draws of
the survey 27%, and chains 69 to 75%. Forward KL also keeps training in the kernels, where gradients of
inverses are not. FAB and adaptive importance sampling are the same objective, ``ReplayLikelihood``, with
another ``Source``.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from diffeo.contracts import State
from diffeo.errors import ConfigError
from diffeo.flow import Flow, evaluating
from diffeo.inference.annealing import Annealing, evaluated, of_flow, spread
from diffeo.inference.counting import CountsEvaluations
from diffeo.inference.importance import Importance, as_evaluator
from diffeo.inference.transitions import ChainState, Transition, fastest
from diffeo.targets import Evaluator, Target

HIGHEST = 64
"""Rows of highest density that a population remembers."""


class Source(CountsEvaluations):
    """Gives weighted draws of a target p, with the help of the flow q that learns from them.

    One that remembers something from draw to draw gives it as ``state()`` and takes it by ``restore()``.
    """

    end: float = 1.0
    """They are draws of ``q^(1 - end) p^end``."""

    @property
    def evaluator(self) -> Evaluator | None:
        return None

    @abstractmethod
    def draw(self, flow: Flow) -> Importance:
        """New draws, from torch's default generator."""


class Annealed(Source):
    """The flow's own draws, annealed to the target anew each time.

    With ``Annealing(end=2)`` these are FAB's; with the default, ``Annealing(moves=0, keep=0.3)``, they are
    the reweighted, tempered draws of adaptive importance sampling, at one evaluation each and without a
    gradient.

    Args:
        target: unnormalized.
        num_draws: each time.
        annealing: how they get to the target.

    Example:
        >>> import diffeo
        >>> from diffeo.targets import FromNumPy
        >>> source = Annealed(FromNumPy(lambda x: -0.5 * (x**2).sum(-1)), num_draws=100)
        >>> source.draw(diffeo.presets.MAF(features=2).build()).x.shape
        torch.Size([100, 2])
    """

    def __init__(self, target: Target, num_draws: int = 1024, annealing: Annealing | None = None):
        if num_draws < 2:
            raise ConfigError(f"num_draws must be at least 2, not {num_draws}.")
        self.target = as_evaluator(target)
        self.num_draws = num_draws
        self.annealing = Annealing(moves=0, keep=0.3) if annealing is None else annealing
        self.end = self.annealing.end

    @property
    def evaluator(self) -> Evaluator:
        return self.target

    def draw(self, flow: Flow) -> Importance:
        return self.annealing.run(flow, self.target, self.num_draws)

    def __repr__(self) -> str:
        return f"Annealed(num_draws={self.num_draws}, annealing={self.annealing})"


class Population(Source):
    """Chains that walk the target: each takes a local transition, then a jump that the flow proposes.

    Transitions explore a mode and cannot leave it; jumps to draws of the flow, accepted by Metropolis'
    rule, move mass between modes in proportion to their weights as soon as the flow knows them. Draws have
    equal weights, so the flow learns well long before its own draws would be usable as importance samples.

    Cost of a draw: a transition and one evaluation for each of ``moving`` chains, and two passes of the flow.

    Args:
        target: unnormalized.
        x: where the chains start, ``(chains, D)``: draws of the target, such as annealing gives.
        moving: chains that move each time; by default all of them.
        transition: of the local steps; by default Hamiltonian where the target brings gradients, else a
            random walk.

    References: Gabrie, Rotskoff and Vanden-Eijnden 2022, "Adaptive Monte Carlo augmented with normalizing
    flows", algorithm 1.

    Example:
        >>> import torch, diffeo
        >>> from diffeo.targets import FromTorch
        >>> chains = Population(FromTorch(lambda x: -0.5 * x.square().sum(-1)), torch.zeros(100, 2))
        >>> draws = chains.draw(diffeo.presets.MAF(features=2).build())  # untrained: the target itself
        >>> draws.x.shape, chains.jumped
        (torch.Size([100, 2]), 1.0)
    """

    def __init__(
        self, target: Target, x: Tensor, moving: int | None = None, transition: Transition | None = None
    ):
        self.target = as_evaluator(target)
        x = x.detach().double().clone()  # it is changed in place
        self.transition = transition or fastest(self.target, x)
        self.highest = x[:0], x.new_empty(0)
        """The rows of highest density among all that were evaluated, and it: also what chains passed by."""
        self.points = ChainState.at(self._evaluate, x)
        self.moving = len(x) if moving is None else min(moving, len(x))
        if self.moving < 1:
            raise ConfigError(f"moving must be at least 1, not {moving}.")
        self.size = x.new_tensor(self.transition.first)
        self.jumped = float("nan")
        """The part of the chains that took the flow's proposals, over the last draws."""
        self._turn = 0
        # measured once: a spread that follows the chains it moves draws them together
        self._scale_tril = spread(x, x.new_zeros(len(x)))

    @property
    def evaluator(self) -> Evaluator:
        return self.target

    def __repr__(self) -> str:
        return f"Population(chains={len(self.points)}, moving={self.moving}, transition={self.transition})"

    def state(self) -> State:
        known, _ = super().state()
        tensors = {
            "x": self.points.x,
            "terms": self.points.terms,
            "grads": self.points.grads,
            "size": self.size,
            "scale_tril": self._scale_tril,
            "highest": torch.cat([self.highest[0], self.highest[1].unsqueeze(-1)], -1),
        }
        return {**known, "turn": self._turn, "jumped": self.jumped}, tensors

    def restore(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        super().restore(state, tensors)
        self._turn, self.jumped = state["turn"], state["jumped"]
        self.size, self._scale_tril = tensors["size"], tensors["scale_tril"]
        highest = tensors["highest"]
        self.highest = highest[:, :-1], highest[:, -1]
        x, terms, grads = (tensors[name] for name in ("x", "terms", "grads"))
        self.points = ChainState(x, terms, grads, self.points.coefficients)

    @torch.no_grad()
    def draw(self, flow: Flow) -> Importance:
        chains = len(self.points)
        index = torch.arange(self._turn * self.moving, (self._turn + 1) * self.moving) % chains
        self._turn += 1
        moved, accepted = self.transition.step(
            self._evaluate, self.points.take(index), self.size, self._scale_tril
        )
        # ever smaller changes: a step size that follows its own chains would not leave the target alone
        self.size = self.size * ((accepted.mean() - self.transition.goal) / self._turn**0.5).exp()
        moved = self._jump(flow, moved)
        self.points.x[index], self.points.terms[:, index] = moved.x, moved.terms
        self.points.grads[:, index] = moved.grads
        return Importance(moved.x, moved.x.new_zeros(len(index)))

    def _jump(self, flow: Flow, state: ChainState) -> ChainState:
        with evaluating(flow):
            proposed = ChainState.at(self._evaluate, flow.sample(len(state)).double())
            there, here = (p.log_prob - of_flow(flow, p.x, False)[0] for p in (proposed, state))
        accept = torch.rand_like(there).log() < there - here  # NaN, from a point of no mass under both, stays
        share = float(accept.double().mean())
        self.jumped = share if self._turn == 1 else self.jumped + 0.1 * (share - self.jumped)
        return state.where(accept, proposed)

    def _evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_prob, grad = evaluated(self.target, x, self.transition.gradients)
        rows, known = torch.cat([self.highest[0], x]), torch.cat([self.highest[1], log_prob])
        best = known.topk(min(HIGHEST, len(known))).indices
        self.highest = rows[best], known[best]
        return log_prob.unsqueeze(0), grad.unsqueeze(0)
