"""Scores of a table's rows under a fitted flow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from diffeo._arrays import not_finite
from diffeo.encodings import Cells
from diffeo.encodings.cell_kinds import CellKind, Numbers
from diffeo.encodings.column_kind import Kind
from diffeo.encodings.columns import Column, Columns, delta_method
from diffeo.encodings.kinds import Lattice
from diffeo.errors import ConfigError, DataError
from diffeo.flow import Flow, in_parts
from diffeo.tables.table import Table
from diffeo.tables.tensors import table_encoding, to_context, to_rows

SCORE_QUANTILES = "score quantiles"
"""Where the notes of older flows have the quantiles of their training rows' log-likelihood."""
HELD_OUT_SCORES = "held-out scores"
"""Where a flow's notes have how many held-out rows were scored, and the scores, the lowest first."""
_LEVELS, _DECIMALS, _HUGE = 1001, 4, 1e11


@dataclass(frozen=True)
class Scores:
    """Log-likelihoods of rows, in nats and the data's own units.

    Args:
        log_prob: log-density; a log mass in integer and lattice columns; -inf outside the support.
        quantile: ``(1 + h) / (n + 1)`` where h of n held-out rows scored no higher: of new rows of the same
            law a share of at most q comes at or below q. With n held-out rows none is below ``1 / (n + 1)``.
            None for a flow that ``fit_table`` did not fit; of an older file, the share of the training rows
            that scored lower.
        standard_error: of ``log_prob`` over the dequantization draws; None where it is exact.
        notes: what to know of these rows, a sentence each: which columns hold values off their grid, how many
            scores are not finite.
    """

    log_prob: np.ndarray
    quantile: np.ndarray | None
    standard_error: np.ndarray | None
    notes: tuple[str, ...] = ()

    def columns(self) -> dict[str, np.ndarray]:
        """What there is of them, by name: ``Table(scores.columns())`` is the table."""
        columns = {
            "log_prob": self.log_prob,
            "quantile": self.quantile,
            "standard_error": self.standard_error,
        }
        return {name: column for name, column in columns.items() if column is not None}


def score_table(flow: Flow, table: Any, *, batch_size: int = 65_536) -> Scores:
    """Score every row of ``table``, in evaluation mode: deterministic, and each row for itself.

    Args:
        flow: fitted to a table.
        table: a ``Table``, a path to one, a mapping of columns, a DataFrame or a 2-D array. What a column
            holds that the flow does not know is of no matter.
        batch_size: rows times draws at a time, or the draws of one row.

    A value between the points of a column's grid stands for the cell that it lies in, and scores as the
    nearest point does: a rounded value was a real one once. ``notes`` says where. (``flow.log_prob`` is the
    law of the grid itself, and -inf there.)

    Raises:
        DataError: when the table lacks a column the flow knows.
        ConfigError: for a flow of something else.
    """
    encoding = table_encoding(flow)
    table = Table.of(table, only=list(dict.fromkeys([*encoding.names, *encoding.given])))
    rows = to_rows(encoding, table)
    placed = encoding.nearest(rows)
    draws = 1 if isinstance(encoding, Cells) or encoding.exact else encoding.num_draws
    log_prob, error = in_parts(
        flow,
        lambda x, context: log_prob_with_error(flow, x, context),
        placed,
        to_context(encoding, table),
        batch_size=max(1, batch_size // draws),
    )
    scores = log_prob.double().numpy()
    quantile = _quantile(flow, scores)
    off, lost = _off_grid(encoding, ((placed != rows) & ~rows.isnan()).numpy()), not_finite(scores, "rows")
    notes = *off, *lost, *(() if isinstance(encoding, Cells) else _above_one(encoding, scores))
    return Scores(scores, quantile, None if encoding.exact else error.double().numpy(), notes)


def _above_one(encoding: Columns, scores: np.ndarray) -> Iterator[str]:
    """A sentence where masses, of columns that are all discrete, are above 1."""
    above = int((scores > 0).sum())
    if above and all(column.kind.noise or not column.kind.width for column in encoding.columns):
        yield (
            f"{above:,} of {len(scores):,} rows score above probability 1: a mass from {encoding.num_draws} "
            f"draws is right on average only; see its standard error."
        )


def _off_grid(encoding: Columns | Cells, moved: np.ndarray) -> Iterator[str]:
    """A sentence for each column in which values were moved onto the grid."""
    for column, rows in zip(encoding.columns, moved.T, strict=True):
        if rows.any():
            count, first = int(rows.sum()), int(rows.argmax()) + 1
            kind = column.kind if isinstance(column, Column) else _grid(column)
            hold = "holds a value" if count == 1 else "hold values"
            yield (
                f"column {column.name!r}: {count:,} of {len(rows):,} rows {hold} off its grid, {kind} "
                f"(the first is row {first}); scored as the nearest of its values."
            )


def _grid(column: CellKind) -> Kind | None:
    """The grid of a column of mixed rows, if it has one."""
    return Lattice(column.step, column.offset) if isinstance(column, Numbers) and column.step else None


def log_prob_with_error(flow: Flow, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Log-likelihood of rows ``(rows, columns)`` and its standard error over the K draws.

    ``log 1/K sum_k w_k`` with ``w_k`` the density times the cell at draw k, and by the delta method
    ``sd(w) / (mean(w) sqrt(K))``; exact encodings have error 0.
    """
    return delta_method(flow.draw_log_probs(x, context))


def score_quantiles(log_prob: np.ndarray) -> list[float]:
    """1001 quantiles of rows' log-likelihood, to four decimals, for a flow's notes.

    Raises:
        DataError: for NaN, or no rows.
    """
    if np.isnan(log_prob).any() or not len(log_prob):
        raise DataError("the rows' log-likelihoods must be numbers, and at least one.")
    largest = np.finfo(np.float64).max  # JSON has no infinity
    # observed values only: interpolating between extremes could overflow
    values = np.quantile(np.clip(log_prob, -largest, largest), np.linspace(0, 1, _LEVELS), method="nearest")
    return _rounded(values).tolist()


def held_out_scores(log_prob: np.ndarray, weights: np.ndarray | None = None) -> dict[str, Any]:
    """The note of held-out rows' log-likelihood: all of them up to 1001 rows, else 1001 quantiles.

    Rows with weights count as often as these say, and as so many as equal ones would tell as much.
    """
    rows = len(log_prob)
    if weights is not None:
        w = weights.astype(np.float64) / weights.max()
        share = np.cumsum(w)
        log_prob = log_prob[np.searchsorted(share, (np.arange(rows) + 0.5) / rows * share[-1])]
        rows = max(1, round(share[-1] ** 2 / float((w**2).sum())))
    values = score_quantiles(log_prob)
    if len(log_prob) <= _LEVELS:
        largest = np.finfo(np.float64).max
        values = _rounded(np.sort(np.clip(log_prob, -largest, largest))).tolist()
    return {"rows": rows, "values": values}


def _quantile(flow: Flow, log_prob: np.ndarray) -> np.ndarray | None:
    """How unusual each score is among the rows that the flow's notes tell of; None where there are none."""
    known = known_scores(flow)
    if known is None:
        return None
    of, values = known
    if of == "training":
        return _share_below(log_prob, values)
    rows = flow.notes[HELD_OUT_SCORES].get("rows")
    if type(rows) is not int or not 1 <= rows < 2**53:
        raise ConfigError(f"flow.notes[{HELD_OUT_SCORES!r}] lack their rows; delete them, or fit anew.")
    # of quantiles, the next count upward: never rarer than it is
    no_higher = np.searchsorted(_rounded(values), _rounded(log_prob), side="right") / len(values)
    return (1 + rows * no_higher) / (rows + 1)


def known_scores(flow: Flow) -> tuple[str, np.ndarray] | None:
    """Of which rows a flow's notes have scores, and these, rising; None where they have none.

    Raises:
        ConfigError: for notes that hold something else.
    """
    found = flow.notes.get(HELD_OUT_SCORES)
    if found is None:
        quantiles = flow.notes.get(SCORE_QUANTILES)
        return None if quantiles is None else ("training", _rising(SCORE_QUANTILES, quantiles))
    values = found.get("values") if isinstance(found, dict) else None
    return "held out", _rising(HELD_OUT_SCORES, values)


def _rising(name: str, found: Any) -> np.ndarray:
    """The rising numbers of a note."""
    try:
        values = np.array(found, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.empty(0)
    rising = values.ndim == 1 and len(values) > 0 and (np.diff(values) >= 0).all()
    if not rising or not np.isfinite(values).all():
        raise ConfigError(f"flow.notes[{name!r}] are not rising numbers; delete them, or fit anew.")
    return values


def _share_below(log_prob: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Which share of the training rows scored below each, from 0 to 1."""
    return np.interp(_rounded(log_prob), _rounded(quantiles), np.linspace(0, 1, len(quantiles)))


def _rounded(values: np.ndarray) -> np.ndarray:
    """To four decimals, scores and quantiles alike, so that equal ones stay equal; huge ones as they are."""
    return np.where(np.abs(values) < _HUGE, np.round(np.clip(values, -_HUGE, _HUGE), _DECIMALS), values)
