"""What a flow of a table is worth beside plain densities, and whether its draws look right, in given time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from diffeo.encodings.cell_kinds import Numbers
from diffeo.encodings.cells import Cells
from diffeo.encodings.columns import Columns
from diffeo.flow import Flow, in_parts
from diffeo.functional.seeding import generator
from diffeo.presets import Mixed
from diffeo.tables.codes import as_numbers
from diffeo.tables.draws import doubts
from diffeo.tables.gaussians import encoded_baselines
from diffeo.tables.samples import sample_table
from diffeo.tables.table import Table
from diffeo.tables.tensors import table_encoding
from diffeo.train.rows import TensorRows, sampled

SCORING, DRAWING, PLAIN = 0.04, 0.03, 0.1
"""Parts of the time: to score held-out rows, to look at draws, and for the plain densities."""
SCORED, DRAWN = 20_000, 10_000
"""Held-out rows scored where no time is set; draws, and rows of each kind, that the draws are judged by."""
OVERHEAD, MOST = 0.3, 0.1
"""Seconds of what is as long for few rows as for many, writing included; part of the time that all take."""
_FEWEST = 200
_PLAIN = 100_000
"""Training rows that tell how often each cell is."""
_TIMED = 0.02
"""Seconds that tell what one row takes."""


@dataclass(frozen=True)
class Sizes:
    """How many held-out rows are scored and draws looked at behind a training, and the seconds that takes."""

    scored: int
    drawn: int
    seconds: float


def sizes_for(
    flows: Sequence[Flow], valid: TensorRows, seconds: float | None, clock: Callable[[], float]
) -> Sizes:
    """The sizes that a budget allows, from what a row takes to score and to draw.

    Args:
        flows: one of which will be scored and drawn from; the slowest counts.
        valid: held-out rows.
        seconds: the whole budget, or None.
        clock: what tells the time.
    """
    rows, context = len(valid), valid.context
    if seconds is None:
        return Sizes(min(rows, SCORED), DRAWN, 0.0)
    each = a_draw = 0.0
    for flow in flows:
        draws = generator(0)

        def score(n: int, flow: Flow = flow) -> None:
            in_parts(flow, flow.log_prob, valid.x[:n], None if context is None else context[:n], batch_size=n)

        def draw(n: int, flow: Flow = flow, draws: Generator = draws) -> None:
            def some(index: Tensor, given: Tensor | None) -> Tensor:
                return flow.sample(len(index) if given is None else (), given, generator=draws)

            in_parts(flow, some, torch.arange(n), None if context is None else context[:n], batch_size=n)

        each = max(each, _seconds_each(score, rows, clock))
        a_draw = max(a_draw, _seconds_each(draw, rows, clock))
    scored = min(rows, max(_FEWEST, int(SCORING * seconds / each)))
    drawn = min(DRAWN, max(_FEWEST, int(DRAWING * seconds / a_draw)))
    taken = 1.2 * (each * scored + a_draw * drawn) + OVERHEAD
    return Sizes(scored, drawn, min(taken, MOST * seconds))


def _seconds_each(work: Callable[[int], None], rows: int, clock: Callable[[], float]) -> float:
    """What each of some rows takes: of so many that it can be told, after a first, cold call."""
    count = min(rows, 16)
    work(count)
    while True:
        tick = clock()
        work(count)
        taken = clock() - tick
        if taken > _TIMED or count == rows:
            return max(taken, 1e-9) / count
        count = min(rows, 4 * count)


def compared(
    encoding: Columns | Cells,
    train: TensorRows,
    scored: TensorRows,
    seconds: float | None,
) -> dict[str, float]:
    """Held-out nats of the plain densities, the mixture's fit no longer than the time allows.

    Of cells these are independent columns: what a ``Mixed`` is before it is trained.
    """
    if isinstance(encoding, Cells):
        return {"independent": mean_log_prob(independent(encoding, train.sample(_PLAIN).x), scored)}
    return encoded_baselines(
        encoding,
        train.x,
        scored.x,
        given=train.context,
        test_given=scored.context,
        weights=train.weights,
        test_weights=scored.weights,
        seconds=math.inf if seconds is None else PLAIN * seconds,
    )


def independent(encoding: Cells, rows: Tensor) -> Flow:
    """The density of independent columns, from training rows as the encoding takes them."""
    plain = Mixed(len(encoding.columns), hidden=1, known=1, blocks=0).build(encoding)
    plain.initialize(rows)
    return plain.eval()


def mean_log_prob(flow: Flow, rows: TensorRows) -> float:
    """The mean log-likelihood of rows, in nats."""
    log_prob = in_parts(flow, flow.log_prob, rows.x, rows.context, batch_size=4096).double()
    if rows.weights is None:
        return float(log_prob.mean())
    return float(log_prob @ rows.weights.double() / rows.weights.double().sum())


def draws_doubts(flow: Flow, train: Table, valid: Table, most: int, seed: int) -> list[str]:
    """What draws of the flow have otherwise than its rows; weighted rows as often as their weights say."""
    encoding = table_encoding(flow)
    parts = [t.rows(sampled(len(t), most, seed).numpy()) for t in (train, valid)]
    if encoding.weights is not None:
        parts = [resampled(t, encoding.weights) for t in parts]
    train, valid = parts
    if isinstance(encoding, Cells):
        return _cells_doubts(flow, encoding, train, valid, seed)
    each = -(-min(most, len(train) + len(valid)) // len(valid)) if encoding.given else 0
    given = valid.select(encoding.given) if encoding.given else None
    drawn = sample_table(flow, each or min(most, len(train) + len(valid)), given=given, seed=seed)
    seen, held_out, drawn = (t.select(encoding.names).values for t in (train, valid, drawn))
    finite = np.isfinite(drawn).all(1)
    found = doubts(encoding.names, seen, held_out, drawn[finite]) if finite.any() else []
    lost = int((~finite).sum())
    return [f"{lost:,} of {len(drawn):,} draws are not finite.", *found] if lost else found


def _cells_doubts(flow: Flow, encoding: Cells, train: Table, valid: Table, seed: int) -> list[str]:
    """The same of the numbers among columns of any kind, in rows that have them all."""
    modeled = [c.name for c in encoding.columns if isinstance(c, Numbers) and c.name not in encoding.given]
    given = valid.rows(np.arange(len(train) + len(valid)) % len(valid)) if encoding.given else None
    drawn = sample_table(
        flow,
        1 if encoding.given else len(train) + len(valid),
        given=None if given is None else given.select(encoding.given),
        seed=seed,
    )
    seen, held_out, drawn = (
        np.stack([as_numbers(t.column(name)) for name in t.own(modeled)], 1) if modeled else np.empty((0, 0))
        for t in (train, valid, drawn)
    )
    parts = [rows[~np.isnan(rows).any(1)] for rows in (seen, held_out, drawn)]
    return doubts(tuple(modeled), *parts) if all(map(len, parts)) else []


def relative(weights: np.ndarray) -> np.ndarray:
    """Weights beside the largest: only ratios count, and float32 holds few of 1e-45 or 1e40."""
    return (weights / np.float64(weights.max())).astype(np.float32)


def resampled(table: Table, weights: str) -> Table:
    """As many rows, each as often as its weight says."""
    share = np.cumsum(relative(as_numbers(table.column(weights))).astype(np.float64))
    return table.rows(np.searchsorted(share, (np.arange(len(table)) + 0.5) / len(table) * share[-1]))
