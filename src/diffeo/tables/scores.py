"""Scores of a table's rows under a fitted flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffeo.encodings import Dequantization
from diffeo.encodings.columns import Columns, delta_method
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.tables.table import Table


@dataclass(frozen=True)
class Scores:
    """Log-likelihoods of rows, in nats and the data's own units.

    Args:
        log_prob: log-density; a log mass in integer and lattice columns; -inf outside the support.
        quantile: the share of the training rows that scored lower; None for a flow ``fit_table`` did not fit.
        standard_error: of ``log_prob`` over the dequantization draws; None where it is exact.
    """

    log_prob: np.ndarray
    quantile: np.ndarray | None
    standard_error: np.ndarray | None

    def table(self) -> Table:
        """What there is of them, a column each."""
        columns = {name: getattr(self, name) for name in ("log_prob", "quantile", "standard_error")}
        return Table.unchecked({name: column for name, column in columns.items() if column is not None})


def table_encoding(flow: Flow) -> Columns:
    """The flow's encoding of table columns; a ``ConfigError`` where it has none."""
    if isinstance(flow.encoding, Dequantization):
        raise ConfigError(
            "this model was fitted to images, not to a table; use score_images and sample_images."
        )
    if not isinstance(flow.encoding, Columns):
        raise ConfigError(
            "this flow was not fitted to a table, so it knows no columns; use log_prob and sample."
        )
    return flow.encoding


def inputs(flow: Flow, table: Table) -> tuple[Tensor, Tensor | None]:
    """The flow's columns of ``table``, by name, as float64 rows and a context (or None)."""
    encoding = table_encoding(flow)
    rows = torch.from_numpy(table.select(encoding.names).values)
    return rows, context_of(flow, table)


def context_of(flow: Flow, table: Table) -> Tensor | None:
    """The columns the flow is conditioned on, in its order and dtype; None where it has none."""
    encoding = table_encoding(flow)
    if not encoding.given:
        return None
    return torch.from_numpy(table.select(encoding.given).values)


@torch.no_grad()
def log_prob_with_error(flow: Flow, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Log-likelihood of rows ``(rows, columns)`` and its standard error over the K draws.

    ``log 1/K sum_k w_k`` with ``w_k`` the density times the cell at draw k, and by the delta method
    ``sd(w) / (mean(w) sqrt(K))``; exact encodings have error 0.
    """
    return delta_method(flow.draws(x, context))


@torch.no_grad()
def score_table(flow: Flow, table: Any, *, chunk: int = 65_536) -> Scores:
    """Score every row of ``table``, ``chunk`` encoded rows at a time; other columns are ignored.

    The flow is scored in evaluation mode, deterministically, and left in the mode it was in.

    Args:
        flow: fitted to a table.
        table: a ``Table``, a path to one, a mapping of columns, a DataFrame or a 2-D array. What a column
            holds that the flow does not know is of no matter.
        chunk: encoded rows scored at a time.

    Raises:
        DataError: when the table lacks a column the flow knows.
    """
    encoding = table_encoding(flow)
    rows, context = inputs(flow, Table.of(table, only=[*encoding.names, *encoding.given]))
    step = max(1, chunk if encoding.exact else chunk // encoding.draws)
    training = flow.training
    flow.eval()
    try:
        parts = [
            log_prob_with_error(flow, rows[i : i + step], None if context is None else context[i : i + step])
            for i in range(0, len(rows), step)
        ]
    finally:
        flow.train(training)
    log_prob, error = (torch.cat(p).double().numpy() for p in zip(*parts, strict=True))
    quantile = None if encoding.score_quantiles is None else encoding.quantile(log_prob)
    return Scores(log_prob, quantile, None if encoding.exact else error)
