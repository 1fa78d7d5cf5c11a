"""Fixed points of contractions, with a certificate.

Secants are kept orthonormal row by row, at most 80 of them. A step that does not shrink a row's residual is
undone, and the row takes a plain step, which cannot fail. The kernels do the same with Broyden's update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffeo.functional.convergence import captured, certified

Map = Callable[[Tensor, Tensor | None], Tensor]
"""``g(x, rows)``: the map at points ``(n, D)``; ``rows`` are their numbers in the batch, None for all."""

MEMORY = 80
"""Secants kept for each row at most: enough to end a linear problem of fewer dimensions exactly."""


class FixedPoint(NamedTuple):
    """The result of an iteration: the point, and how well it is known."""

    x: Tensor
    residual: Tensor
    """``|y - g(x) - x|`` for each row; divided by 1 - L it bounds the distance to the fixed point."""
    iterations: int


def default_tolerance(dtype: torch.dtype) -> float:
    """``eps^(2/3)``: some hundred times what rounding allows for contractions of up to 0.98."""
    return torch.finfo(dtype).eps ** (2 / 3)


@torch.no_grad()
def fixed_point(
    g: Map,
    y: Tensor,
    lipschitz: float,
    what: str,
    *,
    tolerance: float | None = None,
    memory: int = MEMORY,
    start: Tensor | None = None,
) -> FixedPoint:
    """Solve ``x = y - g(x)`` for each row, by Anderson acceleration over plain (Picard) iteration.

    The secants of each row are kept orthonormal, so that the step is the multisecant one without normal
    equations. A step that does not shrink a row's residual is undone and the row's secants are forgotten:
    the next step of that row is Picard's, which a contraction cannot fail. Rows that are done leave the
    iteration. A row is done when ``|y - g(x) - x| / (1 - L)``, which bounds its true error, is at most
    ``tolerance (1 + |y|)``, in the Euclidean norm.

    Args:
        g: the contraction.
        y: ``(rows, D)``.
        lipschitz: L < 1, a bound on g's Lipschitz constant.
        what: whose inverse this is, for the message.
        tolerance: relative to ``1 + |y|``; by default ``eps^(2/3)``.
        memory: most secants for each row; 0 is plain Picard iteration.
        start: where to begin; by default ``y - g(y)``.

    Raises:
        NotConverged: when a row with finite y misses the tolerance.

    References: Walker and Ni 2011, "Anderson acceleration for fixed-point iterations"; Behrmann et al. 2019,
    "Invertible residual networks", theorem 1 and algorithm 1.
    """
    tolerance = default_tolerance(y.dtype) if tolerance is None else tolerance
    memory = min(memory, y.shape[1] + 1)
    goal = (1 - lipschitz) * tolerance * (1 + y.norm(dim=1))
    limit = picard_iterations(lipschitz, tolerance)
    x = y - g(y, None) if start is None else start.clone()
    r = y - g(x, None) - x
    size = r.norm(dim=1)
    if captured():
        return _captured(g, y, x, r, goal, limit, what)
    active = (size > goal).nonzero()[:, 0]  # a NaN is not: it stays where it is
    iterations = 2
    if len(active):
        state = _Secants(x[active], r[active], memory)
        while len(active) and iterations < 2 * limit:
            trial = state.propose()
            state.judge(trial, y[active] - g(trial, active) - trial)
            iterations += 1
            done = ~(state.size > goal[active])
            if bool(done.any()):
                x[active[done]], size[active[done]] = state.x[done], state.size[done]
                active = active[~done]
                state.keep(~done)
        x[active], size[active] = state.x, state.size
    certified(x, ~(size > goal).unsqueeze(1), (size / (1 - lipschitz)).unsqueeze(1), iterations, what)
    return FixedPoint(x, size, iterations)


def picard_iterations(lipschitz: float, tolerance: float) -> int:
    """How many plain iterations make an error of the size of y as small as the tolerance, and some more."""
    if lipschitz <= 0:
        return 8
    rate = torch.tensor(lipschitz, dtype=torch.float64).log()
    return 16 + int((torch.tensor(tolerance * (1 - lipschitz), dtype=torch.float64).log() / rate).ceil())


def _captured(g: Map, y: Tensor, x: Tensor, r: Tensor, goal: Tensor, limit: int, what: str) -> FixedPoint:
    """Plain iteration of fixed length, for code that is traced."""
    for _ in range(limit):
        x = x + r
        r = y - g(x, None) - x
    size = r.norm(dim=1)
    x = certified(x, ((size <= goal) | size.isnan()).unsqueeze(1), size.unsqueeze(1), limit, what)
    return FixedPoint(x, size, limit)


class _Secants:
    """The rows under way: place, residual, and orthonormal residual changes with the moves behind them."""

    def __init__(self, x: Tensor, r: Tensor, memory: int):
        self.x, self.r, self.memory = x, r, memory
        self.size = r.norm(dim=1)
        self.changes = x.new_zeros(len(x), memory, x.shape[1])
        self.moves = torch.zeros_like(self.changes)
        self.used = 0

    def propose(self) -> Tensor:
        """Where the secants put the zero of the residual; a Picard step on for what they do not span."""
        k = min(self.used, self.memory)
        if not k:
            return self.x + self.r
        weights = self.changes[:, :k] @ self.r.unsqueeze(2)
        back = self.moves[:, :k] + self.changes[:, :k]
        return self.x + self.r - (weights * back).sum(1)

    def judge(self, trial: Tensor, r: Tensor) -> None:
        """Take the step where it shrank the residual; elsewhere forget the secants."""
        size = r.norm(dim=1)
        better = size < self.size
        if self.memory:
            self._learn(trial - self.x, r - self.r)
            self.changes.mul_(better[:, None, None])
            self.moves.mul_(better[:, None, None])
        self.x = torch.where(better.unsqueeze(1), trial, self.x)
        self.r = torch.where(better.unsqueeze(1), r, self.r)
        self.size = torch.where(better, size, self.size)

    def _learn(self, move: Tensor, change: Tensor) -> None:
        """Gram-Schmidt, twice; linear combinations of secants are secants."""
        k = min(self.used, self.memory)
        before = change.norm(dim=1, keepdim=True)
        for _ in range(2):
            weights = self.changes[:, :k] @ change.unsqueeze(2)
            change = change - (weights * self.changes[:, :k]).sum(1)
            move = move - (weights * self.moves[:, :k]).sum(1)
        length = change.norm(dim=1, keepdim=True)
        new = length > 1e3 * torch.finfo(change.dtype).eps * before  # else it says nothing new
        scale = torch.where(new, 1 / length.clamp_min(torch.finfo(change.dtype).tiny), 0.0)
        slot = self.used % self.memory
        self.changes[:, slot], self.moves[:, slot] = change * scale, move * scale
        self.used += 1

    def keep(self, rows: Tensor) -> None:
        """Drop all other rows."""
        self.x, self.r, self.size = self.x[rows], self.r[rows], self.size[rows]
        self.changes, self.moves = self.changes[rows], self.moves[rows]
