"""``Schema``: what a table's columns hold, inferred or declared.

Kinds come from all rows, moments from training rows. What a column *is* (whole numbers, a grid, a constant)
is inferred from every row handed to ``fit_table``, or a single held-out value off the grid would make
validation -inf. Every number that is estimated comes from training rows only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffeo.encodings.column_kind import Kind
from diffeo.encodings.columns import Column, Columns, precision
from diffeo.encodings.kinds import Constant, Continuous, Integer, Lattice, parse_kind
from diffeo.errors import DataError
from diffeo.tables.lattices import find_grid, gaps, looks_like_codes, odd_rows, repeated_share, sharp_ends
from diffeo.tables.table import Table, listed

_REPEATED = 0.5
"""Share of rows with a repeated value from which a fractional column counts as a lattice."""


@dataclass(frozen=True)
class Entry:
    """One column of a schema: its kind, how that came about, and what else it might be.

    ``doubt`` is what a density of this kind cannot show of the values: a heap, codes, a step that few rows
    force. ``suggestion`` is the kind that values or name hint at, as ``columns={name: suggestion}`` takes it.
    """

    name: str
    dtype: str
    kind: Kind
    declared: bool
    low: float
    high: float
    distinct: int
    note: str = ""
    doubt: str = ""
    suggestion: str = ""


@dataclass(frozen=True)
class Schema:
    """The kind of every column of a table.

    Inferred from the rows: *constant*, *integer* (whole numbers), *lattice* (at least half of the
    rows repeat a value of another, on a regular grid), else *continuous*. Declared only, because a
    sample cannot show it: *positive*, *bounded*, *circular*; ``suggestion`` names them where the rows
    look so.

    Example:
        >>> table = Table.from_columns({"a": [1, 2, 2], "b": [0.13, 0.57, 7.1], "c": [3.0, 3.0, 3.0]})
        >>> print("\\n".join(Schema.infer(table, {"b": "positive"}).lines()))
        column  kind      stored   lowest  highest  distinct  note
        a       integer   int64    1       2        2
        b       positive  float64  0.13    7.1      3         declared
        c       constant  float64  3       3        1         set aside
    """

    entries: tuple[Entry, ...]

    @classmethod
    def infer(cls, table: Table, declared: Mapping[str, str] | None = None) -> Schema:
        """The schema of ``table``'s rows, with ``declared`` kinds (``{"price": "positive"}``).

        Raises:
            DataError: for a declared name the table lacks, values outside a declared support, or a
                table in which nothing varies.
            ConfigError: for a kind that does not exist.
        """
        declared = declared or {}
        kinds = dict(zip(table.own(declared), map(parse_kind, declared.values()), strict=True))
        columns = zip(table.names, table.dtypes, table.values.T, strict=True)
        schema = cls(tuple(_entry(name, dtype, values, kinds.get(name)) for name, dtype, values in columns))
        if not schema.entries:
            raise DataError("no column is left to model; give, weight with or drop fewer of them.")
        if not schema.features:
            raise DataError(f"no column varies over the {len(table)} rows, so there is nothing to model.")
        return schema

    def check(self, table: Table) -> None:
        """Refuse a table with rows that its kinds cannot hold.

        Raises:
            DataError: for such a row, or a column that is not there; it names them.
        """
        for entry, column in zip(self.entries, table.select(self.names).values.T, strict=True):
            Column.fit(entry.name, entry.kind, entry.dtype, column)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(e.name for e in self.entries)

    @property
    def features(self) -> int:
        """How many latent coordinates the columns take: the ``features`` of a flow for this table."""
        return sum(e.kind.width for e in self.entries)

    @property
    def circular(self) -> tuple[int, ...]:
        """Which of its latent coordinates are angles: the ``circular`` of a flow for this table."""
        angles = [e.kind.angles for e in self.entries for _ in range(e.kind.width)]
        return tuple(i for i, angle in enumerate(angles) if angle)

    def encoding(
        self, rows: Table, *, given: Sequence[str] = (), weights: str | None = None, draws: int = 16
    ) -> Columns:
        """The encoding of these columns, standardized by the moments of ``rows``: pass training
        rows only."""
        columns = [Column.fit(e.name, e.kind, e.dtype, rows.column(e.name)) for e in self.entries]
        return Columns(columns, given=listed(given), weights=weights, num_draws=draws)

    def doubts(self) -> list[str]:
        """What the columns hold that no density of their kind shows, a sentence each."""
        return [f"column {e.name!r}: {e.doubt}." for e in self.entries if e.doubt]

    def cells(self) -> list[tuple[str, ...]]:
        """The schema as a table of text, the header first."""
        cells: list[tuple[str, ...]] = [("column", "kind", "stored", "lowest", "highest", "distinct", "note")]
        for e in self.entries:
            kind = "constant" if isinstance(e.kind, Constant) else str(e.kind)
            notes = e.doubt, e.note, f"perhaps {e.suggestion}" if e.suggestion else ""
            note = "; ".join(filter(None, notes))
            cells.append((e.name, kind, e.dtype, f"{e.low:.6g}", f"{e.high:.6g}", f"{e.distinct}", note))
        return cells

    def lines(self) -> list[str]:
        """The schema as aligned lines of text."""
        cells = self.cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def _entry(name: str, dtype: str, values: np.ndarray, declared: Kind | None) -> Entry:
    low, high, distinct = float(values.min()), float(values.max()), len(np.unique(values))
    entry = Entry(name, dtype, Continuous(), declared is not None, low, high, distinct)
    if distinct == 1:
        # a declared support says nothing about a value that never varies
        return replace(entry, kind=Constant(low), declared=False, note="set aside")
    if declared is not None:
        Column.fit(name, declared, dtype, values)  # refuses values outside the support
        return replace(entry, kind=declared, note="declared")
    eps = precision(dtype)
    if _whole(values, dtype, eps):
        kind = _integers(values)
        doubt = _grid_doubt(values, kind)
        suggestion = _ends(values) if isinstance(kind, Integer) and not doubt else ""
        return replace(entry, kind=kind, doubt=doubt, suggestion=suggestion)
    repeated = repeated_share(values)
    grid = find_grid(values, eps) if repeated >= _REPEATED else None
    if grid is not None:
        kind = Lattice(*grid)
        note = f"{repeated:.0%} of rows repeat a value"
        return replace(entry, kind=kind, doubt=_grid_doubt(values, kind), note=note)
    doubt = _heap(values)
    if repeated >= _REPEATED:
        note = "values repeat on no regular grid: densities there are not to be trusted"
        return replace(entry, doubt=doubt, note=note)
    return replace(entry, doubt=doubt, suggestion=_suggestion(name, values, low, high))


def _heap(values: np.ndarray) -> str:
    """What to say of one value that many rows of a continuous column have exactly."""
    unique, counts = np.unique(values, return_counts=True)
    most = int(counts.argmax())
    if counts[most] < max(10, 0.01 * len(values)):
        return ""
    return f"{counts[most] / len(values):.0%} of rows are exactly {unique[most]:.6g}"


def _grid_doubt(values: np.ndarray, kind: Integer | Lattice) -> str:
    """What to say of a grid: that it hardly is one, or that few rows make it so fine."""
    odd, step = odd_rows(values, kind.step, kind.offset)
    if odd:
        rows = "1 row makes" if odd == 1 else f"{odd} rows make"
        return f"{rows} the step {kind.step:.6g}; all others lie on {step:.6g}, and are smeared"
    unique, counts, gap = gaps(values, kind.step)
    if looks_like_codes(values, kind.step):
        cells = round(float(unique[-1] - unique[0]) / kind.step) + 1
        return f"looks like codes: {len(unique)} values on {cells:,} points, and draws fall between"
    most = int(counts.argmax())
    if most in (0, len(unique) - 1) and gap[0 if most == 0 else -1]:
        others = np.delete(unique, most)
        if abs(others - unique[most]).min() > np.ptp(others):
            share = counts[most] / len(values)
            return f"{share:.0%} of rows are exactly {unique[most]:.6g}, far from the rest"
    return ""


def _ends(values: np.ndarray) -> str:
    """The bounds that whole numbers seem to have."""
    low, high = sharp_ends(values)
    if not low or values.min() not in (0, 1):
        return ""
    return str(Integer(float(values.min()), float(values.max())) if high else Integer(float(values.min())))


def _whole(values: np.ndarray, dtype: str, eps: float) -> bool:
    """Whole numbers, and not only because floats that large have no fraction left."""
    if not dtype.startswith("float"):
        return True
    return bool((values == np.round(values)).all()) and eps * float(np.abs(values).max()) < 0.05


def _integers(values: np.ndarray) -> Integer | Lattice:
    """Whole numbers; a lattice where they repeat and all share a step above one."""
    grid = find_grid(values, 0.0) if repeated_share(values) >= _REPEATED else None
    return Integer() if grid is None or grid[0] == 1 else Lattice(*grid)


_INTERVALS = ((0.0, 1.0), (-1.0, 1.0), (0.0, 100.0))
_ANGLE = re.compile(
    r"angle|bearing|direction|heading|azimuth|orientation|longitude|hour|(^|_)(theta|phi|phase|yaw|lon)(_|$)",
    re.IGNORECASE,
)
_TURNS = ((0.0, 360.0), (-180.0, 180.0), (0.0, 24.0), (0.0, 2 * math.pi), (-math.pi, math.pi))


def _suggestion(name: str, values: np.ndarray, low: float, high: float) -> str:
    """What a continuous column might be declared as; only ever a hint."""
    if len(values) < 50:
        return ""
    for a, b in _TURNS:
        # its name says so and it goes most of the way round, or
        if _ANGLE.search(name) and a <= low and high <= b and high - low > 0.8 * (b - a):
            return f"circular({a:.10g}, {b:.10g})"
        # a circle is filled to its ends, and evenly enough on both sides of the seam
        near = 0.02 * (b - a)
        if a <= low < a + near / 4 and b - near / 4 < high <= b:
            seam = [np.mean(values < a + near), np.mean(values > b - near)]
            if min(seam) > 0.25 * max(seam):
                return f"circular({a:.10g}, {b:.10g})"
    for a, b in _INTERVALS:
        reach = 0.05 * (b - a)
        if a < low < a + reach and b - reach < high < b:
            return f"bounded({a:g}, {b:g})"
    if low > 0 and low < 0.1 * float(np.median(values)):
        return "positive"
    return ""
