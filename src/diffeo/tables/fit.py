"""``fit_table``: from a table to a flow, everything chosen from the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from typing_extensions import Unpack

from diffeo.encodings.cells import Cells
from diffeo.errors import DataError
from diffeo.flow import Flow
from diffeo.presets import Mixed, VectorPreset
from diffeo.tables.checks import check_columns
from diffeo.tables.codes import as_numbers
from diffeo.tables.judging import draws_doubts, relative
from diffeo.tables.racing import begun, racers
from diffeo.tables.schema import Schema
from diffeo.tables.scores import HELD_OUT_SCORES, held_out_scores, score_table
from diffeo.tables.table import Table, listed
from diffeo.train.loop import fit_rows
from diffeo.train.options import Options, TrainingOptions
from diffeo.train.progress import shown
from diffeo.train.report import FitReport
from diffeo.train.rows import sampled

DEFAULT_SECONDS = 120.0
ENOUGH = 50
"""Held-out rows from which their mean says anything."""


@dataclass(frozen=True)
class TableReport:
    """How a fit to a table went, and what the flow is worth beside plain densities.

    Args:
        training: how the training of the flow that was kept went, after the race.
        rows: of the table that had a part, held-out ones included.
        held_out: how many of them were held out.
        baselines: held-out nats a row of the flow (``flow``) and of plain densities on the same rows.
        held_out_scores: the log-likelihood of held-out rows that ``score_table``'s quantiles are taken over.
        seconds: of everything, choosing and scoring included.
        doubts: what the draws have otherwise than the held-out rows, and what columns hold that no density
            shows, a sentence each.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(300, 2))
        >>> flow, report = fit_table(rows, max_steps=20)
        >>> report.rows, report.held_out
        (300, 30)
    """

    training: FitReport
    rows: int
    held_out: int
    baselines: dict[str, float]
    held_out_scores: dict[str, Any] = field(repr=False)
    seconds: float
    doubts: tuple[str, ...] = ()

    @property
    def scored(self) -> int:
        """Held-out rows that the figures stand on: all, or a random part where time is short."""
        return self.training.checked

    @property
    def verdict(self) -> str:
        """Whether the flow is worth more than the plain densities, in one sentence."""
        flow = self.baselines["flow"]
        others = {k: v for k, v in self.baselines.items() if k != "flow" and math.isfinite(v)}
        if not others or not math.isfinite(flow):
            return "There is nothing to compare the flow with."
        if self.held_out < ENOUGH:
            are = "row is" if self.held_out == 1 else "rows are"
            return f"{self.held_out} held-out {are} too few to tell which is better."
        best = max(others, key=lambda name: others[name])
        gap = flow - others[best]
        if gap > 0:
            but = ", but there are doubts" if self.doubts else ""
            rival = "independent columns" if best == "independent" else "the better of the two"
            return f"The flow beats {rival} by {gap:.3f} nats per row{but}."
        name = {"gaussian": "Gaussian", "independent": "independent columns"}.get(best, best)
        return f"The flow is {-gap:.3f} nats per row below the {name}: train longer, or get more rows."

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return asdict(self)

    def notes(self) -> dict[str, Any]:
        """What the model's file says of the run that made it."""
        finite = {name: round(nats, 3) for name, nats in self.baselines.items() if np.isfinite(nats)}
        return {
            **self.training.notes(),
            "rows": self.rows,
            "seconds": round(self.seconds, 1),
            "held out": finite,
            HELD_OUT_SCORES: self.held_out_scores,
            **({"doubts": list(self.doubts)} if self.doubts else {}),
        }


def fit_table(
    table: Any,
    *,
    given: Sequence[str] = (),
    weights: str | None = None,
    columns: Mapping[str, str] | Schema | None = None,
    drop: Sequence[str] = (),
    preset: VectorPreset | Mixed | None = None,
    validation: float = 0.1,
    **training: Unpack[TrainingOptions],
) -> tuple[Flow, TableReport]:
    """Fit a flow to a table; without a preset, its kind and size come from the rows and a short race.

    Columns are taken for what they look like (see ``Schema``) unless declared. A part of the rows is
    held out: no moment, knot or gradient sees them; they pick the weights, and the report sets the
    flow's mean log-likelihood on them beside that of a Gaussian and of a mixture of Gaussians, or of
    independent columns.

    Text, gaps, dates and values that repeat on no grid are modeled by ``Mixed``. Complete numbers are modeled
    by ``Tabular`` or ``Mixed``, whichever leads after a short race; a lead of 0.05 nats is what answers to
    questions about any columns are taken to be worth.

    Args:
        table: a ``Table``, a path to one, a mapping of columns, a DataFrame or a 2-D array.
        given: columns to condition on; one name stands for itself, here and in ``drop``.
        weights: column of non-negative row weights.
        columns: declared kinds, ``{"price": "positive", "hour": "circular(0, 24)", "zip": "category"}``; or a
            ``Schema``, whose columns are then the ones modeled.
        drop: columns to leave out, whatever they hold.
        preset: the flow to fit; ``features`` must be the schema's.
        validation: fraction of rows held out, in (0, 1).
        training: as ``TrainingOptions`` says; the limits hold for race and training together, and the time
            for all else too. Without any, 120 seconds.

    Raises:
        DataError: for rows or columns that cannot be used; it names them.
        ConfigError: for options that do not fit the table.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(300, 2))
        >>> flow, report = fit_table(rows, max_seconds=2)
        >>> flow.sample(3).shape, sorted(report.baselines)
        (torch.Size([3, 2]), ['flow', 'gaussian', 'mixture'])
    """
    options = Options(**training)
    if options.unlimited:
        options = replace(options, max_seconds=DEFAULT_SECONDS)
    with options.held():
        given, drop = listed(given), listed(drop)
        table, schema = _modeled(table, given, weights, columns, drop)
        given, weights = table.own(given), None if weights is None else table.own(weights)[0]
        train, valid = split(table, validation, options.seed)
        ready = racers(preset, schema, train, valid, given, weights)
        with shown(options.progress, options.callbacks) as callbacks:
            told = replace(options, callbacks=callbacks, progress=False)
            flow, start, told = begun(ready, told)
            best = ready[start.winner]
            report = fit_rows(flow, best.train, best.valid, None, told, start.reserve)
        scored = valid.rows(sampled(len(valid), start.scored, options.seed).numpy())
        scores = score_table(flow, scored).log_prob
        counts = None if weights is None else relative(as_numbers(scored.column(weights)))
        mean = float(np.average(scores, weights=counts))
        report = replace(report, valid=mean, checked=len(scored))
        drawn = draws_doubts(flow, train, valid, start.drawn, options.seed)
        found = TableReport(
            training=report,
            rows=len(table),
            held_out=len(valid),
            baselines={"flow": mean, **start.baselines},
            held_out_scores=held_out_scores(scores, counts),
            seconds=options.spent(),
            doubts=(
                *start.doubts,
                *schema.doubts(len(train), cells=isinstance(flow.encoding, Cells)),
                *drawn,
            ),
        )
    flow.notes = found.notes()
    return flow, found


def _modeled(
    table: Any,
    given: Sequence[str],
    weights: str | None,
    columns: Mapping[str, str] | Schema | None,
    drop: Sequence[str],
) -> tuple[Table, Schema]:
    """The rows that have a part, and what their columns hold."""
    declared = () if columns is None else columns.names if isinstance(columns, Schema) else tuple(columns)
    apart = check_columns(given, weights, drop, declared)
    if not isinstance(columns, Schema):
        table = _weighted(Table.of(table, drop=drop), weights)
        return table, Schema.infer(table.drop(apart[len(given) :]), columns, given=given)
    table = _weighted(Table.of(table, drop=drop, only=[*columns.names, *apart]), weights)
    columns.check(table)
    return table, columns


def _weighted(table: Table, weights: str | None) -> Table:
    """The rows whose weight is above 0: the others have no part in schema, moments or likelihood."""
    if weights is None:
        return table
    w = table.select([weights]).values[:, 0]
    if (w < 0).any():
        row = int(np.argmax(w < 0))
        raise DataError(f"column {weights!r} holds a negative weight in row {row + 1}: {w[row]:.10g}.")
    if not (w > 0).any():
        raise DataError(f"the weights in column {weights!r} are all 0.")
    counts = relative(w) > 0
    return table if counts.all() else table.rows(counts)


def split(table: Table, validation: float, seed: int) -> tuple[Table, Table]:
    """The training rows of a table, and those held out."""
    if not 0 < validation < 1:
        raise DataError(f"validation={validation} is not a fraction of the rows; use one between 0 and 1.")
    held = round(validation * len(table))
    if not 0 < held <= len(table) - 2:
        raise DataError(
            f"{len(table)} rows are too few to hold out {validation:.0%} of them and train on the rest; "
            f"use more rows."
        )
    order = np.random.default_rng(seed).permutation(len(table))
    return table.rows(np.sort(order[held:])), table.rows(np.sort(order[:held]))
