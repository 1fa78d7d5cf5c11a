"""From a table's columns to cells: what levels, atoms and scales a column has.

Which values there are comes from all rows, how the numbers between lie from training rows only, as ``Schema``
has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffeo.encodings.cell_kinds import Level, Levels, Numbers
from diffeo.encodings.column_kind import Kind
from diffeo.encodings.kinds import Continuous, Grid, Integer, Positive
from diffeo.tables.lattices import Tally

Array = NDArray[np.float64]

MOST_CELLS = 256
"""Most levels, or atoms, of a column that have cells of their own."""
RARE = 5
"""Rows below which a level has no cell of its own, unless all levels are few."""
_REPEATED, _SHARE = 10, 1e-3
"""Rows, and the share of the rows, from which a value is an atom."""
_FEW = 20
"""Levels that all have cells, however rare."""
_KNOTS, _ROWS_A_KNOT = 128, 20
"""Most knots of a scale, and training rows for each."""
_ENOUGH = 200
"""Numbers beside the atoms from which they alone make the scale."""


@dataclass(frozen=True)
class Category:
    """What a column holds that is not a number to count with: text, truth, codes."""

    width = 1

    def __str__(self) -> str:
        return "category"


def tallied(column: Any) -> tuple[list[Level], np.ndarray, int]:
    """A column's distinct values, the most frequent first, in how many rows each is, and the gaps."""
    if isinstance(column, np.ndarray):
        unique, counts = np.unique(column, return_counts=True)
        values, gaps = unique.tolist(), 0
    else:
        import pyarrow.compute as pc
        from pyarrow import types

        flat = column.cast(column.type.value_type) if types.is_dictionary(column.type) else column
        found = pc.call_function("value_counts", [flat.drop_null()])
        values, counts = found.field("values").to_pylist(), np.asarray(found.field("counts"))
        gaps = int(column.null_count)
    order = sorted(range(len(values)), key=lambda i: (-int(counts[i]), str(values[i])))
    return [values[i] for i in order], counts[order].astype(np.int64), gaps


def pooled(counts: np.ndarray) -> int:
    """How many of the levels, the most frequent first, share one cell: none, or at least two."""
    kept = len(counts) if len(counts) <= _FEW else min(int((counts >= RARE).sum()), MOST_CELLS)
    return len(counts) - kept if len(counts) - kept > 1 else 0


def atoms(tally: Tally) -> tuple[float, ...]:
    """The values of a column of numbers that have a mass of their own, rising."""
    least = max(_REPEATED, _SHARE * tally.rows)
    often = np.flatnonzero(tally.counts >= least)
    if len(often) > MOST_CELLS:
        often = np.sort(often[np.argsort(-tally.counts[often], kind="stable")[:MOST_CELLS]])
    return tuple(tally.unique[often].tolist())


def category(name: str, dtype: str, values: list[Level], counts: np.ndarray, gaps: int) -> Levels:
    """The levels of a category, from all rows."""
    shares = counts[len(counts) - pooled(counts) :]
    return Levels(name, dtype, gaps > 0, tuple(values), tuple((shares / max(1, shares.sum())).tolist()))


def number(
    name: str,
    dtype: str,
    kind: Kind,
    masses: tuple[float, ...],
    gaps: bool,
    rows: Array,
    seen: tuple[float, float],
) -> Numbers:
    """A column of numbers on the scale of its training rows.

    Args:
        name: of the column.
        dtype: what it is stored in.
        kind: what it holds, atoms aside.
        masses: its atoms.
        gaps: whether entries may be missing.
        rows: training rows' numbers, complete.
        seen: the outermost numbers of all rows.
    """
    apart = rows[~np.isin(rows, masses)] if masses else rows
    rest = apart if len(apart) >= _ENOUGH or not len(rows) else rows
    step = offset = 0.0
    low, high = -math.inf, math.inf
    own: Kind = kind
    if isinstance(kind, Grid):
        step, offset, own = kind.step, kind.offset, Continuous()
        if isinstance(kind, Integer):
            low, high = (e if abs(e) < 2**53 else math.copysign(math.inf, e) for e in kind.support)
    elif isinstance(kind, Continuous) and len(apart) and float(apart.min()) > 0:
        own = Positive()
        rest = rest[rest > 0]
    real = own.encode(torch.from_numpy(np.ascontiguousarray(rest)).unsqueeze(-1), None, 0.0)[0][
        ..., 0
    ].numpy()
    return Numbers(name, dtype, gaps, own, masses, _scale(real, step), step, offset, low, high, seen)


def _scale(real: Array, step: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Knots that make numbers about normal: their quantiles, at the quantiles of a normal."""
    n = len(real)
    shares = np.linspace(0, 1, int(np.clip(n // _ROWS_A_KNOT, 8, _KNOTS)) + 1)
    if n:
        x = np.quantile(real, shares)
        z = torch.special.ndtri(torch.from_numpy(shares.clip(0.5 / n, 1 - 0.5 / n))).numpy()
        x, at = np.unique(x, return_inverse=True)
        z = np.bincount(at, z) / np.bincount(at)
        apart = np.r_[True, np.diff(x) > 1e-9 * (1 + np.abs(x[1:]))]
        x, z = x[apart], z[apart]
        if len(x) > 2:
            x[0], x[-1] = x[0] - step / 2, x[-1] + step / 2
            return tuple(x.tolist()), tuple(z.tolist())
    middle = float(real.mean()) if n else 0.0
    spread = max(float(real.std()) if n else 0.0, step, 1e-6 * (1 + abs(middle)))
    return (middle - 2 * spread, middle, middle + 2 * spread), (-2.0, 0.0, 2.0)
