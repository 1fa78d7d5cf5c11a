"""Finding the regular grid that repeated values lie on."""

from __future__ import annotations

import numpy as np

_RESOLVED = 0.05
"""A grid counts as seen when rounding moves a value by less than this part of a step."""
_SLACK = 5e-7
"""How far off its place a value may lie, in steps, beyond rounding: sums and products of decimals do."""


def repeated_share(values: np.ndarray) -> float:
    """The share of rows whose value some other row has too."""
    _, counts = np.unique(values, return_counts=True)
    return float(counts[counts > 1].sum() / max(1, len(values)))


def find_grid(values: np.ndarray, eps: float) -> tuple[float, float] | None:
    """The ``(step, offset)`` with every value at ``offset + step * k``, or None.

    Decimal grids are tried first, 1 to 1e-9; then any other. ``eps`` is the relative precision the
    values were stored with: a grid too fine to be told from rounding is none.

    Example:
        >>> find_grid(np.array([0.1, 0.3, 0.25, 0.7]), 2.2e-16)
        (0.05, 0.0)
    """
    unique = np.unique(values)
    if len(unique) < 2:
        return None
    error = 2 * eps * float(np.abs(unique).max()) + 1e-300
    for power in (10.0**d for d in range(10)):
        if error * power > _RESOLVED:
            break
        scaled = unique * power
        whole = np.round(scaled)
        if np.abs(whole).max() < 2**53 and np.abs(scaled - whole).max() <= max(2 * error * power, _SLACK):
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
