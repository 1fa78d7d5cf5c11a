"""Which values of a column a condition allows, and what that is to the density of mixed rows."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffeo.bases.cells import LOW, Part
from diffeo.encodings.cell_kinds import FAR, Levels, Numbers

_SLACK = 1e-6
"""How far from a point of a grid, in steps, a number may be and still be that point."""


@dataclass(frozen=True)
class Span:
    """Numbers from ``low`` to ``high``, ends included unless they are open.

    Example:
        >>> Span(0.0, 10.0).meet(Span(5.0, 20.0, open_low=True))
        Span(low=5.0, high=10.0, open_low=True, open_high=False)
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def meet(self, other: Span) -> Span:
        """What lies in both."""
        low, open_low = max((self.low, self.open_low), (other.low, other.open_low))
        high, closed_high = min((self.high, not self.open_high), (other.high, not other.open_high))
        return Span(low, high, open_low, not closed_high)

    @property
    def empty(self) -> bool:
        return self.low > self.high or (self.low == self.high and (self.open_low or self.open_high))

    def holds(self, x: float) -> bool:
        """Whether a number lies in it."""
        return not self.meet(Span(x, x)).empty


class Region(ABC):
    """Values of one column, with or without what is missing.

    Args:
        missing: whether a gap is among them.
    """

    missing: bool

    @abstractmethod
    def meet(self, other: Region) -> Region:
        """What lies in both."""

    @abstractmethod
    def holds(self, value: float) -> bool:
        """Whether a value, NaN for missing, is among them."""

    @abstractmethod
    def part(self) -> Part | None:
        """What it is to the density; None for nothing that has a mass."""

    def drawn(self, codes: Tensor, generator: torch.Generator) -> Tensor:
        """Codes ``(rows, 4)`` drawn within ``part()``, with what a cell of many values leaves open."""
        return codes

    def nearest(self, x: np.ndarray) -> np.ndarray:
        """Values drawn within, off by round-off at most, within to the bit."""
        return x


@dataclass(frozen=True)
class SomeLevels(Region):
    """Some levels of a category, by number."""

    kind: Levels
    levels: frozenset[int]
    missing: bool = False

    def meet(self, other: Region) -> SomeLevels:
        assert isinstance(other, SomeLevels)
        return SomeLevels(self.kind, self.levels & other.levels, self.missing and other.missing)

    def holds(self, value: float) -> bool:
        return self.missing if value != value else value in self.levels

    def part(self) -> Part | None:
        shares = torch.zeros(self.kind.cells, dtype=torch.float64)
        for level in self.levels:
            shares[min(level, self.kind.kept)] += (
                self._pooled[level - self.kind.kept] if level >= self.kind.kept else 1.0
            )
        if self.kind.missing is not None and self.missing:
            shares[self.kind.missing] = 1.0
        return Part(shares.log()) if bool((shares > 0).any()) else None

    @property
    def _pooled(self) -> Tensor:
        shares = torch.tensor(self.kind.shares, dtype=torch.float64)
        return shares / shares.sum()

    def drawn(self, codes: Tensor, generator: torch.Generator) -> Tensor:
        pooled = [level for level in sorted(self.levels) if level >= self.kind.kept]
        if not 0 < len(pooled) < len(self.kind.shares):
            return codes
        index = torch.tensor(pooled) - self.kind.kept
        which = torch.multinomial(self._pooled[index], len(codes), True, generator=generator)
        levels = self.kind.encode((index + self.kind.kept).double())[0].to(codes)
        codes[:, LOW] = levels[which, LOW].to(codes)
        return codes


@dataclass(frozen=True)
class SomeNumbers(Region):
    """Numbers of some spans."""

    kind: Numbers
    spans: tuple[Span, ...]
    missing: bool = False

    def meet(self, other: Region) -> SomeNumbers:
        assert isinstance(other, SomeNumbers)
        both = (a.meet(b) for a in self.spans for b in other.spans)
        return SomeNumbers(self.kind, tuple(s for s in both if not s.empty), self.missing and other.missing)

    def holds(self, value: float) -> bool:
        return self.missing if value != value else any(span.holds(value) for span in self.spans)

    def part(self) -> Part | None:
        kind, pieces = self.kind, self._pieces()
        allowed = torch.zeros(kind.cells, dtype=torch.bool)
        for i, atom in enumerate(kind.atoms):
            allowed[i] = any(span.holds(atom) for span in self.spans)
        allowed[kind.rest] = len(pieces) > 0
        if kind.missing is not None:
            allowed[kind.missing] = self.missing
        if not bool(allowed.any()):
            return None
        ends = torch.tensor(pieces, dtype=torch.float64) if pieces else None
        return Part(torch.where(allowed, 0.0, -math.inf), ends)

    def _pieces(self) -> list[tuple[float, float]]:
        """The spans as places, rising, none of them overlapping another."""
        steps = [self._steps(span) for span in self.spans] if self.kind.step else None
        if steps is not None:
            joined = _joined([s for s in steps if s[0] <= s[1]], 1.0)
            pieces = [(self._edge(a, -0.5), self._edge(b, 0.5)) for a, b in joined]
        else:
            joined = _joined([(s.low, s.high) for s in self.spans if s.low < s.high], 0.0)
            pieces = [(self._place(a), self._place(b)) for a, b in joined]
        return [(low, high) for low, high in pieces if low < high]

    def _steps(self, span: Span) -> tuple[float, float]:
        """The first and last points of the grid in a span, in steps from its offset."""
        kind = self.kind
        span = span.meet(Span(kind.low, kind.high))
        low, high = ((end - kind.offset) / kind.step for end in (span.low, span.high))
        first = math.ceil(low - _SLACK) if math.isfinite(low) else low
        last = math.floor(high + _SLACK) if math.isfinite(high) else high
        first += span.open_low and abs(first - low) <= _SLACK
        last -= span.open_high and abs(last - high) <= _SLACK
        return first, last

    def _edge(self, step: float, half: float) -> float:
        """The place half a step beside a point of the grid; of its first and last the ends of the line."""
        kind = self.kind
        x = kind.offset + step * kind.step
        if not math.isfinite(step) or (x <= kind.low if half < 0 else x >= kind.high):
            return math.copysign(FAR, half)
        return self._place(x + half * kind.step)

    def _place(self, x: float) -> float:
        kind = self.kind
        low, high = max(kind.low, kind.kind.support[0]), min(kind.high, kind.kind.support[1])
        if x <= low or x >= high:
            return -FAR if x <= low else FAR
        return float(kind.place(torch.tensor([x], dtype=torch.float64))[0].clamp(-FAR, FAR))

    def nearest(self, x: np.ndarray) -> np.ndarray:
        off = ~np.isnan(x)
        for span in self.spans:
            above = x > span.low if span.open_low else x >= span.low
            off &= ~(above & (x < span.high if span.open_high else x <= span.high))
        if not off.any():
            return x
        x = x.copy()
        closest = np.stack([np.clip(x[off], *self._inner(s)) for s in self.spans])
        best = np.abs(closest - x[off]).argmin(0)
        x[off] = closest[best, np.arange(len(best))]
        return x

    def _inner(self, span: Span) -> tuple[float, float]:
        """The least and largest number of a span."""
        if self.kind.step:
            ends = (self.kind.offset + k * self.kind.step for k in self._steps(span))
            first, last = (float(self.kind.nearest(torch.tensor(e, dtype=torch.float64))) for e in ends)
            return first, last
        low = math.nextafter(span.low, math.inf) if span.open_low else span.low
        high = math.nextafter(span.high, -math.inf) if span.open_high else span.high
        return low, high


def _joined(spans: Sequence[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    """Rising spans, those that overlap or are at most ``gap`` apart as one.

    Example:
        >>> _joined([(4, 6), (1, 2), (3, 4)], 1.0)
        [(1, 6)]
    """
    found: list[tuple[float, float]] = []
    for low, high in sorted(spans):
        if found and low <= found[-1][1] + gap:
            found[-1] = found[-1][0], max(found[-1][1], high)
        else:
            found.append((low, high))
    return found
