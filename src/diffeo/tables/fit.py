"""``fit_table``: from a table to a flow, everything chosen from the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from typing_extensions import Unpack

from diffeo.contexts import Vector
from diffeo.encodings.columns import Columns
from diffeo.errors import ConfigError, DataError
from diffeo.flow import Flow, in_parts
from diffeo.functional.seeding import seeded
from diffeo.objectives import FlowMatching
from diffeo.presets import Preset, VectorPreset, choose
from diffeo.tables.checks import check_columns
from diffeo.tables.draws import doubts
from diffeo.tables.gaussians import encoded_baselines
from diffeo.tables.samples import sample_table
from diffeo.tables.schema import Schema
from diffeo.tables.scores import HELD_OUT_SCORES, held_out_scores, score_table
from diffeo.tables.table import Table, listed
from diffeo.tables.tensors import table_encoding, to_context, to_rows
from diffeo.train.loop import fit_rows, objective_of
from diffeo.train.options import Options, TrainingOptions
from diffeo.train.progress import shown
from diffeo.train.report import FitReport, relabelled
from diffeo.train.rows import TensorRows

RACE = 0.3
"""Part of the time that candidates share to find out which is best; the winner trains on from there. Half of
it was too short: what leads after 200 steps is not what leads after 800."""
DEFAULT_SECONDS = 120.0
_LOOKED_AT = 10_000
"""Rows of each kind, and draws, that the draws are judged by."""
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
            return f"The flow beats the better of the two by {gap:.3f} nats per row{but}."
        name = {"gaussian": "Gaussian"}.get(best, best)
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
    preset: VectorPreset | None = None,
    validation: float = 0.1,
    **training: Unpack[TrainingOptions],
) -> tuple[Flow, TableReport]:
    """Fit a flow to a table; without a preset, its kind and size come from the rows and a short race.

    Columns are taken for what they look like (see ``Schema``) unless declared. A part of the rows is
    held out: no moment, knot or gradient sees them; they pick the weights, and the report sets the
    flow's mean log-likelihood on them beside that of a Gaussian and of a mixture of Gaussians.

    Args:
        table: a ``Table``, a path to one, a mapping of columns, a DataFrame or a 2-D array.
        given: columns to condition on; one name stands for itself, here and in ``drop``.
        weights: column of non-negative row weights.
        columns: declared kinds, ``{"price": "positive", "hour": "circular(0, 24)"}``; or a ``Schema``, whose
            columns are then the ones modeled.
        drop: columns to leave out, whatever they hold.
        preset: the flow to fit; ``features`` must be the schema's.
        validation: fraction of rows held out, in (0, 1).
        training: as ``TrainingOptions`` says; the limits hold for race and training together. Without any,
            120 seconds.

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
    started = options.clock()
    given, drop = listed(given), listed(drop)
    table, schema = _modeled(table, given, weights, columns, drop)
    given, weights = table.own(given), None if weights is None else table.own(weights)[0]
    context = Vector(len(given)) if given else None
    if preset is not None:
        _check_preset(preset, schema, context)
    train, valid = _split(table, validation, options.seed)
    encoding = schema.encoding(train, given=given, weights=weights)
    presets = [preset] if preset else choose(len(train), schema.features, context, schema.circular)
    train_rows, valid_rows = _rows(train, encoding), _rows(valid, encoding)
    with shown(options.progress, options.callbacks) as callbacks:
        told = replace(options, callbacks=callbacks, progress=False)
        flow, report = _train(presets, encoding, train_rows, valid_rows, told, started)
    if isinstance(objective_of(flow), FlowMatching):  # its own score is not a likelihood
        report = replace(report, valid=_held_out(flow, valid_rows))
    with seeded(options.seed):
        plain = encoded_baselines(
            encoding,
            train_rows.x,
            valid_rows.x,
            given=train_rows.context,
            test_given=valid_rows.context,
            weights=train_rows.weights,
            test_weights=valid_rows.weights,
        )
    found = TableReport(
        training=report,
        rows=len(table),
        held_out=len(valid),
        baselines={"flow": report.valid, **plain},
        held_out_scores=_scores(flow, _some(valid, 20_000, options.seed), weights),
        seconds=options.clock() - started,
        doubts=(*schema.doubts(len(train)), *_draws_doubts(flow, train, valid, options.seed)),
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


def _check_preset(preset: VectorPreset, schema: Schema, context: Vector | None) -> None:
    if (preset.features, preset.context) != (schema.features, context):
        given = 0 if context is None else context.size
        raise ConfigError(
            f"the preset has features={preset.features} and context={preset.context}, but "
            f"{schema.features} columns of this table vary and {given} are given; build it with "
            f"features={schema.features}, context={given or None}."
        )
    if preset.circular != schema.circular:
        raise ConfigError(
            f"the preset {type(preset).__name__} has circular={preset.circular}, but the circular columns "
            f"are {schema.circular}; use Tabular(..., circular={schema.circular}) or no preset, or declare "
            f"these columns bounded."
        )


def _train(
    presets: Sequence[VectorPreset],
    encoding: Columns,
    train: TensorRows,
    valid: TensorRows,
    options: Options,
    started: float,
) -> tuple[Flow, FitReport]:
    """The best of the presets, trained to the end, or on from where its checkpoint left it."""
    keeper = options.keeper
    limits = [options.max_seconds, options.max_steps, options.max_epochs]
    asked = [limits, [repr(preset) for preset in presets]]
    noted = None if keeper is None else keeper.notes()
    if keeper is not None and noted is not None:
        notes, _ = noted
        if notes["asked"] != asked:
            raise ConfigError(
                f"{keeper.path} belongs to another run (another preset or limit); delete it to start anew, "
                f"or name another checkpoint."
            )
        flow, spent = _build(presets[notes["winner"]], encoding, options.seed), notes["seconds"]
    else:
        winner, flow = _race(presets, encoding, train, valid, replace(options, checkpoint=None))
        spent = options.clock() - started
        if keeper is not None:
            keeper.note({"winner": winner, "seconds": spent, "asked": asked})
    if len(presets) > 1:
        left = None if options.max_seconds is None else max(1.0, options.max_seconds - spent)
        options = replace(_shortened(options, 1 - RACE), max_seconds=left)
    return flow, fit_rows(flow, train, valid, None, options)


def _shortened(options: Options, share: float) -> Options:
    """The options with a share of every limit."""
    seconds, steps, epochs = options.max_seconds, options.max_steps, options.max_epochs
    return replace(
        options,
        max_seconds=None if seconds is None else share * seconds,
        max_steps=None if steps is None else max(1, round(share * steps)),
        max_epochs=None if epochs is None else share * epochs,
    )


def _weighted(table: Table, weights: str | None) -> Table:
    """The rows whose weight is above 0: the others have no part in schema, moments or likelihood."""
    if weights is None:
        return table
    w = table.column(weights)
    if (w < 0).any():
        row = int(np.argmax(w < 0))
        raise DataError(f"column {weights!r} holds a negative weight in row {row + 1}: {w[row]:.10g}.")
    if not (w > 0).any():
        raise DataError(f"the weights in column {weights!r} are all 0.")
    counts = _relative(w) > 0
    return table if counts.all() else table.rows(counts)


def _relative(weights: np.ndarray) -> np.ndarray:
    """Weights beside the largest: only ratios count, and float32 holds few of 1e-45 or 1e40."""
    return (weights / np.float64(weights.max())).astype(np.float32)


def _split(table: Table, validation: float, seed: int) -> tuple[Table, Table]:
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


def _some(table: Table, most: int, seed: int) -> Table:
    if len(table) <= most:
        return table
    return table.rows(np.sort(np.random.default_rng(seed).permutation(len(table))[:most]))


def _rows(table: Table, encoding: Columns) -> TensorRows:
    weights = None if encoding.weights is None else _relative(table.column(encoding.weights))
    return TensorRows(
        to_rows(encoding, table),
        to_context(encoding, table),
        None if weights is None else torch.from_numpy(weights),
        torch.arange(len(table)),
    )


def _scores(flow: Flow, rows: Table, weights: str | None) -> dict[str, Any]:
    found = score_table(flow, rows).log_prob
    return held_out_scores(found, None if weights is None else rows.column(weights))


def _draws_doubts(flow: Flow, train: Table, valid: Table, seed: int) -> list[str]:
    """What draws of the flow have otherwise than its rows; weighted rows as often as their weights say."""
    encoding = table_encoding(flow)
    parts = [_some(t, _LOOKED_AT, seed) for t in (train, valid)]
    if encoding.weights is not None:
        parts = [_resampled(t, encoding.weights) for t in parts]
    train, valid = parts
    each = -(-min(_LOOKED_AT, len(train) + len(valid)) // len(valid)) if encoding.given else 0
    given = valid.select(encoding.given) if encoding.given else None
    drawn = sample_table(flow, each or len(train) + len(valid), given=given, seed=seed)
    seen, held_out, drawn = (t.select(encoding.names).values for t in (train, valid, drawn))
    finite = np.isfinite(drawn).all(1)
    found = doubts(encoding.names, seen, held_out, drawn[finite]) if finite.any() else []
    lost = int((~finite).sum())
    return [f"{lost:,} of {len(drawn):,} draws are not finite.", *found] if lost else found


def _resampled(table: Table, weights: str) -> Table:
    share = np.cumsum(_relative(table.column(weights)).astype(np.float64))
    return table.rows(np.searchsorted(share, (np.arange(len(table)) + 0.5) / len(table) * share[-1]))


def _held_out(flow: Flow, rows: TensorRows) -> float:
    """The mean log-likelihood of rows, in nats."""
    log_prob = in_parts(flow, flow.log_prob, rows.x, rows.context, batch_size=4096).double()
    if rows.weights is None:
        return float(log_prob.mean())
    return float(log_prob @ rows.weights.double() / rows.weights.double().sum())


def _build(preset: Preset, encoding: Columns, seed: int) -> Flow:
    with seeded(seed):
        return preset.build(encoding)


def _race(
    presets: Sequence[VectorPreset],
    encoding: Columns,
    train: TensorRows,
    valid: TensorRows,
    options: Options,
) -> tuple[int, Flow]:
    """Give each preset an equal share of the race's length; the best by validation, and which it is."""
    if len(presets) == 1:
        return 0, _build(presets[0], encoding, options.seed)
    heat = _shortened(options, RACE / len(presets))
    best, best_valid = None, -float("inf")
    for i, preset in enumerate(presets):
        flow = _build(preset, encoding, options.seed)
        callbacks = relabelled(options.callbacks, f"race {i + 1}/{len(presets)}")
        report = fit_rows(flow, train, valid, None, replace(heat, callbacks=callbacks))
        if best is None or report.valid > best_valid:
            best, best_valid = (i, flow), report.valid
    assert best is not None
    return best
