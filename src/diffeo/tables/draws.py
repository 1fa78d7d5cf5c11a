"""Whether a flow's draws look like rows that it did not see: spread, ends and relations.

A likelihood hides what draws show: a few draws thrown far, a heap smeared, a narrow relation blurred. Each
question here is answered as the exchange of rows and draws would have it, and asked only where the answer is
sure: once in a thousand fits of the right law would one be accused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_CHANCE = 1e-3
"""How often all questions of a table together may accuse draws of the right law."""
_FACTOR = 1.5
"""A spread that differs by less is not spoken of, however sure."""
_MOST_COLUMNS = 30
"""Relations are looked at among so many columns."""
_BINS = 20
_ENOUGH = 20
"""Held-out rows from which a spread says anything."""


def doubts(names: tuple[str, ...], seen: Array, held_out: Array, drawn: Array) -> list[str]:
    """What a flow's draws have otherwise than the rows, a sentence each; nothing for draws of the right law.

    Args:
        names: of the columns.
        seen: training rows, ``(rows, columns)``.
        held_out: other rows of the same law.
        drawn: of the flow.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> a, b, c = (rng.normal(size=(n, 1)) for n in (900, 100, 1000))
        >>> doubts(("x",), a, b, c)
        []
        >>> doubts(("x",), a, b, 3 * c)[-1]
        "column 'x': the draws' deviation is 3.07, that of the held-out rows 0.976."
    """
    found: list[str] = []
    chance = _CHANCE / (5 * len(names))
    rows = np.concatenate([seen, held_out])
    for j, name in enumerate(names):
        if np.ptp(rows[:, j]) > 0:
            found += _ends(name, rows[:, j], drawn[:, j], chance)
            what = f"column {name!r}: the draws' deviation"
            found += _spread(what, rows[:, j], held_out[:, j], drawn[:, j])
    if 1 < len(names) <= _MOST_COLUMNS:
        found += _relations(names, seen, held_out, drawn)
    return found


def _beyond(rows: int, draws: int, chance: float) -> float:
    """More draws beyond all rows than this come by chance with this probability: ``(m / (n + m))^k``."""
    return math.log(chance) / math.log(draws / (rows + draws))


def _ends(name: str, rows: Array, drawn: Array, chance: float) -> Iterator[str]:
    middle, spread = float(np.median(rows)), float(rows.std())
    most = _beyond(len(rows), len(drawn), chance)
    for side, word, least in ((1.0, "above", "highest"), (-1.0, "below", "lowest")):
        x, y = side * (rows - middle), side * (drawn - middle)
        end, far = float(x.max()), float(y.max())
        reach = max(end, spread)  # the median may be the outermost row
        # a tail of 1/x, the heaviest with which a table is of any use, is so seldom thrown further
        if far > 1000 * max(1.0, len(drawn) / len(rows)) * reach:
            yield (
                f"column {name!r}: a draw lies at {middle + side * far:.6g}, the {least} of {len(rows):,} "
                f"rows at {middle + side * end:.6g}."
            )
            continue
        signed = side < 0 <= rows.min() or side > 0 >= rows.max()
        beyond = drawn * side > 0 if signed else y > end + 0.1 * spread
        if beyond.sum() > max(most, 0.01 * len(drawn) if signed else 0.005 * len(drawn)):
            limit = 0.0 if signed else middle + side * end
            share = f"{beyond.mean():.1%} of the draws lie"
            yield f"column {name!r}: {share} {word} {limit:.6g}, but no row does."


def _spread(what: str, rows: Array, held_out: Array, drawn: Array) -> Iterator[str]:
    if len(held_out) < _ENOUGH:
        return
    size = max(float(np.abs(rows).max()), float(np.abs(drawn).max()), 1e-300)
    # their fourth powers must not overflow
    rows, held_out, drawn = rows / size, held_out / size, drawn / size
    known, found = float(held_out.std()), float(drawn.std())
    if not known > 0 or not found > 0:
        return
    centered = rows - rows.mean()
    kurtosis = float((centered**4).mean() / max((centered**2).mean() ** 2, 1e-300))
    # few held-out rows may miss a rare value, which all rows have: both have to say so
    off = [math.log(found / each) for each in (known, float(rows.std()))]
    # of the logarithm of a deviation, by the rows' own fourth moment
    error = 0.5 * math.sqrt(max(kurtosis - 1, 0.5) * (1 / len(held_out) + 1 / len(drawn)))
    least = max(4.5 * error, math.log(_FACTOR))
    if min(off) > least or max(off) < -least:
        yield f"{what} is {found * size:.3g}, that of the held-out rows {known * size:.3g}."


def _relations(names: tuple[str, ...], seen: Array, held_out: Array, drawn: Array) -> Iterator[str]:
    """The spread of each column around what its best other column says of it."""
    some = seen[:: max(1, len(seen) // 1000)]  # enough to choose by
    for j, name in enumerate(names):
        best, partner = 0.7 * float(some[:, j].std()), -1  # a weaker relation is not worth a word
        for i in range(len(names)):
            if i != j and np.ptp(some[:, i]) > 0:
                left = _Curve(some[:, i], some[:, j]).residuals(some[:, i], some[:, j]).std()
                best, partner = (float(left), i) if left < best else (best, partner)
        if partner < 0 or not best > 0:
            continue
        curve = _Curve(seen[:, partner], seen[:, j])
        # where the curve is known: between the outermost of its points
        low, high = curve.x[0], curve.x[-1]
        parts = [t[(t[:, partner] >= low) & (t[:, partner] <= high)] for t in (seen, held_out, drawn)]
        left = [curve.residuals(t[:, partner], t[:, j]) for t in parts]
        if all(map(len, left)):
            what = f"columns {names[partner]!r} and {name!r}: around their relation the draws' deviation"
            yield from _spread(what, np.concatenate(left[:2]), left[1], left[2])


class _Curve:
    """A column's median in bins of another, joined by lines."""

    def __init__(self, x: Array, y: Array):
        order = np.argsort(x, kind="stable")
        bins = np.array_split(order, min(_BINS, max(1, len(x) // 10)))
        points = {float(np.median(x[part])): float(np.median(y[part])) for part in bins}
        self.x, self.y = np.array(sorted(points)), np.array([points[at] for at in sorted(points)])

    def residuals(self, x: Array, y: Array) -> Array:
        return y - np.interp(x, self.x, self.y)
