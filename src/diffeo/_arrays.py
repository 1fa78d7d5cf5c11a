"""Arrays as users hand them over: what a mask hides is missing, whatever stands under it."""

from __future__ import annotations

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
