"""Columns that others decide: copies, other units, totals.

Where one column is a linear function of others, the rows lie on a plane, and no density exists there: a flow
that finds the plane gains nats without limit, and they say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_NEAR, _EXACT = 1e-3, 1e-6
"""What may be left of a column, as a part of its deviation: to be looked at, and beyond rounding."""
_MOST_ROWS = 2000
"""Rows to find a relation on, unless the columns are many; all rows have to obey it."""
_MOST_TERMS = 8
"""Most columns that are named."""


@dataclass(frozen=True)
class Relation:
    """``column = constant + sum of factor * other column``, in every row.

    Example:
        >>> print(Relation("f", 32.0, {"c": 1.8}), Relation("left", 0.0, {"a": 1.0, "b": -1.0}), sep="; ")
        1.8 'c' + 32; 'a' - 'b'
    """

    column: str
    constant: float
    factors: dict[str, float]

    def __str__(self) -> str:
        named = list(self.factors.items())[:_MOST_TERMS]
        terms = [(factor, f"{abs(factor):.6g} {name!r}".removeprefix("1 ")) for name, factor in named]
        if self.constant:
            terms.append((self.constant, f"{abs(self.constant):.6g}"))
        first, *rest = terms
        text = ("-" if first[0] < 0 else "") + first[1]
        text += "".join(f" {'-' if sign < 0 else '+'} {term}" for sign, term in rest)
        more = len(self.factors) - len(named)
        return text + (f" + {more} more terms" if more else "")


def relations(names: Sequence[str], values: Array, eps: Array | float = 2.2e-16) -> list[Relation]:
    """Each column that those before it decide, in every row; columns that do not vary have no part.

    Args:
        names: of the columns.
        values: finite numbers, ``(rows, columns)``; no more than rows decide each other by chance only, so
            columns beyond half the number of rows are not looked at.
        eps: the relative precision that the values, or each column's, were stored with.

    Example:
        >>> c = np.random.default_rng(0).normal(size=100)
        >>> {found.column: str(found) for found in relations(["c", "f"], np.stack([c, 1.8 * c + 32], 1))}
        {'f': "1.8 'c' + 32"}
    """
    size = np.maximum(np.abs(values).max(0, initial=0), 1e-300)  # in whose units nothing overflows
    rows = np.linspace(0, len(values) - 1, min(max(_MOST_ROWS, 2 * len(size)), len(values))).astype(int)
    some = values[rows] / size
    varied = np.flatnonzero(some.max(0, initial=-1) - some.min(0, initial=1) > 1e-12)
    varied = varied[: max(0, len(values) // 2 - 1)]
    if not len(varied):
        return []
    some, size = some[:, varied], size[varied]
    rounding = np.broadcast_to(eps, values.shape[1:])[varied]
    middle, spread = some.mean(0), some.std(0)
    x = (some - middle) / spread
    basis = np.empty((len(varied) + 1, len(x)))
    basis[0] = 1 / np.sqrt(len(x))
    free: list[int] = []
    found: list[Relation] = []
    for j in range(len(varied)):
        known, rest = basis[: len(free) + 1], x[:, j]
        for _ in range(2):  # once more, for what rounding left
            rest = rest - (known @ rest) @ known
        left = float(np.linalg.norm(rest))
        if left < _NEAR * np.sqrt(len(x)):
            factors = np.linalg.lstsq(x[:, free], x[:, j], rcond=None)[0] * spread[j] / spread[free]
            constant = float(middle[j] - factors @ middle[free])
            said = (values[:, varied[free]] / size[free]) @ factors + constant
            off = np.abs(values[:, varied[j]] / size[j] - said).max()
            if off <= _EXACT * spread[j] + 2 * (rounding[j] + np.abs(factors) @ rounding[free]):
                matter = np.abs(factors) * spread[free] > _NEAR * spread[j]
                terms = {
                    names[int(varied[i])]: float(factor * size[j] / size[i])
                    for i, factor, part in zip(free, factors, matter, strict=True)
                    if part
                }
                constant = constant * size[j] if abs(constant) > _NEAR * spread[j] else 0.0
                found.append(Relation(names[int(varied[j])], float(constant), terms))
                continue
        basis[len(free) + 1] = rest / max(left, 1e-300)
        free.append(j)
    return found
