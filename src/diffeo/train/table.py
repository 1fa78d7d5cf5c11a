"""``fit_table``: from a table to a flow, everything chosen from the rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffeo.data.baselines import baselines
from diffeo.data.schema import Schema
from diffeo.data.scores import score_table
from diffeo.data.tables import Table
from diffeo.encodings.columns import Columns
from diffeo.errors import ConfigError, DataError
from diffeo.flow import Flow
from diffeo.presets import KINDS, Preset, Vector, choose
from diffeo.train.checkpoint import Checkpoint
from diffeo.train.data import Rows
from diffeo.train.loop import fit
from diffeo.train.report import Callback, FitReport, Progress

RACE = 0.15
"""Part of the time that candidates may spend on finding out which is best."""
DEFAULT_SECONDS = 120.0


def fit_table(
    table: Any,
    *,
    given: Sequence[str] = (),
    weights: str | None = None,
    columns: Mapping[str, str] | None = None,
    preset: Preset | None = None,
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
        table: a ``Table``, a path to one, a 2-D array or a DataFrame.
        given: columns to condition on.
        weights: column of non-negative row weights.
        columns: declared kinds, ``{"price": "positive", "angle": "circular(0, 360)"}``.
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
    table = Table.read(table) if isinstance(table, str | Path) else Table.of(table)
    apart = [*given, *([] if weights is None else [weights])]
    density = table.drop(apart)
    schema = Schema.infer(density, columns)
    context = Vector(len(given)) if given else None
    if preset is not None and (preset.features, preset.context) != (schema.features, context):
        raise ConfigError(
            f"the preset has features={preset.features} and context={preset.context}, but "
            f"{schema.features} columns of this table vary and {len(given)} are given; build it with "
            f"features={schema.features}, context={len(given) or None}."
        )
    train, valid = _split(table, validation, seed)
    encoding = schema.encoding(train.select(density.names), given=given, weights=weights)
    presets = [preset] if preset is not None else choose(len(train), schema.features, context)
    rows = [_rows(part, encoding) for part in (train, valid)]

    keeper = None if checkpoint is None else Checkpoint(checkpoint)
    chosen = keeper.notes() if keeper is not None else None
    if chosen is not None:
        flow = KINDS[chosen["preset"]].from_fields(chosen["fields"]).build(encoding)
        left = float(chosen["seconds"])
    else:
        flow = _race(presets, encoding, rows[0], rows[1], seconds, seed, callbacks)
        left = max(1.0, seconds - (time.monotonic() - started)) if len(presets) > 1 else seconds
        if keeper is not None:
            assert flow.recipe is not None
            keeper.note({**flow.recipe, "seconds": left})
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
    encoding.set_score_quantiles(score_table(flow, _some(train, 20_000, seed)).log_prob)
    report.baselines = {"flow": report.valid, **_plain(encoding, rows)}
    report.seconds = time.monotonic() - started
    return flow, report


def _split(table: Table, validation: float, seed: int) -> tuple[Table, Table]:
    held = round(validation * len(table)) if 0 < validation < 1 else 0
    if not 0 < held < len(table):
        raise DataError(
            f"{len(table)} rows with validation={validation} leave no row to train on or none to hold out; "
            f"use more rows, or a fraction between 0 and 1."
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
        tensor(encoding.given).float() if encoding.given else None,
        None if encoding.weights is None else tensor([encoding.weights])[:, 0].float(),
        torch.arange(len(table)),
    )


class _Stage:
    """Passes progress on under another stage's name."""

    def __init__(self, stage: str, callbacks: Sequence[Callback]):
        self.stage, self.callbacks = stage, callbacks

    def on_progress(self, progress: Progress) -> None:
        for callback in self.callbacks:
            callback.on_progress(replace(progress, stage=self.stage))


def _race(
    presets: Sequence[Preset],
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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            flow = preset.build(encoding)
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


def _plain(encoding: Columns, rows: Sequence[Rows]) -> dict[str, float]:
    """The baselines' held-out nats, on the encoded rows and in the data's own units."""
    encoding.eval()
    (train, _), (test, log_weight) = (
        encoding.train(part is rows[0]).encode(part.x) for part in rows
    )
    encoding.eval()
    weights, test_weights = rows[0].weights, rows[1].weights
    k, n = test.shape[:2]
    found = baselines(train[0], test.reshape(k * n, -1), weights=weights, test_weights=None)
    w = torch.ones(n) if test_weights is None else test_weights
    shift = float((log_weight.mean(0) * w).sum() / w.sum())
    return {name: value + shift for name, value in found.items()}

