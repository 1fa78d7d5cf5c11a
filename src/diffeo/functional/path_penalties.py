"""Penalties on the paths of a continuous flow, collected from every continuous layer that runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import Tensor

_ACTIVE: ContextVar[PathPenalties | None] = ContextVar("penalties", default=None)


@dataclass
class PathPenalties:
    """Weights of the penalties, and what the layers added inside ``collecting``.

    Args:
        kinetic: weight of the integral of ``|v|^2``.
        jacobian: weight of the integral of the squared Frobenius norm of dv/dx.
        error: weight of the summed squares of the steps' estimated errors.
    """

    kinetic: float = 0.0
    jacobian: float = 0.0
    error: float = 0.0
    rows: list[Tensor] = field(default_factory=list)
    """The weighted costs of every layer, each of the batch's shape."""


@contextmanager
def collecting(penalties: PathPenalties) -> Iterator[PathPenalties]:
    """Layers that run inside this block add their costs to ``penalties``."""
    token = _ACTIVE.set(penalties)
    try:
        yield penalties
    finally:
        _ACTIVE.reset(token)


def active() -> PathPenalties | None:
    """The penalties that are being collected just now, or None."""
    return _ACTIVE.get()
