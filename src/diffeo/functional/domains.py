"""Domains: torch constraints read as intervals."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import constraints


def bounds(constraint: constraints.Constraint) -> tuple[float | Tensor, float | Tensor]:
    """The interval ``(low, high)`` of an elementwise constraint."""
    low = getattr(constraint, "lower_bound", -math.inf)
    high = getattr(constraint, "upper_bound", math.inf)
    return low, high


def same_interval(a: constraints.Constraint, b: constraints.Constraint) -> bool:
    """Whether two elementwise constraints bound the same interval."""
    return all(
        torch.equal(*torch.broadcast_tensors(torch.as_tensor(p), torch.as_tensor(q)))
        for p, q in zip(bounds(a), bounds(b), strict=True)
    )


def describe(constraint: constraints.Constraint) -> str:
    """The interval as text, for messages."""
    low, high = bounds(constraint)
    return f"({low}, {high})" if (low, high) != (-math.inf, math.inf) else "the whole line"
