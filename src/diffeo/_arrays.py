"""Arrays as users hand them over, and what to say of those they get."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def unmasked(values: Any) -> np.ndarray:
    """A NumPy array of ``values``; what a mask hides is NaN, as a missing value is anywhere else.

    ``np.asarray`` alone would take the numbers under the mask for data.

    Example:
        >>> unmasked(np.ma.array([1, 90], mask=[False, True]))
        array([ 1., nan])
    """
    if not np.ma.is_masked(values):
        return np.asarray(values)
    return np.ma.filled(np.ma.asarray(values).astype(np.float64), np.nan)


def not_finite(scores: np.ndarray, what: str) -> Iterator[str]:
    """A sentence where scores are -inf, and one where they are NaN: how many of how many ``what``.

    Example:
        >>> list(not_finite(np.array([0.0, -np.inf]), "rows"))
        ['1 of 2 rows scores -inf: outside the support, or too far out for a float.']
    """
    for kind, found, why in (
        ("-inf", np.isneginf(scores), "outside the support, or too far out for a float"),
        ("NaN", np.isnan(scores), "the model's weights are not all numbers, or what was scored is not"),
    ):
        if count := int(found.sum()):
            score = "scores" if count == 1 else "score"
            yield f"{count:,} of {len(scores):,} {what} {score} {kind}: {why}."
