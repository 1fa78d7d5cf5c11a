"""Maximum likelihood on draws of a target that are made while the flow learns."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from diffeo.contracts import State
from diffeo.errors import ConfigError, DataError
from diffeo.flow import Flow
from diffeo.functional.seeding import generator
from diffeo.inference.annealing import of_flow
from diffeo.inference.counting import CountsEvaluations
from diffeo.inference.importance import Importance
from diffeo.inference.sources import Source
from diffeo.objectives.base import Batch
from diffeo.targets import Evaluator


class ReplayLikelihood(CountsEvaluations):
    """Forward KL to a target, on draws that a source makes as the flow learns.

    Every ``every`` steps the source gives new draws; they join a buffer, from which each step takes rows as
    often as their weights say. Forward KL covers all modes that the draws ever found, where reverse KL
    keeps to one, and no gradient passes through the flow's inverse or the target.

    With ``Annealed(target, annealing=Annealing(end=2))`` for a source this is FAB, flow annealed importance
    sampling bootstrap with its prioritized buffer: the draws are of ``p^2 / q``, whose weights need
    correcting when q has changed. With ``Population`` it is adaptive Monte Carlo, what ``fit_target`` does.

    Formula: ``-mean_i r_i log q(x_i)``, i drawn by weight, ``r = min((q_then / q_now)^(end - 1), clip)``.

    Source and buffer are kept in checkpoints: a resumed run goes on with the same chains.

    Cost: a step of maximum likelihood; for every ``every`` of them one call of the source.

    Args:
        source: of the draws.
        every: steps between draws.
        capacity: rows the buffer holds; the oldest leave first.
        start: draws to begin with; by default the source's first.
        clip: the largest correction of a row's weight.

    Raises:
        ConfigError: for sizes below 1.
        DataError: when a source has no draw of positive density.

    References: Midgley, Stimper, Simm, Schoelkopf and Hernandez-Lobato 2023, "Flow annealed importance
    sampling bootstrap", sections 3.2-3.3; Cappe, Douc, Guillin, Marin and Robert 2008, "Adaptive importance
    sampling in general mixture classes"; Ionides 2008 for cutting off weights.

    Example:
        >>> import torch, diffeo
        >>> from diffeo.inference import Annealed
        >>> from diffeo.targets import FromNumPy
        >>> objective = ReplayLikelihood(Annealed(FromNumPy(lambda x: -0.5 * (x**2).sum(-1)), num_draws=64))
        >>> flow = diffeo.presets.MAF(features=2).build()
        >>> objective(flow, Batch(torch.zeros(32, 2), None, None, torch.arange(32))).shape
        torch.Size([])
    """

    def __init__(
        self,
        source: Source,
        *,
        every: int = 1,
        capacity: int = 8192,
        start: Importance | None = None,
        clip: float = 10.0,
    ):
        if min(every, capacity) < 1:
            raise ConfigError(f"every and capacity must be at least 1, not {every} and {capacity}.")
        self.source, self.every, self.capacity, self.clip = source, every, capacity, clip
        self._start = start
        self._calls = self._next = 0
        self._x = torch.empty(0)
        self._log_weight = torch.full((capacity,), -math.inf, dtype=torch.float64)
        self._log_q = torch.zeros(capacity, dtype=torch.float64)

    @property
    def evaluator(self) -> Evaluator | None:
        return self.source.evaluator

    def __repr__(self) -> str:
        sizes = f"every={self.every}, capacity={self.capacity}, clip={self.clip}"
        return f"ReplayLikelihood({self.source!r}, {sizes})"

    def state(self) -> State:
        source, found = self.source.state()
        tensors = {"x": self._x, "log_weight": self._log_weight, "log_q": self._log_q}
        tensors |= {f"source.{name}": tensor for name, tensor in found.items()}
        return {"calls": self._calls, "next": self._next, "source": source}, tensors

    def restore(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self._calls, self._next = state["calls"], state["next"]
        self._x, self._log_weight, self._log_q = (tensors[name] for name in ("x", "log_weight", "log_q"))
        own = {name.removeprefix("source."): t for name, t in tensors.items() if name.startswith("source.")}
        self.source.restore(state["source"], own)

    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        """The loss over as many rows of the buffer as the batch has; the batch's own are not looked at."""
        if flow.training or not len(self._x):
            self._refill(flow)
        share = self._log_weight.softmax(0)
        draws = None if flow.training else generator(0, share.device)
        index = torch.multinomial(share, len(batch.rows), replacement=True, generator=draws)
        log_q = flow(self._x[index].to(batch.x))
        if self.source.end == 1:
            return -log_q.mean()
        drift = (self._log_q[index] - log_q.detach()) * (self.source.end - 1)
        return -(drift.exp().clamp_max(self.clip).to(log_q) * log_q).mean()

    @torch.no_grad()
    def _refill(self, flow: Flow) -> None:
        if self._calls % self.every == 0:
            if self._calls == 0 and self._start is not None:
                self._add(flow, self._start)
            else:
                self._add(flow, self.source.draw(flow))
        self._calls += 1

    def _add(self, flow: Flow, draws: Importance) -> None:
        """Weights of mean one for each call, cut off where one draw would count for sqrt(rows) of them."""
        if draws.log_z == -math.inf:
            raise DataError("none of the draws to learn from has a positive density under the target.")
        log_weight = (draws.log_weights - draws.log_z).clamp_max(0.5 * math.log(len(draws)))
        x, log_weight = draws.x[-self.capacity :], log_weight[-self.capacity :]
        if not len(self._x):
            self._x = x.new_zeros(self.capacity, *x.shape[1:])
        index = (self._next + torch.arange(len(x))) % self.capacity
        self._next += len(x)
        self._x[index], self._log_weight[index] = x, log_weight
        if self.source.end != 1:
            self._log_q[index] = of_flow(flow, x, gradients=False)[0]
