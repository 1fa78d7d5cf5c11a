"""``Schema``: what a table's columns hold, inferred or declared.

Kinds come from all rows, moments from training rows. What a column *is* (whole numbers, a grid, a constant)
is inferred from every row handed to ``fit_table``, or a single held-out value off the grid would make
validation -inf. Every number that is estimated comes from training rows only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffeo.encodings.column_kind import Kind
from diffeo.encodings.columns import DTYPES, Column, Columns, precision
from diffeo.encodings.kinds import Constant, Continuous, Integer, Lattice, parse_kind
from diffeo.errors import DataError
from diffeo.tables import hints
from diffeo.tables.codes import as_numbers
from diffeo.tables.lattices import Tally, find_grid
from diffeo.tables.relations import Relation, relations
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
        a       integer   int64    1       2        2         only two values
        b       positive  float64  0.13    7.1      3         declared
        c       constant  float64  3       3        1         set aside
    """

    entries: tuple[Entry, ...]

    @classmethod
    def infer(
        cls, table: Table, declared: Mapping[str, str] | None = None, *, given: Sequence[str] = ()
    ) -> Schema:
        """The schema of ``table``'s rows, with ``declared`` kinds (``{"price": "positive"}``).

        Columns ``given`` are not modeled, but may decide others. A column that others decide (a copy, another
        unit, a total) is doubted.

        Raises:
            DataError: for a declared name the table lacks, values outside a declared support, or a
                table in which nothing varies.
            ConfigError: for a kind that does not exist.
        """
        declared = declared or {}
        kinds = dict(zip(table.own(declared), map(parse_kind, declared.values()), strict=True))
        modeled = table.drop(given) if given else table
        ordered = table.select([*table.own(given), *modeled.names])  # so that no given column is decided
        values = ordered.values
        dtypes = [name if name in DTYPES else "float64" for name in modeled.dtypes]  # of decimals
        columns = zip(modeled.names, dtypes, values.T[len(ordered.names) - len(modeled.names) :], strict=True)
        entries = {name: _entry(name, dtype, column, kinds.get(name)) for name, dtype, column in columns}
        stored = np.array([precision(name if name in DTYPES else "float64") for name in ordered.dtypes])
        for found in relations(ordered.names, values, stored):
            if found.column in entries:
                entries[found.column] = _decided(entries[found.column], found)
        schema = cls(tuple(entries.values()))
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
        columns = [Column.fit(e.name, e.kind, e.dtype, as_numbers(rows.column(e.name))) for e in self.entries]
        return Columns(columns, given=listed(given), weights=weights, num_draws=draws)

    def doubts(self, rows: int) -> list[str]:
        """What no density of these kinds shows, learned from so many rows: a sentence each."""
        found = [f"column {e.name!r}: {e.doubt}." for e in self.entries if e.doubt]
        if rows <= self.features:
            found.append(
                f"{rows:,} training rows lie on a plane within {self.features:,} columns: so few have no "
                "density; leave columns out."
            )
        return found

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


def _decided(entry: Entry, relation: Relation) -> Entry:
    """An entry whose column others decide."""
    grid = isinstance(entry.kind, Integer | Lattice)
    why = "draws only come near that" if grid else "there is no density, and its nats say nothing"
    text = f"is {relation} in every row: {why}; leave one out"
    return replace(entry, doubt="; ".join(filter(None, (entry.doubt, text))))


def _entry(name: str, dtype: str, values: np.ndarray, declared: Kind | None) -> Entry:
    tally = Tally.of(values)
    distinct, low, high = len(tally.unique), float(tally.unique[0]), float(tally.unique[-1])
    entry = Entry(name, dtype, Continuous(), declared is not None, low, high, distinct)
    if distinct == 1:
        # a declared support says nothing about a value that never varies
        return replace(entry, kind=Constant(low), declared=False, note="set aside")
    if declared is not None:
        Column.fit(name, declared, dtype, values)  # refuses values outside the support
        return replace(entry, kind=declared, note="declared")
    two = "only two values" if distinct == 2 else ""
    eps = precision(dtype)
    if _whole(tally.unique, dtype, eps):
        kind = _integers(tally)
        doubt = hints.doubt(name, tally, kind)
        suggestion = hints.ends(tally) if isinstance(kind, Integer) and not doubt else ""
        return replace(entry, kind=kind, doubt=doubt, note=two, suggestion=suggestion)
    grid = find_grid(tally.unique, eps) if tally.repeated >= _REPEATED else None
    if grid is not None:
        kind = Lattice(*grid)
        note = two or f"{tally.repeated:.0%} of rows repeat a value"
        return replace(entry, kind=kind, doubt=hints.doubt(name, tally, kind), note=note)
    doubt = hints.doubt(name, tally, Continuous())
    if tally.repeated >= _REPEATED:
        note = "values repeat on no regular grid: densities there are not to be trusted"
        return replace(entry, doubt=doubt, note=note)
    return replace(entry, doubt=doubt, suggestion=hints.suggestion(name, values))


def _whole(unique: np.ndarray, dtype: str, eps: float) -> bool:
    """Whole numbers, and not only because floats that large have no fraction left."""
    if not dtype.startswith("float"):
        return True
    return bool((unique == np.round(unique)).all()) and eps * float(np.abs(unique).max()) < 0.05


def _integers(tally: Tally) -> Integer | Lattice:
    """Whole numbers; a lattice where they repeat and all share a step above one."""
    grid = find_grid(tally.unique, 0.0) if tally.repeated >= _REPEATED else None
    return Integer() if grid is None or grid[0] == 1 else Lattice(*grid)
