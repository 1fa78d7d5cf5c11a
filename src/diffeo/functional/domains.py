"""Domains: torch constraints read as intervals.

The ends of an interval are numbers, or tensors with one number a column (the event's last axis).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import constraints

_INTERVALS = (constraints.interval, constraints.half_open_interval)
_ABOVE = (*_INTERVALS, constraints.greater_than, constraints.greater_than_eq)
_BELOW = (*_INTERVALS, constraints.less_than)


def bounds(constraint: constraints.Constraint) -> tuple[float | Tensor, float | Tensor]:
    """The interval ``(low, high)`` of an elementwise constraint; the whole line for any that has no ends."""
    low = constraint.lower_bound if isinstance(constraint, _ABOVE) else -math.inf
    high = constraint.upper_bound if isinstance(constraint, _BELOW) else math.inf
    return low, high


def by_column(parts: Sequence[constraints.Constraint]) -> constraints.Constraint:
    """One constraint for a vector from one for each of its columns.

    Example:
        >>> ends = by_column([constraints.real, constraints.unit_interval])
        >>> ends.lower_bound, ends.upper_bound
        (tensor([-inf, 0.], dtype=torch.float64), tensor([inf, 1.], dtype=torch.float64))
    """
    if all(same_interval(parts[0], part) for part in parts):
        return parts[0]
    ends = [[float(end) for end in bounds(part)] for part in parts]
    low, high = torch.tensor(ends, dtype=torch.float64).T
    return constraints.interval(low, high)


def columns_of(constraint: constraints.Constraint, features: int) -> list[constraints.Constraint]:
    """``by_column`` undone: the constraint of each of ``features`` columns."""
    low, high = bounds(constraint)
    if not isinstance(low, Tensor) and not isinstance(high, Tensor):
        return [constraint] * features
    ends = (torch.as_tensor(end).expand(features).tolist() for end in (low, high))
    return [constraints.interval(a, b) for a, b in zip(*ends, strict=True)]


def same_interval(a: constraints.Constraint, b: constraints.Constraint) -> bool:
    """Whether two elementwise constraints bound the same interval, up to float32's precision."""
    ends = [torch.as_tensor(end, dtype=torch.float32) for pair in (bounds(a), bounds(b)) for end in pair]
    if len({tuple(end.shape) for end in ends if end.dim()}) > 1:
        return False  # of vectors of different lengths
    low_a, high_a, low_b, high_b = torch.broadcast_tensors(*ends)
    return torch.equal(low_a, low_b) and torch.equal(high_a, high_b)


def describe(constraint: constraints.Constraint) -> str:
    """The interval as text, for messages."""
    low, high = bounds(constraint)
    if isinstance(low, Tensor) and low.dim():
        parts = columns_of(constraint, len(low))
        return ", ".join(f"{describe(part)} in column {i}" for i, part in enumerate(parts))
    return f"({low:g}, {high:g})" if (low, high) != (-math.inf, math.inf) else "the whole line"
