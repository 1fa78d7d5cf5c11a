"""A second look at a target: which peaks are there, whether or not chains found them in proportion.

Chains that are carried from a broad density to a target share themselves out by the mass that peaks have
*on the way*. A peak f times as narrow as another in D dimensions then holds f^-D of them when the two part,
whatever its mass in the end. An ascent does not ask for mass: it ends on a peak wherever it begins in its
basin. So the points that a survey evaluated are compared with the peaks known so far, and ascents start
where the target is most above them. New peaks are added until none is found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from diffeo.bases import Base
from diffeo.bijections import Standardize
from diffeo.flow import Flow
from diffeo.inference.transitions import standard_normal
from diffeo.targets import Evaluator

ROUNDS = 4
"""Searches, each for what the peaks before it do not explain."""
CLIMB = 60
"""Steps of an ascent along gradients."""
WIDER = 1.2
"""Normals at peaks against the curves that touch them there: weights of a target then have an end."""
HELD = 2**23
"""Numbers that a trail holds at most: 64 MB."""


class Trail:
    """Points at which a target was evaluated, evenly thinned where they are too many to hold.

    Example:
        >>> trail = Trail()
        >>> trail.add(torch.zeros(3, 2), torch.tensor([0.0, -math.inf, 1.0]))
        >>> x, log_prob = trail.points()
        >>> x.shape, log_prob.tolist()
        (torch.Size([2, 2]), [0.0, 1.0])
    """

    def __init__(self) -> None:
        self._x: list[Tensor] = []
        self._log_prob: list[Tensor] = []
        self._held, self._stride = 0, 1

    def add(self, x: Tensor, log_prob: Tensor) -> None:
        """Rows and their log-densities; those of density zero are left out."""
        keep = log_prob.isfinite().nonzero()[:: self._stride, 0]
        self._x.append(x[keep])
        self._log_prob.append(log_prob[keep])
        self._held += len(keep) * x.shape[-1]
        if self._held > HELD:
            x, log_prob = self.points()
            self._x, self._log_prob = [x[::2].clone()], [log_prob[::2].clone()]
            self._held, self._stride = self._x[0].numel(), 2 * self._stride

    def points(self) -> tuple[Tensor, Tensor]:
        """All that is held, ``(rows, D)`` and ``(rows,)``."""
        if not self._x:
            return torch.empty(0, 0), torch.empty(0)
        return torch.cat(self._x), torch.cat(self._log_prob)


@dataclass(frozen=True)
class Peaks:
    """Peaks of a density, each as the normal curve that touches it there.

    Args:
        center: ``(K, D)``.
        log_prob: the density's at the centers, ``(K,)``.
        scale_tril: of each, ``(K, D, D)``: how wide it is.
    """

    center: Tensor
    log_prob: Tensor
    scale_tril: Tensor

    def __len__(self) -> int:
        return len(self.center)

    @classmethod
    def none(cls, features: int) -> Peaks:
        return cls(*(torch.empty(0, *s, dtype=torch.float64) for s in ((features,), (), (features,) * 2)))

    def __add__(self, other: Peaks) -> Peaks:
        return Peaks(
            torch.cat([self.center, other.center]),
            torch.cat([self.log_prob, other.log_prob]),
            torch.cat([self.scale_tril, other.scale_tril]),
        )

    @property
    def log_mass(self) -> Tensor:
        """Laplace's approximation of the integral under each, ``(K,)``."""
        log_det = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return self.log_prob + log_det + 0.5 * self.center.shape[-1] * math.log(2 * math.pi)

    def largest(self, count: int) -> Peaks:
        """The ``count`` with the most mass."""
        index = self.log_mass.argsort(descending=True)[:count]
        return Peaks(self.center[index], self.log_prob[index], self.scale_tril[index])

    def sample(self, rows: int, generator: Generator | None = None) -> Tensor:
        """Draws of normals of equal weight at the peaks, a little wider than these: ``(rows, D)``."""
        k = torch.arange(rows) % len(self)
        noise = standard_normal(self.center[k], generator)
        return self.center[k] + WIDER * torch.einsum("rij,rj->ri", self.scale_tril[k], noise)

    def log_density(self, x: Tensor) -> Tensor:
        """Of these normals, ``(rows,)``."""
        count = math.log(len(self)) + self.center.shape[-1] * math.log(WIDER)
        even = Peaks(self.center, self.log_prob - self.log_mass, WIDER * self.scale_tril)
        return even.explain(x) - count

    def explain(self, x: Tensor) -> Tensor:
        """The log-density that the peaks' curves together give rows, ``(rows,)``."""
        best = x.new_full((len(x),), -math.inf)
        for center, log_prob, scale_tril in zip(self.center, self.log_prob, self.scale_tril, strict=True):
            away = torch.linalg.solve_triangular(scale_tril, (x - center).T, upper=False)
            best = torch.logaddexp(best, log_prob - 0.5 * away.square().sum(0))
        return best


@dataclass(frozen=True)
class Search:
    """Looks for peaks from the points of a trail.

    Args:
        evaluator: of the target.
        gradients: whether to climb along them; else by random steps.
        climbers: ascents of a round.
        most: peaks that are told.
        generator: of the random numbers.
    """

    evaluator: Evaluator
    gradients: bool
    climbers: int = 256
    most: int = 16
    generator: Generator | None = field(default=None, repr=False)

    def run(self, trail: Trail, scale_tril: Tensor) -> Peaks:
        """The peaks with the most mass; of many that overlap, some.

        Args:
            trail: where ascents may begin.
            scale_tril: the units in which they move, lower triangle ``(D, D)``.
        """
        x, log_prob = trail.points()
        found = Peaks.none(len(scale_tril))
        for _ in range(ROUNDS if len(x) else 0):
            start = self._surprising(x, log_prob - found.explain(x))
            ends, heights = self.climb(x[start], log_prob[start], scale_tril)
            new = self.told_apart(ends, heights, found, scale_tril)
            found = (found + new).largest(self.most)
            if not len(new) or len(found) == self.most:
                break
        return found

    def _surprising(self, x: Tensor, excess: Tensor) -> Tensor:
        """Rows most above what is known, each the first of a random group, so that they differ."""
        groups = min(self.climbers, len(x))
        order = torch.randperm(len(x), generator=self.generator)[: len(x) // groups * groups].view(groups, -1)
        if (excess == math.inf).all():
            return order[:, 0]
        return order[torch.arange(groups), excess[order].argmax(1)]

    def climb(self, x: Tensor, log_prob: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Each row uphill for a while: where it came to, and how high that is."""
        size = x.new_full((len(x), 1), 0.1)
        steps = CLIMB if self.gradients else CLIMB + 20 * x.shape[-1]
        grad = self.evaluator.value_and_grad(x)[1] @ unit if self.gradients else torch.zeros_like(x)
        for _ in range(steps):
            if self.gradients:
                move = size * grad / grad.norm(dim=-1, keepdim=True).clamp_min(1e-300)
                there = x + move @ unit.T
                value, slope = self.evaluator.value_and_grad(there)
                slope = slope @ unit
            else:
                there = x + (size * standard_normal(x, self.generator)) @ unit.T
                value, slope = self.evaluator(there), grad
            up = (value > log_prob).unsqueeze(-1)
            x, log_prob = torch.where(up, there, x), torch.where(up[:, 0], value, log_prob)
            grad = torch.where(up, slope, grad)
            size = size * torch.where(up, 2.0, 0.5 if self.gradients else 0.8)
        return x, log_prob

    def told_apart(self, x: Tensor, log_prob: Tensor, known: Peaks, unit: Tensor) -> Peaks:
        """The ends of ascents as peaks: from the highest on, each that those before it do not explain."""
        new = Peaks.none(x.shape[-1])
        known_here = known.explain(x)
        while len(new) < self.most:
            apart = log_prob - known_here > 1.0
            if not apart.any():
                break
            best = int(torch.where(apart, log_prob, -math.inf).argmax())
            peak = self.measured(x[best], log_prob[best], unit)
            known_here = torch.logaddexp(known_here, peak.explain(x))
            known_here[best] = math.inf
            new = new + peak
        return new

    def measured(self, x: Tensor, log_prob: Tensor, unit: Tensor) -> Peaks:
        """One peak with its widths: along each axis where the density falls by half a nat, then its tilt."""
        axes = unit.T  # rows: a unit along each
        low, high = x.new_full((len(x),), 1e-9), x.new_full((len(x),), 3.0)
        for _ in range(12):
            middle = (low * high).sqrt()
            both = torch.cat([x + middle[:, None] * axes, x - middle[:, None] * axes])
            fall = log_prob - self.evaluator(both).view(2, -1).mean(0)
            low, high = torch.where(fall < 0.5, middle, low), torch.where(fall < 0.5, high, middle)
        width = (low * high).sqrt()
        scaled = width[:, None] * axes
        precision = torch.eye(len(x), dtype=x.dtype)
        if self.gradients:
            both = torch.cat([x + 0.5 * scaled, x - 0.5 * scaled])
            slopes = (self.evaluator.value_and_grad(both)[1] @ scaled.T).view(2, len(x), len(x))
            precision = 0.5 * ((slopes[1] - slopes[0]) + (slopes[1] - slopes[0]).T)
        values, vectors = torch.linalg.eigh(precision)
        spread = vectors * values.clamp(1e-2, 1e4).rsqrt()
        covariance = scaled.T @ spread @ spread.T @ scaled
        return Peaks(x[None], log_prob[None], torch.linalg.cholesky(covariance)[None])


class Beside(Base):
    """Half of a flow's density, half the peaks' normals."""

    def __init__(self, flow: Flow, peaks: Peaks):
        super().__init__(flow.event_shape)
        self.flow, self.peaks = flow, peaks

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        near = self.peaks.log_density(z)
        return torch.logaddexp(self.flow.log_prob(z).to(near), near) - math.log(2)

    def sample(
        self,
        batch_shape: Sequence[int] = (),
        context: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> Tensor:
        x = self.flow.sample(batch_shape, generator=generator).double()
        x[::2] = self.peaks.sample(len(x[::2]), generator).to(x)
        return x


def beside(flow: Flow, peaks: Peaks) -> Flow:
    """A start that has the peaks in it, for another survey."""
    return Flow(Standardize(flow.event_shape), Beside(flow, peaks)).double()


def dark_mass(
    peaks: Peaks, target: Callable[[Tensor], Tensor], flow: Callable[[Tensor], Tensor], rows: int
) -> float:
    """Log of the target's mass around peaks where it exceeds the flow, by importance sampling from them.

    Args:
        peaks: at least one.
        target: log-density of rows, unnormalized.
        flow: log-density above which the target counts.
        rows: draws.
    """
    x = peaks.sample(rows)
    there = target(x)
    weights = torch.where(there > flow(x), there - peaks.log_density(x), -math.inf)
    return float(weights.logsumexp(0)) - math.log(rows)
