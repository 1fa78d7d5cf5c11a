"""How far two tables' columns and pairs of columns are apart; the definitions are those of ``sdmetrics``.

Part 0 of a ``Side`` is the real table and another part what is held against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from diffeo.tables.sides import Array, Side

BINS = 10
"""Bins of a number beside a category: equal ones between the real table's ends, the outer ones open."""
_FLAT = 1e-10
"""Variance, of standardized columns, below which the rows that two columns share are constant."""
_MOST_CELLS = 2_000_000


def distance(side: Side, part: int) -> float:
    """The Kolmogorov-Smirnov distance of numbers, the total variation distance of categories, in [0, 1].

    Of the entries that are there. Where one table has none, 1; where neither has, 0.
    """
    real, other = (side.parts[i][~np.isnan(side.parts[i])] for i in (0, part))
    if not len(real) or not len(other):
        return float(len(real) != len(other))
    if side.levels is None:
        return kolmogorov_smirnov(real, other)
    return _variation(real.astype(np.int64), other.astype(np.int64), len(side.levels))


def kolmogorov_smirnov(one: Array, other: Array) -> float:
    """The largest difference of two samples' distribution functions.

    Example:
        >>> kolmogorov_smirnov(np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.0, 9.0]))
        0.5
    """
    one, other = np.sort(one), np.sort(other)
    at = np.concatenate([one, other])
    below = (np.searchsorted(sample, at, side="right") / len(sample) for sample in (one, other))
    return float(np.abs(np.subtract(*below)).max())


def similarities(columns: Sequence[Side], part: int) -> tuple[Array, Array, Array]:
    """How alike each pair of columns goes together, in [0, 1]; and the correlations of both tables.

    Two numbers: ``1 - |r - s| / 2`` with Pearson's correlations r and s over the rows that have both; s is 0
    where the other table's are constant. Else: 1 less the total variation distance of the table of counts, a
    missing entry being a level of its own, and numbers taken in ten equal bins of the real range.

    NaN on the diagonal and where the real correlation is undefined; correlations of pairs of numbers only.
    """
    d = len(columns)
    alike, real, other = (np.full((d, d), np.nan) for _ in range(3))
    numbers = [i for i, side in enumerate(columns) if side.levels is None]
    if numbers:
        r, s = (_correlations(np.stack([columns[i].parts[p] for i in numbers], 1)) for p in (0, part))
        block = np.ix_(numbers, numbers)
        real[block], other[block] = r, s
        alike[block] = 1 - np.abs(r - np.nan_to_num(s)) / 2
    coded = [_coded(side, part) for side in columns]
    for i, j in combinations(range(d), 2):
        if columns[i].levels is not None or columns[j].levels is not None:
            (a, b, height), (u, v, width) = coded[i], coded[j]
            found = 1 - _variation(a * width + u, b * width + v, height * width)
            alike[i, j] = alike[j, i] = found
    for matrix in (alike, real, other):
        np.fill_diagonal(matrix, np.nan)
    return alike, real, other


def _correlations(x: Array) -> Array:
    """Pearson's correlation of every two columns over the rows that have both; NaN where one is constant."""
    present = ~np.isnan(x)
    counts = np.maximum(present.sum(0), 1)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite entries, whose correlation is undefined
        largest = np.nanmax(np.abs(np.where(present, x, 0)), 0)
        x = np.where(present, x, 0) / np.where(largest > 0, largest, 1)
        x = np.where(present, x - x.sum(0) / counts, 0)
        deviation = np.sqrt((x**2).sum(0) / counts)
        x = np.where(deviation > 0, x / np.where(deviation > 0, deviation, 1), 0)
        m = present.astype(np.float64)
        n = np.maximum(m.T @ m, 1)
        mean = x.T @ m / n  # of each column, over the rows in which the other is there
        variance = (x**2).T @ m / n - mean**2
        covariance = x.T @ x / n - mean * mean.T
        flat = ~(variance > _FLAT) | ~(variance.T > _FLAT)
        found = covariance / np.sqrt(np.where(flat, 1, variance * variance.T))
    return np.where(flat, np.nan, np.clip(found, -1, 1))


def _coded(side: Side, part: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """The real and the other column as codes from 0, the last for what is missing; and how many there are."""
    real, other = side.parts[0], side.parts[part]
    if side.levels is not None:
        count = len(side.levels)
        codes = [np.where(np.isnan(p), count, p).astype(np.int64) for p in (real, other)]
        return codes[0], codes[1], count + 1
    known = real[np.isfinite(real)]
    inner = np.linspace(known.min(), known.max(), BINS + 1)[1:-1] if len(known) else np.zeros(BINS - 1)
    codes = [np.where(np.isnan(p), BINS, np.searchsorted(inner, p, side="right")) for p in (real, other)]
    return codes[0], codes[1], BINS + 1


def _variation(one: NDArray[np.int64], other: NDArray[np.int64], cells: int) -> float:
    """The total variation distance of two samples of cells."""
    if cells > _MOST_CELLS:
        _, found = np.unique(np.concatenate([one, other]), return_inverse=True)
        one, other, cells = found[: len(one)], found[len(one) :], int(found.max()) + 1
    shares = (np.bincount(sample, minlength=cells) / len(sample) for sample in (one, other))
    return float(np.abs(np.subtract(*shares)).sum() / 2)
