"""``compare``: how synthetic rows differ from real ones, in their columns, their pairs and altogether."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from diffeo.errors import DataError
from diffeo.tables.boosting import Detection, Efficacy, detect, efficacy, likely_target
from diffeo.tables.sides import Array, Side, sides
from diffeo.tables.table import Table
from diffeo.tables.trends import distance, similarities

_BARS, _LEVELS = 30, 8
"""Bars of a number's histogram, and levels of a category that are shown one by one."""
_TAIL, _HEAP, _HEAPED = 0.005, 0.1, 10
"""Share of the real entries on either side that a histogram has in its outermost bars; and of one value, and
how many entries, that would hide all others: it is told apart."""


@dataclass(frozen=True)
class ColumnShape:
    """One column, real against synthetic.

    Args:
        name, kind: the column's; ``number`` or ``category``.
        distance: Kolmogorov-Smirnov's of numbers, the total variation distance of categories, in [0, 1], of
            the entries that are there.
        held_out: the same distance of the test rows from the real ones: what chance does. None without them.
        missing, synthetic_missing: shares of the entries that are missing.
        bars: the levels that have bars, or the numbers between them, one more than there are bars. The
            outermost bars have all that lies beyond, too.
        ends: the lowest and the highest number of the bars as text; None of a category.
        shares, synthetic_shares: of the entries that are there, in each bar.
        heap: a number that a tenth of the real entries or more are, as text; it has no part in the bars. None
            where there is none.
        heap_share, synthetic_heap_share: of the entries that are there, those that are the heap.
    """

    name: str
    kind: str
    distance: float
    held_out: float | None
    missing: float
    synthetic_missing: float
    bars: tuple[str, ...] | tuple[float, ...]
    ends: tuple[str, str] | None
    shares: tuple[float, ...]
    synthetic_shares: tuple[float, ...]
    heap: str | None = None
    heap_share: float = 0.0
    synthetic_heap_share: float = 0.0


@dataclass(frozen=True)
class PairTrend:
    """Two columns, and how alike they go together in real and in synthetic rows.

    Args:
        first, second: the columns' names.
        similarity: in [0, 1]: of the correlations of two numbers, else of the tables of counts.
        held_out: the same of real and test rows: what chance does. None without them.
        correlation, synthetic_correlation: of two numbers, else None.
    """

    first: str
    second: str
    similarity: float
    held_out: float | None
    correlation: float | None = None
    synthetic_correlation: float | None = None

    @property
    def shortfall(self) -> float:
        """What is lacking that chance does not explain."""
        return (1.0 if self.held_out is None else self.held_out) - self.similarity


@dataclass(frozen=True)
class Copies:
    """Rows that equal a real row in every column.

    Such rows are copies, and their absence is not privacy: who was among the training rows can be told from
    rows that are near but not equal, and from the density itself.

    Args:
        rows: synthetic rows that do.
        share: of the synthetic rows.
        held_out: share of the test rows that do: rows that many have alike. None without them.
    """

    rows: int
    share: float
    held_out: float | None


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` found; ``print`` says it in a few lines.

    Args:
        rows: of each table: ``real``, ``synthetic`` and, where it was given, ``test``.
        columns: each column, in the table's order.
        pairs: every pair of columns that has a similarity, the worst first: furthest below the test rows.
        detection: whether boosted trees tell the tables apart; None for less than 20 rows.
        efficacy: a model trained on synthetic rows beside one trained on real ones; None where there is
            nothing to predict.
        copies: synthetic rows that are real ones.
        notes: what to know of the figures, a sentence each.
    """

    rows: dict[str, int]
    columns: tuple[ColumnShape, ...]
    pairs: tuple[PairTrend, ...]
    detection: Detection | None
    efficacy: Efficacy | None
    copies: Copies
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> float:
        """The mean of 1 less the columns' distances: 1 where every column is alike."""
        return 1 - float(np.mean([column.distance for column in self.columns]))

    @property
    def trend(self) -> float | None:
        """The mean similarity of the pairs; None where no pair has one."""
        return float(np.mean([pair.similarity for pair in self.pairs])) if self.pairs else None

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        found = {**asdict(self), "shape": self.shape, "trend": self.trend}
        if self.detection is not None:
            found["detection"]["score"] = self.detection.score
        return found

    def __str__(self) -> str:
        worst = max(self.columns, key=lambda column: column.distance)
        lines = [
            f"columns  {self.shape:.3f} alike; {worst.name!r} least, {1 - worst.distance:.3f}",
        ]
        for p in self.pairs[:1]:
            lack = f"{p.first!r} and {p.second!r} lack most, {p.similarity:.3f}"
            lines.append(f"pairs    {self.trend:.3f} alike; {lack}")
        if d := self.detection:
            tells = ", ".join(repr(tell.name) for tell in d.tells[:3])
            lines.append(f"C2ST     {d.score:.3f} (AUC {d.auc:.3f} +- {d.error:.3f}), most by {tells}")
        if e := self.efficacy:
            lines.append(
                f"target   {e.target!r}: {e.measure} {e.synthetic:.3f} from synthetic rows, "
                f"{e.real:.3f} from real ones"
            )
        held = "" if self.copies.held_out is None else f"; of held-out rows {self.copies.held_out:.2%}"
        lines.append(f"copies   {self.copies.share:.2%} of the rows{held}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def compare(
    real: Any, synthetic: Any, *, test: Any = None, target: str | None = None, seed: int = 0
) -> Comparison:
    """Hold synthetic rows against the real ones that they were learned from.

    Columns, pairs, a two-sample test by gradient boosting with the columns that gave it away, what a model
    learns from them, and copies; each beside what other real rows get, where there are any.

    Args:
        real: a table, a path to one, or whatever else ``Table.of`` takes: the rows that were learned from.
        synthetic: the rows to judge.
        test: real rows that nothing was learned from. Without them a fifth of ``real`` tests the efficacy,
            which the synthetic rows may then know, and no figure says what chance does.
        target: the column to predict; default: the last category of at most 20 levels, else the last number.
        seed: of folds, shuffles and samples of rows.

    The time is that of boosting, about 15 seconds of one core for 30,000 rows of 20 columns or more; more
    rows are sampled. Columns that not all tables have are left out, and a note names them.

    Raises:
        DataError: for a table without rows, tables with no column in common, or no such target.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=300)
        >>> found = compare({"x": x, "y": x + rng.normal(size=300)}, {"x": x, "y": x})
        >>> [column.distance < 0.2 for column in found.columns], round(found.trend, 1)
        ([True, True], 0.9)
        >>> found.detection.auc > 0.6
        True
    """
    tables = [Table.of(data) for data in (real, synthetic, *(() if test is None else (test,)))]
    columns = sides(*tables)
    names = [side.name for side in columns]
    goal = likely_target(columns) if target is None else tables[0].own([target])[0]
    if goal is not None and goal not in names:
        raise DataError(
            f"the target {goal!r} is not in every table; it can only be one of {', '.join(names)}."
        )
    notes = list(_left_out(tables, names))
    learned = columns if test is not None else _split(columns, seed)
    found = None if goal is None else efficacy(learned, goal, seed)
    if found is not None and test is None:
        notes.append(
            "No test rows were given: a fifth of the real rows test what was learned, and the synthetic rows "
            "may come from them."
        )
    return Comparison(
        rows=dict(zip(("real", "synthetic", "test"), map(len, tables), strict=False)),
        columns=tuple(map(_shape, columns)),
        pairs=_pairs(columns),
        detection=detect(columns, seed),
        efficacy=found,
        copies=_copies(columns),
        notes=tuple(notes),
    )


# -- inside ---------------------------------------------------------------------------------------


def _left_out(tables: Sequence[Table], names: Sequence[str]) -> list[str]:
    """A sentence where columns are not in every table."""
    others = dict.fromkeys(name for table in tables for name in table.names if name not in names)
    if not others:
        return []
    listed = ", ".join(map(repr, list(others)[:10])) + (
        f" and {len(others) - 10} more" if len(others) > 10 else ""
    )
    return [f"Left out, since not all tables have them: {listed}."]


def _split(columns: Sequence[Side], seed: int) -> list[Side]:
    """The columns with a fifth of the real rows as the third part."""
    order = np.random.default_rng(seed).permutation(len(columns[0].parts[0]))
    held, kept = np.split(order, [len(order) // 5])
    return [
        Side(side.name, side.levels, (side.parts[0][kept], side.parts[1], side.parts[0][held]))
        for side in columns
    ]


def _shape(side: Side) -> ColumnShape:
    parts = [part[~np.isnan(part)] for part in side.parts[:2]]
    missing = [1 - len(part) / len(whole) for part, whole in zip(parts, side.parts, strict=False)]
    heap, heap_shares, drawn = None, [0.0, 0.0], parts
    if side.levels is None and len(parts[0]):
        values, counts = np.unique(parts[0], return_counts=True)
        if len(values) > 1 and counts.max() >= max(_HEAPED, _HEAP * len(parts[0])):
            value = float(values[counts.argmax()])
            heap, drawn = side.text(value), [part[part != value] for part in parts]
            heap_shares = [1 - len(d) / max(len(p), 1) for d, p in zip(drawn, parts, strict=True)]
    bars, ends, counts = _bars(side, *drawn) if side.levels is None else _level_bars(side, *drawn)
    shares = [tuple((c / max(len(p), 1)).tolist()) for c, p in zip(counts, parts, strict=True)]
    return ColumnShape(
        name=side.name,
        kind="number" if side.levels is None else "category",
        distance=distance(side, 1),
        held_out=distance(side, 2) if len(side.parts) > 2 else None,
        missing=missing[0],
        synthetic_missing=missing[1],
        bars=bars,
        ends=ends,
        shares=shares[0],
        synthetic_shares=shares[1],
        heap=heap,
        heap_share=heap_shares[0],
        synthetic_heap_share=heap_shares[1],
    )


def _level_bars(side: Side, *parts: Array) -> tuple[tuple[str, ...], None, list[Any]]:
    """The commonest levels and the others together, and how many entries of each part there are.

    Numbers are in their order, other levels by how common they are.
    """
    levels: tuple[str, ...] = side.levels or ()
    counts = [np.bincount(part.astype(np.int64), minlength=len(levels)) for part in parts]
    order = np.argsort(-counts[0], kind="stable")
    order = order if len(levels) <= _LEVELS else order[: _LEVELS - 1]
    order = order if side.dtype == "string" else np.sort(order)
    names, shown = [levels[int(i)] for i in order], [c[order] for c in counts]
    if len(order) < len(levels):
        names.append(f"{len(levels) - len(order):,} other levels")
        shown = [np.append(s, c.sum() - s.sum()) for s, c in zip(shown, counts, strict=True)]
    return tuple(names), None, shown


def _bars(side: Side, *parts: Array) -> tuple[tuple[float, ...], tuple[str, str], list[Any]]:
    """Bars from tail to tail of the real entries, and how many entries of each part are there."""
    known = parts[0][np.isfinite(parts[0])]
    known = known if len(known) else np.zeros(1)
    low, high = (float(x) for x in np.quantile(known, [_TAIL, 1 - _TAIL], method="nearest"))
    low, high = (low, high) if low < high else (float(known.min()), float(known.max()))
    if bool((known == np.round(known)).all()) and high - low < 2**50:
        step = np.ceil((high - low + 1) / _BARS)  # as many whole numbers each, or bars would take turns
        edges = low - 0.5 + step * np.arange(np.ceil((high - low + 1) / step) + 1)
    else:
        edges = np.linspace(low, high, _BARS + 1) if low < high else np.array([low, low])
    at = (np.clip(np.searchsorted(edges, part, side="right") - 1, 0, len(edges) - 2) for part in parts)
    ends = side.text(low), side.text(high)
    return tuple(edges.tolist()), ends, [np.bincount(a, minlength=len(edges) - 1) for a in at]


def _pairs(columns: Sequence[Side]) -> tuple[PairTrend, ...]:
    alike, r, s = similarities(columns, 1)
    chance = similarities(columns, 2)[0] if len(columns[0].parts) > 2 else np.full_like(alike, np.nan)
    found = [
        PairTrend(
            columns[i].name,
            columns[j].name,
            float(alike[i, j]),
            *(None if np.isnan(m[i, j]) else float(m[i, j]) for m in (chance, r, s)),
        )
        for i, j in combinations(range(len(columns)), 2)
        if not np.isnan(alike[i, j])
    ]
    return tuple(sorted(found, key=lambda pair: -pair.shortfall))


def _copies(columns: Sequence[Side]) -> Copies:
    rows = [np.stack([side.parts[i] for side in columns], 1) + 0.0 for i in range(len(columns[0].parts))]
    for part in rows:
        part[np.isnan(part)] = np.nan  # of one bit pattern, as zeros are of one sign
    real = {row.tobytes() for row in rows[0]}
    copied = [sum(row.tobytes() in real for row in part) for part in rows[1:]]
    share = [count / len(part) for count, part in zip(copied, rows[1:], strict=True)]
    return Copies(copied[0], share[0], share[1] if len(share) > 1 else None)
