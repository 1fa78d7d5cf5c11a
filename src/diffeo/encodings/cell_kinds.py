"""Kinds of columns of mixed rows: which cells a column has, and how a value becomes one.

A category's levels are cells. Numbers have a cell for each *atom*, a value that repeats, and one for the
*rest*, in which there is a density, or on a grid a mass, on a scale that makes training rows about normal.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffeo.bases.cells import CELL, HIGH, LOW, PLACE
from diffeo.encodings.column_kind import Kind, finite_number
from diffeo.encodings.kinds import kind_from_json
from diffeo.errors import DataError, FormatError

FAR = 1e4
"""A place beyond which a normal has no mass: where the first and last cells of a grid end."""
_COARSE = 1e-2
"""Width on the normal scale from which a grid's cells have masses by their ends; below, width by density."""
_MOST = 2**20
"""Most levels, atoms or knots of a column of a file."""

_PRECISION = {"float16": 2.0**-10, "halffloat": 2.0**-10, "float32": 2.0**-23, "float": 2.0**-23}

Level = str | int | float | bool


@dataclass(frozen=True)
class CellKind(ABC):
    """One column of mixed rows: which cells it has, and how a value becomes one.

    Args:
        name: of the column.
        dtype: what it is stored in, as Arrow or NumPy names it.
        gaps: whether entries may be missing, which then is a cell of its own.
    """

    name: str
    dtype: str
    gaps: bool

    @property
    @abstractmethod
    def cells(self) -> int:
        """How many cells there are."""

    @property
    def rest(self) -> int | None:
        """The cell of a number with a density, if there is one."""
        return None

    @property
    def grid(self) -> bool:
        """Whether the numbers of the rest have masses by their ends."""
        return False

    @property
    def missing(self) -> int | None:
        """The cell of a gap, if there is one: the last."""
        return self.cells - 1 if self.gaps else None

    @property
    @abstractmethod
    def measure(self) -> str:
        """With respect to what it has a likelihood, in words."""

    @abstractmethod
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values ``(*batch,)``, no NaN among them, to codes ``(*batch, 4)`` and log-weights."""

    @abstractmethod
    def decode(self, code: Tensor) -> Tensor:
        """Codes ``(*batch, 4)`` to values; a gap is NaN."""

    def settled(self, code: Tensor) -> Tensor:
        """Drawn codes as their values are encoded."""
        return code

    def within(self, code: Tensor) -> Tensor:
        """Drawn codes ``(rows, 4)``, those beyond the outermost values of the rows moved onto these.

        How far a tail goes beyond all rows is not to be known. So these values have in draws what the law has
        beyond, about one row in as many as there were.
        """
        return code

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """What rebuilds it, but for name, dtype and gaps."""


@dataclass(frozen=True)
class Levels(CellKind):
    """A category: each level a cell, the rare ones one cell together, in which each has its share.

    Args:
        levels: all of them; a value is a number from 0.
        shares: those of the last levels within the cell that they share; none where no levels are pooled.
    """

    levels: tuple[Level, ...]
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.levels) > 0 or len(self.shares) > len(self.levels):
            raise DataError(
                f"column {self.name!r} has {len(self.levels)} levels, {len(self.shares)} of them pooled."
            )

    @property
    def kept(self) -> int:
        """How many levels have a cell of their own."""
        return len(self.levels) - len(self.shares)

    @property
    def cells(self) -> int:
        return self.kept + bool(self.shares) + self.gaps

    @property
    def measure(self) -> str:
        return "masses of levels" + (" and of gaps" if self.gaps else "")

    @cached_property
    def _shares(self) -> Tensor:
        shares = torch.tensor(self.shares, dtype=torch.float64)
        return shares / shares.sum()

    def level_shares(self, shares: Tensor) -> Tensor:
        """Probabilities of the levels, ``(*batch, levels)``, of those of cells, given that it is no gap."""
        there = shares[..., : self.kept + bool(self.shares)]
        there = there / there.sum(-1, keepdim=True)
        if not self.shares:
            return there
        pooled = there[..., self.kept :] * self._shares.to(there)
        return torch.cat([there[..., : self.kept], pooled], -1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        known = (x >= 0) & (x < len(self.levels)) & (x == x.floor())
        at = torch.where(known, x, 0.0).long()
        code = blank(x)
        code[..., CELL] = at.clamp(max=self.kept)
        weight = torch.where(known, 0.0, -math.inf).to(x)
        if self.shares:
            share, rank = self._shares.to(x.device), (at - self.kept).clamp(min=0)
            code[..., LOW] = torch.special.ndtri((share.cumsum(0) - 0.5 * share)[rank])
            weight = weight + torch.where(known & (at >= self.kept), share.log()[rank], 0.0)
        return code, weight

    def decode(self, code: Tensor) -> Tensor:
        cell = code[..., CELL].round().clamp(max=self.cells - 1)
        if self.shares:  # a quantile says which of the pooled it is
            edges = self._shares.to(code.device).cumsum(0)[:-1]
            rank = torch.searchsorted(edges, torch.special.ndtr(code[..., LOW].double()).contiguous())
            cell = torch.where(
                cell == self.kept, self.kept + rank, torch.where(cell > self.kept, math.nan, cell)
            )
        return torch.where((cell < 0) | (cell >= len(self.levels)), math.nan, cell.double())

    def to_json(self) -> dict[str, Any]:
        return {"kind": "levels", "levels": list(self.levels), "shares": list(self.shares)}


@dataclass(frozen=True)
class Numbers(CellKind):
    """Numbers: each atom a cell, all other numbers one, the rest.

    The scale of the rest goes through ``kind`` (a logarithm for positive numbers) and then through ``knots``,
    linear between them and beyond. On a grid a number stands for its cell, half a step to either side; where
    there are ``low`` and ``high`` the first and last cells take all that lies beyond.

    Args:
        kind: of the numbers in the rest: which there may be, and their map to the line.
        atoms: values with a mass of their own, rising.
        knots: pairs of a number on the line and its place, both rising; at least two.
        step: of the grid; 0 for numbers with a density.
        offset: a point of it.
        low: the least number there may be; minus infinity for none.
        high: the largest.
        seen: the outermost numbers of the rows, within which draws are kept.
    """

    kind: Kind
    atoms: tuple[float, ...]
    knots: tuple[tuple[float, ...], tuple[float, ...]]
    step: float = 0.0
    offset: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    seen: tuple[float, float] = (-math.inf, math.inf)

    @property
    def cells(self) -> int:
        return len(self.atoms) + 1 + self.gaps

    @property
    def rest(self) -> int:
        return len(self.atoms)

    @property
    def measure(self) -> str:
        if self.step:
            own = f"masses of a grid of step {self.step:.6g}"
        else:
            atoms = f" beside masses of {len(self.atoms)} values" if self.atoms else ""
            own = f"density{atoms}"
        return own + (" and of gaps" if self.gaps else "")

    @property
    def grid(self) -> bool:
        return self._grid

    @cached_property
    def _grid(self) -> bool:
        if not self.step:
            return False
        x, z = (np.array(k) for k in self.knots)
        spread = np.diff(x) / np.diff(z)
        return bool(self.step / np.median(spread) > _COARSE)

    @property
    def _eps(self) -> float:
        """The relative precision that the numbers were stored in."""
        return _PRECISION.get(self.dtype, 2.0**-52)

    @cached_property
    def _knots(self) -> tuple[Tensor, Tensor]:
        x, z = (torch.tensor(k, dtype=torch.float64) for k in self.knots)
        return x, z

    @cached_property
    def _atoms(self) -> Tensor:
        return torch.tensor(self.atoms, dtype=torch.float64)

    def place(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Where numbers lie on the normal scale, and the log of the scale's slope; -inf outside the kind."""
        real, weight = self.kind.encode(x.unsqueeze(-1), None, 0.0)
        real = real[..., 0]
        xs, zs = (k.to(x.device) for k in self._knots)
        i = (torch.searchsorted(xs, real.contiguous(), right=True) - 1).clamp(0, len(xs) - 2)
        slope = (zs[i + 1] - zs[i]) / (xs[i + 1] - xs[i])
        return zs[i] + (real - xs[i]) * slope, slope.log() + weight[..., 0]

    def value(self, z: Tensor) -> Tensor:
        """The number at a place: on the grid, and within the ends."""
        xs, zs = (k.to(z.device) for k in self._knots)
        z = z.double()
        i = (torch.searchsorted(zs, z.contiguous(), right=True) - 1).clamp(0, len(zs) - 2)
        real = xs[i] + (z - zs[i]) * (xs[i + 1] - xs[i]) / (zs[i + 1] - zs[i])
        x = self.kind.decode(real.unsqueeze(-1))[..., 0].clamp(*self.kind.support)
        return self.nearest(x).clamp(self.low, self.high)

    def nearest(self, x: Tensor) -> Tensor:
        """The point of the grid nearest to each number; the number itself where there is no grid."""
        return on_grid(x, self.step, self.offset)

    def atom(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The number of the nearest atom from below or above, and whether the value is it."""
        if not self.atoms:
            return torch.zeros_like(x, dtype=torch.long), torch.zeros_like(x, dtype=torch.bool)
        atoms = self._atoms.to(x.device)
        at = torch.searchsorted(atoms, x.contiguous()).clamp(max=len(atoms) - 1)
        return at, atoms[at] == x

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code, (at, hit) = blank(x), self.atom(x)
        inside = (x >= self.low) & (x <= self.high)
        if self.step:
            k = (x - self.offset) / self.step
            slack = (1e-6 + 4 * self._eps * x.abs() / self.step).clamp(max=0.5)
            inside &= (k - k.round()).abs() <= slack
        code[..., CELL] = torch.where(hit, at, self.rest)
        place, log_slope = self.place(x)
        code[..., PLACE] = place
        if self.grid:
            ends = (self.place(x + half * self.step)[0] for half in (-0.5, 0.5))
            code[..., LOW] = torch.where(x <= self.low, FAR, place - next(ends))
            code[..., HIGH] = torch.where(x >= self.high, FAR, next(ends) - place)
            log_slope = torch.where(log_slope == -math.inf, -math.inf, 0.0).to(x)
        elif self.step:
            log_slope = log_slope + math.log(self.step)
        weight = torch.where(hit & (not self.grid), 0.0, log_slope)
        return code, torch.where(inside | hit, weight, -math.inf)

    def decode(self, code: Tensor) -> Tensor:
        cell = code[..., CELL].round()
        x = self.value(code[..., PLACE])
        if self.atoms:
            atoms = self._atoms.to(code.device)
            x = torch.where(cell < self.rest, atoms[cell.long().clamp(0, len(atoms) - 1)], x)
        return torch.where((cell < 0) | (cell > self.rest), math.nan, x)

    def settled(self, code: Tensor) -> Tensor:
        x = self.decode(code)
        gap = x.isnan()
        found, _ = self.encode(torch.where(gap, self._knots[0][0].to(x.device), x))
        return torch.where(gap.unsqueeze(-1), code.double(), found).to(code.dtype)

    def within(self, code: Tensor) -> Tensor:
        x = self.decode(code)
        least, most = self.seen
        beyond = (x < least) | (x > most)
        at = self.encode(x.nan_to_num().clamp(least, most))[0].to(code.dtype)
        return torch.where(beyond.unsqueeze(-1), at, code)

    def to_json(self) -> dict[str, Any]:
        ends = {n: v for n in ("low", "high") if math.isfinite(v := getattr(self, n))}
        return {
            "kind": "numbers",
            "of": self.kind.to_json(),
            "atoms": list(self.atoms),
            "knots": [list(k) for k in self.knots],
            "seen": list(self.seen) if all(map(math.isfinite, self.seen)) else None,
            "step": self.step,
            "offset": self.offset,
            **ends,
        }


def blank(x: Tensor) -> Tensor:
    """Codes of values that have no place, all in the first cell."""
    code = x.new_zeros(*x.shape, 4)
    code[..., LOW:] = FAR
    return code


def on_grid(x: Tensor, step: float, offset: float) -> Tensor:
    """The point of a grid nearest to each number; the number itself where the step is 0."""
    if not step:
        return x
    on = offset + step * ((x - offset) / step).round()
    power = _decimals(step, offset)
    return on if power is None else (on * power).round() / power  # 0.3, not 0.30000000000000004


def _decimals(step: float, offset: float) -> float | None:
    """The power of ten that makes a grid whole numbers, or None."""
    for power in (10.0**d for d in range(10)):
        if all(abs(a - round(a)) <= 1e-12 * abs(a) for a in (step * power, offset * power)):
            return power
    return None


def column_from_json(spec: dict[str, Any]) -> CellKind:
    """The column of an entry of ``Cells.to_json``; ``FormatError`` for anything malformed."""
    spec = dict(spec)
    kind = spec.pop("kind", None)
    own: dict[str, Any] = {n: spec.pop(n, None) for n in ("name", "dtype", "gaps")}
    if not (isinstance(own["name"], str) and isinstance(own["dtype"], str) and isinstance(own["gaps"], bool)):
        raise FormatError("a column in this file has no name, type or word on gaps.")
    numbers: dict[str, Any] = {
        n: finite_number(spec.pop(n), n) for n in ("step", "offset", "low", "high") if n in spec
    }
    try:
        if kind == "levels" and set(spec) == {"levels", "shares"} and not numbers:
            levels = items(spec["levels"], (str, int, float, bool))
            shares = [finite_number(s, "a share") for s in items(spec["shares"], (int, float))]
            if any(s <= 0 for s in shares):
                raise FormatError("a level in this file has no share.")
            return Levels(**own, levels=tuple(levels), shares=tuple(shares))
        if kind == "numbers" and set(spec) == {"of", "atoms", "knots", "seen"}:
            atoms = _rising(spec["atoms"], 0)
            x, z = (_rising(k, 2) for k in items(spec["knots"], list))
            seen = spec["seen"]
            ends = (-math.inf, math.inf) if seen is None else _rising(seen, 2)
            if len(x) != len(z) or len(ends) != 2 or numbers.get("step", 0.0) < 0:
                raise FormatError("a column's scale in this file cannot be.")
            return Numbers(
                **own, kind=kind_from_json(spec["of"]), atoms=atoms, knots=(x, z), seen=ends, **numbers
            )
    except (TypeError, ValueError, KeyError, DataError) as error:
        raise FormatError(f"column {own['name']!r} in this file cannot be rebuilt: {error}") from None
    raise FormatError(f"column {own['name']!r} in this file has the wrong entries.")


def items(value: Any, kind: type | tuple[type, ...]) -> list[Any]:
    """A list of a file, of such things only."""
    if not isinstance(value, list) or len(value) > _MOST or not all(isinstance(v, kind) for v in value):
        raise FormatError("a list in this file is too long, or holds what it should not.")
    return value


def _rising(value: Any, fewest: int) -> tuple[float, ...]:
    numbers = tuple(finite_number(v, "a number of a column") for v in items(value, (int, float)))
    if len(numbers) < fewest or any(b <= a for a, b in itertools.pairwise(numbers)):
        raise FormatError("numbers in this file that must rise do not.")
    return numbers
