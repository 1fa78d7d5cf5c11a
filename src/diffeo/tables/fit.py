"""``fit_table``: from a table to a flow, everything chosen from the rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffeo.contexts import Vector
from diffeo.encodings.columns import Columns
from diffeo.errors import ConfigError, DataError
from diffeo.flow import Flow
from diffeo.io.recipes import from_recipe, to_recipe
from diffeo.objectives import FlowMatching, Likelihood
from diffeo.presets import Preset, VectorPreset, choose
from diffeo.tables.baselines import encoded_baselines
from diffeo.tables.schema import Schema
from diffeo.tables.scores import score_table
from diffeo.tables.table import Table
from diffeo.train.checkpoint import Checkpoint
from diffeo.train.data import Rows
from diffeo.train.loop import fit, objective_of
from diffeo.train.report import Callback, FitReport, Progress

RACE = 0.3
"""Part of the time that candidates share to find out which is best; the winner trains on from there. Half of
it was too short: what leads after 200 steps is not what leads after 800."""
DEFAULT_SECONDS = 120.0


def fit_table(
    table: Any,
    *,
    given: Sequence[str] = (),
    weights: str | None = None,
    columns: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
    preset: VectorPreset | None = None,
    validation: float = 0.1,
    max_seconds: float | None = None,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | Path | None = None,
) -> tuple[Flow, FitReport]:
    """Fit a flow to a table; without a preset, its kind and size come from the rows and a short race.

    Columns are taken for what they look like (see ``Schema``) unless declared. A part of the rows is
    held out: no moment, knot or gradient sees them; they pick the weights, and the report sets the
    flow's mean log-likelihood on them beside that of a Gaussian and of a mixture of Gaussians.

    Args:
        table: a ``Table``, a path to one, a mapping of columns, a DataFrame or a 2-D array.
        given: columns to condition on.
        weights: column of non-negative row weights.
        columns: declared kinds, ``{"price": "positive", "angle": "circular(0, 360)"}``.
        drop: columns to leave out, whatever they hold.
        preset: the flow to fit; ``features`` must be the number of columns that vary.
        validation: fraction of rows held out, in (0, 1).
        max_seconds: time to train, the race included; 120 by default.
        seed: of split, weights and batches.
        callbacks: objects with ``on_progress(progress)``.
        checkpoint: a file to resume from if it exists, and to save to as the run goes.

    Raises:
        DataError: for rows or columns that cannot be used; it names them.
        ConfigError: for options that do not fit the table.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(300, 2))
        >>> flow, report = fit_table(rows, max_seconds=2)
        >>> flow.sample(3).shape, sorted(report.baselines)
        (torch.Size([3, 2]), ['flow', 'gaussian', 'mixture'])
    """
    started = time.monotonic()
    seconds = DEFAULT_SECONDS if max_seconds is None else max_seconds
    apart = [*given, *([] if weights is None else [weights])]
    for name in drop:
        if name in [*apart, *(columns or {})]:
            raise ConfigError(f"column {name!r} is dropped; leave it out of given, weights and columns.")
    table = _weighted(Table.of(table, drop=drop), weights)
    density = table.drop(apart)
    schema = Schema.infer(density, columns)
    context = Vector(len(given)) if given else None
    if preset is not None and (preset.features, preset.context) != (schema.features, context):
        raise ConfigError(
            f"the preset has features={preset.features} and context={preset.context}, but "
            f"{schema.features} columns of this table vary and {len(given)} are given; build it with "
            f"features={schema.features}, context={len(given) or None}."
        )
    if preset is not None and preset.circular != schema.circular:
        raise ConfigError(
            f"the preset {type(preset).__name__} has circular={preset.circular}, but the circular columns "
            f"are {schema.circular}; use Tabular(..., circular={schema.circular}) or no preset, or declare "
            f"these columns bounded."
        )
    train, valid = _split(table, validation, seed)
    encoding = schema.encoding(train.select(density.names), given=given, weights=weights)
    presets = (
        [preset] if preset is not None else choose(len(train), schema.features, context, schema.circular)
    )
    rows = [_rows(part, encoding) for part in (train, valid)]

    keeper = None if checkpoint is None else Checkpoint(checkpoint)
    chosen = keeper.notes() if keeper is not None else None
    asked = [seconds, None if preset is None else repr(preset)]
    if chosen is not None:
        if chosen["asked"] != asked:
            raise ConfigError(
                f"{checkpoint} belongs to another run (another preset or max_seconds); "
                f"delete it to start anew, or name another checkpoint."
            )
        flow = _build(preset or from_recipe(chosen["recipe"]), encoding, seed)
        left = float(chosen["seconds"])
    else:
        flow = _race(presets, encoding, rows[0], rows[1], seconds, seed, callbacks)
        left = max(1.0, seconds - (time.monotonic() - started)) if len(presets) > 1 else seconds
        if keeper is not None:
            won = None if preset is not None or flow.preset is None else to_recipe(flow.preset)
            keeper.note({"recipe": won, "seconds": left, "asked": asked})
    train_rows, valid_rows = rows
    report = fit(
        flow,
        train_rows.x,
        train_rows.context,
        train_rows.weights,
        validation=valid_rows,
        max_seconds=left,
        seed=seed,
        callbacks=callbacks,
        checkpoint=keeper,
    )
    if isinstance(objective_of(flow), FlowMatching):  # its own score is no likelihood
        report.valid = _held_out(flow, valid_rows)
    encoding.set_score_quantiles(score_table(flow, _some(train, 20_000, seed)).log_prob)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        plain = encoded_baselines(
            encoding,
            train_rows.x,
            valid_rows.x,
            given=train_rows.context,
            test_given=valid_rows.context,
            weights=train_rows.weights,
            test_weights=valid_rows.weights,
        )
    report.baselines = {"flow": report.valid, **plain}
    report.held_out = len(valid)
    report.seconds = time.monotonic() - started
    return flow, report


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
    return table if (w > 0).all() else table.rows(w > 0)


def _split(table: Table, validation: float, seed: int) -> tuple[Table, Table]:
    if not 0 < validation < 1:
        raise DataError(f"validation={validation} is no fraction of the rows; use one between 0 and 1.")
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


def _rows(table: Table, encoding: Columns) -> Rows:
    def tensor(names: Sequence[str]) -> torch.Tensor:
        return torch.from_numpy(table.select(names).values)

    return Rows(
        tensor(encoding.names),
        tensor(encoding.given) if encoding.given else None,
        None if encoding.weights is None else tensor([encoding.weights])[:, 0].float(),
        torch.arange(len(table)),
    )


@torch.no_grad()
def _held_out(flow: Flow, rows: Rows) -> float:
    """The mean log-likelihood of rows, in nats."""
    total = weight = 0.0
    for batch in rows.batches(4096):
        w = float(len(batch.rows)) if batch.weights is None else float(batch.weights.sum())
        total -= float(Likelihood()(flow, batch)) * w
        weight += w
    return total / weight


class _Stage:
    """Passes progress on under another stage's name."""

    def __init__(self, stage: str, callbacks: Sequence[Callback]):
        self.stage, self.callbacks = stage, callbacks

    def on_progress(self, progress: Progress) -> None:
        for callback in self.callbacks:
            callback.on_progress(replace(progress, stage=self.stage))


def _build(preset: Preset, encoding: Columns, seed: int) -> Flow:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return preset.build(encoding)


def _race(
    presets: Sequence[VectorPreset],
    encoding: Columns,
    train: Rows,
    valid: Rows,
    seconds: float,
    seed: int,
    callbacks: Sequence[Callback],
) -> Flow:
    """Give each preset an equal share of the race's time, and keep the best by validation."""
    best, best_valid = None, -float("inf")
    for i, preset in enumerate(presets):
        flow = _build(preset, encoding, seed)
        if len(presets) == 1:
            return flow
        report = fit(
            flow,
            train.x,
            train.context,
            train.weights,
            validation=valid,
            max_seconds=RACE * seconds / len(presets),
            seed=seed,
            callbacks=[_Stage(f"race {i + 1}/{len(presets)}", callbacks)],
        )
        if best is None or report.valid > best_valid:
            best, best_valid = flow, report.valid
    assert best is not None
    return best
