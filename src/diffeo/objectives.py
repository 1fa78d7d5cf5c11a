"""Objectives: what the one training loop minimizes."""

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


@dataclass(frozen=True)
class Likelihood:
    """Maximum likelihood: ``-sum_i w_i log p(x_i | c_i) / sum_i w_i``, in nats a row.

    Example:
        >>> import torch, diffeo
        >>> flow = diffeo.presets.MAF(features=2).build()
        >>> batch = Batch(torch.zeros(4, 2), None, None, torch.arange(4))
        >>> round(Likelihood()(flow, batch).item(), 3)
        1.838
    """

    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        log_prob = flow(batch.x, batch.context)
        if batch.weights is None:
            return -log_prob.mean()
        return -(batch.weights * log_prob).sum() / batch.weights.sum()
