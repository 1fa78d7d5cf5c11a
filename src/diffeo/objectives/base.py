"""The contract of an objective, and the batch of rows that it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from diffeo.flow import Flow


@dataclass(frozen=True)
class Batch:
    """Rows for one step. ``rows`` are their numbers in the data handed to ``fit``."""

    x: Tensor
    context: Tensor | None
    weights: Tensor | None
    rows: Tensor


class Objective(Protocol):
    """Gives the loss of a batch, a scalar to minimize; its negative is reported, in nats."""

    def __call__(self, flow: Flow, batch: Batch) -> Tensor: ...


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """The mean over rows, each as often as its weight says."""
    return values.mean() if weights is None else (weights * values).sum() / weights.sum()
