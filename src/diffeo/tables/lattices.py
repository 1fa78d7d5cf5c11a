"""Finding the regular grid that repeated values lie on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_RESOLVED = 0.05
"""A grid counts as seen when rounding moves a value by less than this part of a step."""
_SLACK = 5e-7
"""How far off its place a value may lie, in steps, beyond rounding: sums and products of decimals do."""
_ROUNDINGS = 1024 * 2.2e-16
"""Sums and products in float64 may have parted one value by so much of the largest of its column."""


@dataclass(frozen=True)
class Tally:
    """A column's distinct values, ascending, and in how many rows each stands.

    Example:
        >>> Tally.of(np.array([3.0, 1.0, 3.0])).repeated
        0.6666666666666666
    """

    unique: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Tally:
        """The tally of a column."""
        return cls(*np.unique(values, return_counts=True))

    @cached_property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.counts.sum())

    @cached_property
    def repeated(self) -> float:
        """The share of rows whose value some other row has too."""
        return float(self.counts[self.counts > 1].sum() / max(1, self.rows))

    def share(self, at: int) -> str:
        """How many rows have one of the values exactly, in words."""
        return f"{self.counts[at] / self.rows:.0%} of rows are exactly {self.unique[at]:.6g}"


def find_grid(values: np.ndarray, eps: float) -> tuple[float, float] | None:
    """The ``(step, offset)`` with every value at ``offset + step * k``, or None.

    Decimal grids are tried first, nine decimals from the unit, or from the leading digit of numbers below 1;
    then any other. ``eps`` is the relative precision the values were stored with: a grid too fine to be told
    from rounding is none, and distinct values stay distinct.

    Example:
        >>> find_grid(np.array([0.1, 0.3, 0.25, 0.7]), 2.2e-16)
        (0.05, 0.0)
    """
    unique = np.unique(values)
    if len(unique) < 2:
        return None
    size = float(np.abs(unique).max())
    error = 2 * eps * size + 5e-324
    if not math.isfinite(float(unique[-1]) - float(unique[0])):
        return None
    # a computation errs by the size of its terms, storage by that of the value
    apart = np.diff(unique) > _ROUNDINGS * size + 2 * eps * np.abs(unique[1:])
    first = max(0, -math.floor(math.log10(size)))
    for power in (10.0**d for d in range(min(first + 10, 308))):
        if error * power > _RESOLVED:
            break
        scaled = unique * power
        whole = np.round(scaled)
        if np.abs(whole).max() >= 2**53 or (np.diff(whole) == 0)[apart].any():
            continue
        if np.abs(scaled - whole).max() <= max(2 * error * power, _SLACK):
            return _coarsest(whole.astype(np.int64), power)
    return _free_grid(unique, error)


def _coarsest(whole: np.ndarray, power: float) -> tuple[float, float]:
    """Integers over ``power``: the largest common step, if it is there by more than chance."""
    step = int(np.gcd.reduce(np.diff(whole)))
    # n random numbers share a divisor g with probability g^-(n - 1)
    while step > 1 and (len(whole) - 2) * np.log(step) < np.log(20):
        step = 1 if step % 10 else step // 10
    return step / power, int(whole[0] % step) / power


def _free_grid(unique: np.ndarray, error: float) -> tuple[float, float] | None:
    """Any step: the greatest common divisor of the distances, by Euclid with a tolerance."""
    distances = unique - unique[0]
    step = float(np.diff(unique).min())
    for _ in range(64):
        if step * _RESOLVED < 4 * error:
            return None  # no coarser than rounding itself
        tolerance = max(4 * error, _SLACK * step)
        k = np.round(distances / step)
        off = np.abs(distances - step * k)
        # the step is known to error / k only, so refine it before judging the far values
        refined = float(distances @ k / (k @ k))
        if np.abs(distances - refined * k).max() <= tolerance:
            return refined, float(unique[0])
        near = off[off > tolerance]
        if not len(near):
            return None
        step = float(near.min())
    return None


def odd_rows(tally: Tally, step: float, offset: float) -> tuple[int, float]:
    """How many rows alone force a grid this fine, and the coarser step of all the others; (0, step) if none.

    A few such rows smear all the others over the cells between. No more than 1% count as few, and no more
    than 5% of the others but for their most common value, which lies on any grid.
    """
    k = np.round((tally.unique - offset) / step).astype(np.int64)
    found = 0, 1
    for times in (2, 3, 4, 5, 8, 10, 12, 20, 25, 50, 100, 1000, 10_000, 100_000, 1_000_000):
        place, inverse = np.unique(k % times, return_inverse=True)
        rows = np.bincount(inverse, tally.counts, len(place))
        others = tally.counts[inverse == rows.argmax()]
        odd = tally.rows - int(others.sum())
        spread = int(others.sum() - others.max())
        if 0 < odd <= min(0.01 * tally.rows, 0.05 * spread):
            found = odd, times
    return found[0], step * found[1]


_NEAR = 5
"""Distinct values on each side of a gap that tell how many rows to expect in it."""


def gaps(tally: Tally, step: float) -> np.ndarray:
    """Whether between each distinct value and the next lies a gap that is not by chance.

    A smooth density would leave in each empty cell about as many rows as in the cells beside: the fewer of
    those from the five values before to the gap, and from it to the five after. It would leave all m of them
    empty with probability ``exp(-m * rows)``; below one in twenty over all gaps counts.
    """
    place = np.round((tally.unique - tally.unique[0]) / step)
    rows = np.r_[0, np.cumsum(tally.counts)]
    last = len(place) - 1
    left, right = np.arange(last), np.arange(1, last + 1)
    first, end = np.maximum(left - _NEAR + 1, 0), np.minimum(right + _NEAR - 1, last)
    before = (rows[left + 1] - rows[first]) / (place[left] - place[first] + 1)
    after = (rows[end + 1] - rows[right]) / (place[end] - place[right] + 1)
    return (np.diff(place) - 1) * np.minimum(before, after) > math.log(20 * len(place))


def looks_like_codes(tally: Tally, step: float) -> bool:
    """Whether most rows stand beside a gap of their grid that is not by chance."""
    gap = gaps(tally, step)
    beside = np.r_[False, gap] | np.r_[gap, False]
    return tally.counts[beside].sum() > 0.5 * tally.rows


def sharp_ends(tally: Tally) -> tuple[bool, bool]:
    """Whether whole numbers stop at their lowest and at their highest though more would be expected beyond.

    Falling on from the last two values, ``rows^2 / rows of the one before`` more are expected; none are found
    by chance, more than three times in a hundred, only where these are at most three or so.
    """

    def sharp(last: int, inward: int) -> bool:
        rows = int(tally.counts[last])
        before = int(tally.counts[inward]) if abs(tally.unique[last] - tally.unique[inward]) == 1 else 0
        return rows * min(1.0, rows / max(before, 1)) > math.log(30)

    return sharp(0, 1), sharp(-1, -2)
