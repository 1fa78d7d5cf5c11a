"""What a solve costs, gathered from wherever in a flow a continuous layer stands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import Tensor

_ACTIVE: ContextVar[Effort | None] = ContextVar("effort", default=None)


@dataclass
class Effort:
    """Weights of what is to be gathered, and what the layers added while it was ``gathered``.

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
def gathered(effort: Effort) -> Iterator[Effort]:
    """Layers that run inside this block add their costs to ``effort``."""
    token = _ACTIVE.set(effort)
    try:
        yield effort
    finally:
        _ACTIVE.reset(token)


def active() -> Effort | None:
    """Where the layers' costs go just now; None where nobody asks."""
    return _ACTIVE.get()
