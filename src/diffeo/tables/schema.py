"""``Schema``: what a table's columns hold, inferred or declared.

Kinds come from all rows, moments from training rows. What a column *is* (whole numbers, a grid, a constant)
is inferred from every row handed to ``fit_table``, or a single held-out value off the grid would make
validation -inf. Every number that is estimated comes from training rows only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diffeo.encodings.cell_kinds import Levels, Numbers
from diffeo.encodings.cells import Cells, Decided
from diffeo.encodings.column_kind import Kind
from diffeo.encodings.columns import Column, Columns, precision
from diffeo.encodings.kinds import Constant, Continuous, Grid, Integer, Lattice, parse_kind
from diffeo.errors import DataError
from diffeo.tables import cells, hints
from diffeo.tables.cells import Category, tallied
from diffeo.tables.codes import as_numbers, is_number_like
from diffeo.tables.lattices import Tally, find_grid
from diffeo.tables.relations import Relation, relations
from diffeo.tables.table import Table, listed

_REPEATED = 0.5
"""Share of rows with a repeated value from which a fractional column counts as a lattice."""


_NAMED = 20
"""Rows from which a column may be said to name them."""
_NUMPY = (
    "bool",
    *(f"float{b}" for b in (16, 32, 64)),
    *(f"{s}int{b}" for s in ("", "u") for b in (8, 16, 32, 64)),
)
"""Types of complete numbers."""


@dataclass(frozen=True)
class Entry:
    """One column of a schema: its kind, how that came about, and what else it might be.

    ``gaps`` are rows without an entry; ``levels`` what a category holds, the most frequent first, in as many
    rows each as ``counts`` says; ``atoms`` numbers that repeat. ``doubt`` is what a density of this kind
    cannot show of the values: a heap, codes, a step that few rows force; ``lasting`` is the part of it that
    holds where values that repeat have masses of their own. ``suggestion`` is the kind that values or name
    hint at, as ``columns={name: suggestion}`` takes it.
    """

    name: str
    dtype: str
    kind: Kind | Category
    declared: bool
    low: float
    high: float
    distinct: int
    gaps: int = 0
    levels: tuple[Any, ...] = ()
    counts: tuple[int, ...] = ()
    atoms: tuple[float, ...] = ()
    note: str = ""
    doubt: str = ""
    lasting: str = ""
    relation: Relation | None = None
    suggestion: str = ""

    @property
    def numeric(self) -> bool:
        """Whether it is a number that varies."""
        return not isinstance(self.kind, Category | Constant)

    @property
    def real(self) -> bool:
        """Whether real numbers can stand for it: no category, gaps, dates or decimals."""
        return isinstance(self.kind, Kind) and not self.gaps and self.dtype in _NUMPY

    @property
    def mixed(self) -> bool:
        """Whether it wants cells: real numbers cannot stand for it, or some of them repeat on no grid."""
        return not self.real or (bool(self.atoms) and not isinstance(self.kind, Grid))

    def levels_of(self) -> Levels:
        """Its levels as an encoding takes them; those of a number that never varies are the number."""
        if isinstance(self.kind, Category):
            return cells.category(
                self.name, self.dtype, list(self.levels), np.array(self.counts, dtype=np.int64), self.gaps
            )
        return Levels(self.name, self.dtype, self.gaps > 0, (self.low,))

    def computed(self, place: int) -> Decided:
        """The column as others decide it, which stands at this place among all."""
        assert self.relation is not None
        grid = (self.kind.step, self.kind.offset) if isinstance(self.kind, Grid) else ()
        return Decided(
            self.name, self.dtype, place, self.relation.constant, dict(self.relation.factors), *grid
        )

    def numbers(self, rows: Any) -> Numbers:
        """The numbers as an encoding takes them, on the scale of training rows."""
        assert isinstance(self.kind, Kind)
        kind = parse_kind(self.suggestion) if self.suggestion.startswith("integer") else self.kind
        values = as_numbers(rows)
        there = values[~np.isnan(values)]
        ends = self.low, self.high
        return cells.number(self.name, self.dtype, kind, self.atoms, self.gaps > 0, there, ends)


@dataclass(frozen=True)
class Schema:
    """The kind of every column of a table.

    Inferred from the rows: *category* (text, truth values), *constant*, *integer* (whole numbers), *lattice*
    (at least half of the rows repeat a value of another, on a regular grid), else *continuous*. Declared
    only, because a sample cannot show it: *category* of numbers that are codes, *positive*, *bounded*,
    *circular*; ``suggestion`` names them where the rows look so. Dates and times are numbers, in their unit.

    What names its rows is left out: text that is another in every row, and whole numbers that count them.

    Example:
        >>> table = Table.from_columns({"a": [1, 2, 2], "b": [0.13, 0.57, 7.1], "c": [3.0, 3.0, 3.0]})
        >>> print("\\n".join(Schema.infer(table, {"b": "positive"}).lines()))
        column  kind      stored   lowest  highest  distinct  note
        a       integer   int64    1       2        2         only two values
        b       positive  float64  0.13    7.1      3         declared
        c       constant  float64  3       3        1         set aside
    """

    entries: tuple[Entry, ...]
    given: tuple[Entry, ...] = ()
    left_out: tuple[str, ...] = ()

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
        kinds = dict(zip(table.own(declared), map(_declared, declared.values()), strict=True))
        given = table.own(given)
        named = (
            {} if len(table) < _NAMED else {n: w for n in table.names if (w := _names_rows(table.column(n)))}
        )
        named = {n: why for n, why in named.items() if n not in (*given, *kinds)}
        types = dict(zip(table.names, table.dtypes, strict=True))
        found = {
            name: _entry(name, types[name], table.column(name), kinds.get(name))
            for name in table.names
            if name not in named
        }
        complete = [n for n in (*given, *found) if found[n].numeric and not found[n].gaps]
        ordered = table.select(dict.fromkeys(complete))  # so that no given column is decided
        stored = np.array([precision(dtype) for dtype in ordered.dtypes])
        numbers = np.stack([as_numbers(ordered.column(n)) for n in ordered.names], 1) if complete else None
        for relation in () if numbers is None else relations(ordered.names, numbers, stored):
            if relation.column not in given:
                found[relation.column] = _decided(found[relation.column], relation)
        schema = cls(
            tuple(e for n, e in found.items() if n not in given),
            tuple(found[n] for n in given),
            tuple(f"column {n!r} is left out: {why}." for n, why in named.items()),
        )
        if not schema.entries:
            why = " ".join(schema.left_out) or "Give, weight with or drop fewer of them."
            raise DataError(f"no column is left to model. {why}")
        if not any(e.distinct > 1 or 0 < e.gaps < len(table) for e in schema.entries):
            raise DataError(f"no column varies over the {len(table)} rows, so there is nothing to model.")
        return schema

    def check(self, table: Table) -> None:
        """Refuse a table with rows that its kinds cannot hold.

        Raises:
            DataError: for such a row, or a column that is not there; it names them.
        """
        if self.mixed:
            table.own(self.names)
            return
        for entry in self.entries:
            assert isinstance(entry.kind, Kind)
            Column.fit(entry.name, entry.kind, entry.dtype, as_numbers(table.column(entry.name)))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(e.name for e in self.entries)

    @property
    def mixed(self) -> bool:
        """Whether columns need cells: categories, gaps, dates, values that repeat on no grid."""
        return any(e.mixed for e in (*self.entries, *self.given))

    @property
    def features(self) -> int:
        """How many latent coordinates the columns take: the ``features`` of a flow for this table."""
        return sum(e.kind.width for e in self.entries)

    @property
    def circular(self) -> tuple[int, ...]:
        """Which of its latent coordinates are angles: the ``circular`` of a flow for this table."""
        angles = [
            isinstance(e.kind, Kind) and e.kind.angles for e in self.entries for _ in range(e.kind.width)
        ]
        return tuple(i for i, angle in enumerate(angles) if angle)

    def encoding(
        self, rows: Table, *, given: Sequence[str] = (), weights: str | None = None, draws: int = 16
    ) -> Columns:
        """The encoding of these columns as real vectors, standardized by the moments of ``rows``: pass
        training rows only."""
        columns = [
            Column.fit(e.name, e.kind, e.dtype, rows.column(e.name))
            for e in self.entries
            if isinstance(e.kind, Kind)
        ]
        return Columns(columns, given=listed(given), weights=weights, num_draws=draws)

    @property
    def _decided(self) -> set[str]:
        """The columns that others decide and so compute; beside real vectors there are none."""
        return {e.name for e in self.entries if self.mixed and e.relation is not None and not e.declared}

    @property
    def cell_columns(self) -> int:
        """How many columns are cells, given ones too: the ``features`` of a ``Mixed`` for this table."""
        return len(self.given) + len(self.entries) - len(self._decided)

    def cell_encoding(self, rows: Table, *, weights: str | None = None) -> Cells:
        """The encoding of these columns, and of the given ones, as cells, on the scales of ``rows``: pass
        training rows only."""
        every = (*self.given, *self.entries)
        modeled = [e for e in every if e.name not in self._decided]
        columns = [e.levels_of() if not e.numeric else e.numbers(rows.column(e.name)) for e in modeled]
        computed = [e.computed(place) for place, e in enumerate(every) if e.name in self._decided]
        return Cells(columns, given=[e.name for e in self.given], weights=weights, decided=computed)

    def doubts(self, rows: int, *, cells: bool = False) -> list[str]:
        """What no density of these kinds, or of their cells, shows, of so many rows: a sentence each."""
        said = {e.name: e.lasting if cells else e.doubt for e in self.entries}
        found = [f"column {name!r}: {doubt}." for name, doubt in said.items() if doubt]
        found += self.left_out
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
            gaps = f"{e.gaps:,} missing" if e.gaps else ""
            doubt = e.lasting if self.mixed else e.doubt
            if e.name in self._decided:
                doubt = f"is {e.relation} in every row, and computed so"
            notes = gaps, doubt, e.note, f"perhaps {e.suggestion}" if e.suggestion else ""
            note = "; ".join(filter(None, notes))
            ends = ("", "") if math.isnan(e.low) else (f"{e.low:.6g}", f"{e.high:.6g}")
            cells.append((e.name, kind, e.dtype, *ends, f"{e.distinct}", note))
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
    return replace(entry, relation=relation, doubt="; ".join(filter(None, (entry.doubt, text))))


def _declared(text: str) -> Kind | Category:
    return Category() if text.strip().lower() == "category" else parse_kind(text)


def _names_rows(column: Any) -> str:
    """Why a column names its rows, and is left out; "" for one that does not."""
    if isinstance(column, np.ndarray):
        counts = column.dtype.kind in "iu" and len(column) >= _NAMED and bool((np.diff(column) == 1).all())
        return "it counts the rows" if counts else ""
    there = len(column) - column.null_count
    if not there:
        return "it holds nothing"
    if is_number_like(column) or there < _NAMED:
        return ""
    return "each row has its own text" if len(column.unique()) - bool(column.null_count) == there else ""


def _entry(name: str, dtype: str, column: Any, declared: Kind | Category | None) -> Entry:
    truth = dtype == "bool" and not isinstance(declared, Kind)
    if isinstance(declared, Category) or truth or not is_number_like(column):
        if isinstance(declared, Kind):
            raise DataError(f"column {name!r} holds text, not numbers; it is a category, not {declared}.")
        return _category(name, dtype, column, declared is not None)
    values = as_numbers(column)
    there = values[~np.isnan(values)]
    entry = _numbers(name, dtype, there, declared)
    return replace(entry, gaps=len(values) - len(there))


def _category(name: str, dtype: str, column: Any, declared: bool) -> Entry:
    levels, counts, gaps = tallied(column)
    rare = cells.pooled(counts)
    note = f"{rare:,} rare levels share one cell" if rare else ""
    numbers = [v for v in levels if isinstance(v, int | float)]
    low, high = (min(numbers), max(numbers)) if len(numbers) == len(levels) else (math.nan, math.nan)
    known = tuple(levels), tuple(counts.tolist())
    return Entry(name, dtype, Category(), declared, low, high, len(levels), gaps, *known, note=note)


def _numbers(name: str, dtype: str, values: np.ndarray, declared: Kind | None) -> Entry:
    if not len(values):
        return Entry(name, dtype, Constant(0.0), False, math.nan, math.nan, 0, note="set aside")
    tally = Tally.of(values)
    distinct, low, high = len(tally.unique), float(tally.unique[0]), float(tally.unique[-1])
    entry = Entry(name, dtype, Continuous(), declared is not None, low, high, distinct)
    if distinct == 1:
        # a declared support says nothing about a value that never varies
        return replace(entry, kind=Constant(low), declared=False, note="set aside")
    masses = cells.atoms(tally)
    entry = replace(entry, atoms=masses)
    if declared is not None:
        Column.fit(name, declared, dtype if dtype in _NUMPY else "float64", values)  # refuses those outside
        return replace(entry, kind=declared, note="declared")
    two = "only two values" if distinct == 2 else ""
    eps = precision(dtype)
    if _whole(tally.unique, dtype, eps):
        kind = _integers(tally)
        doubt, lasting = hints.doubt(name, tally, kind), hints.lasting(name, tally, kind)
        suggestion = hints.ends(tally) if isinstance(kind, Integer) and not doubt else ""
        return replace(entry, kind=kind, doubt=doubt, lasting=lasting, note=two, suggestion=suggestion)
    grid = find_grid(tally.unique, eps) if tally.repeated >= _REPEATED else None
    if grid is not None:
        kind = Lattice(*grid)
        note = two or f"{tally.repeated:.0%} of rows repeat a value"
        doubts = {"doubt": hints.doubt(name, tally, kind), "lasting": hints.lasting(name, tally, kind)}
        return replace(entry, kind=kind, note=note, **doubts)
    doubt = hints.doubt(name, tally, Continuous())
    entry = replace(entry, doubt=doubt, lasting=hints.lasting(name, tally, Continuous()))
    if masses:
        share = float(tally.counts[np.isin(tally.unique, masses)].sum() / tally.rows)
        which = "1 value repeats" if len(masses) == 1 else f"{len(masses)} values repeat"
        return replace(entry, note=f"{which}, in {share:.0%} of rows")
    if tally.repeated >= _REPEATED:
        return replace(entry, note="values repeat on no regular grid: densities there are not to be trusted")
    return replace(entry, suggestion=hints.suggestion(name, values))


def _whole(unique: np.ndarray, dtype: str, eps: float) -> bool:
    """Whole numbers, and not only because floats that large have no fraction left."""
    if not dtype.startswith(("float", "decimal")):
        return True
    return bool((unique == np.round(unique)).all()) and eps * float(np.abs(unique).max()) < 0.05


def _integers(tally: Tally) -> Integer | Lattice:
    """Whole numbers; a lattice where they repeat and all share a step above one."""
    grid = find_grid(tally.unique, 0.0) if tally.repeated >= _REPEATED else None
    return Integer() if grid is None or grid[0] == 1 else Lattice(*grid)
