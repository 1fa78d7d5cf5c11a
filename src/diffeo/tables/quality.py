"""``report``: whether a model of a table is any good, on one page."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffeo._files import replacing
from diffeo.encodings.cell_kinds import Levels
from diffeo.encodings.cells import Cells
from diffeo.encodings.columns import Columns
from diffeo.encodings.kinds import Constant
from diffeo.errors import ConfigError, DataError
from diffeo.flow import Flow, in_parts
from diffeo.functional.seeding import seeded
from diffeo.tables.comparison import ColumnShape, Comparison, compare
from diffeo.tables.fit import split
from diffeo.tables.gaussians import encoded_scores
from diffeo.tables.judging import independent, resampled
from diffeo.tables.known import BATCH
from diffeo.tables.likelihoods import (
    Calibration,
    ColumnPits,
    Gap,
    Nats,
    RareRow,
    calibrations,
    gap,
    nats,
    ranks,
    rarest,
)
from diffeo.tables.markup import check_suffix
from diffeo.tables.page import page
from diffeo.tables.pits import CellPits
from diffeo.tables.samples import sample_table
from diffeo.tables.scores import HELD_OUT_SCORES, score_table
from diffeo.tables.sides import Array, sides
from diffeo.tables.table import Table
from diffeo.tables.tensors import table_encoding, to_context, to_rows
from diffeo.train.rows import sampled

_ROWS = 20_000
_SECONDS = 10.0
"""That the mixture beside the flow may take."""
_VALIDATION, _AS_NOTED = 0.1, 0.01
"""The part of the rows that a fit holds out by default; by how much their mean may differ from its notes."""


@dataclass(frozen=True)
class Report:
    """Whether a model of a table is any good: ``write`` makes a page of it, ``print`` a few lines.

    Args:
        model: what it is: the preset, its parameters, notes of its run.
        schema: what each column was taken for, as a table of text, the header first.
        comparison: rows of the model's own against real ones.
        nats: held-out log-likelihood of the model, and of plain densities beside it.
        gap: of training rows and of held-out ones; None where it is not known which are which.
        calibration: of each column; none where the model does not tell of single columns.
        likelihoods: scores of held-out rows among those of the model's own.
        rare: the rarest rows.
        notes: what to know of the figures, a sentence each.
    """

    model: dict[str, Any]
    schema: tuple[tuple[str, ...], ...]
    comparison: Comparison
    nats: tuple[Nats, ...]
    gap: Gap | None
    calibration: tuple[Calibration, ...]
    likelihoods: Calibration
    rare: tuple[RareRow, ...]
    notes: tuple[str, ...] = ()

    def html(self) -> str:
        """One page that stands for itself: nothing in it is loaded from elsewhere, and no script runs."""
        return page(self)

    def to_json(self) -> dict[str, Any]:
        """The same figures as plain JSON; what is not finite is null."""
        return _plain({**asdict(self), "comparison": self.comparison.to_json()})

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page (``.html``) or the figures (``.json``), whole or not at all.

        Raises:
            DataError: for another suffix or a folder that does not exist.
        """
        check_suffix(path)
        text = self.html()
        if Path(path).suffix.lower() == ".json":
            text = json.dumps(self.to_json(), indent=1, allow_nan=False)
        with replacing(path) as file:
            file.write(text.encode())

    def __str__(self) -> str:
        model, *others = self.nats
        lines = [f"nats     {model.mean:.3f} +- {model.error:.3f} a held-out row"]
        lines += [f"         {n.gain:+.3f} +- {n.gain_error:.3f} above {n.name}" for n in others]
        if self.gap is not None:
            lines.append(
                f"         training rows {self.gap.gap:+.3f} +- {self.gap.error:.3f} above held-out ones"
            )
        return "\n".join([*lines, str(self.comparison), *(f"note: {note}" for note in self.notes)])


def report(
    flow: Flow,
    table: Any,
    *,
    test: Any = None,
    target: str | None = None,
    rows: int = _ROWS,
    seed: int = 0,
    columns: ColumnPits | None = None,
    told: Callable[[str], None] = lambda stage: None,
) -> Report:
    """Find out whether a model of a table is any good.

    Scores the rows, draws as many, and holds them against each other: see ``compare`` for what that says. Of
    the table that the model was fitted to, the rows held out by the fit are known again. Of another one, all
    rows count as held out.

    Args:
        flow: fitted to a table.
        table: the table that it was fitted to, or new rows: whatever ``Table.of`` takes.
        test: rows that were held out, where ``table`` is all that was trained on.
        target: the column that a model trained on the draws is to predict; default: as ``compare`` chooses.
        rows: the most rows that are drawn, and looked at: of a longer table a random sample.
        seed: of draws, samples and folds.
        columns: what the model expects of single columns; without it their calibration is left out.
        told: is told of each stage, in a word or two.

    Raises:
        DataError: where the table lacks a row, the target or a column the model knows.
        ConfigError: for a flow of something else.

    Example:
        >>> from diffeo.tables import fit_table
        >>> table = np.random.default_rng(0).normal(size=(400, 2))
        >>> flow, _ = fit_table(table, max_steps=20)
        >>> found = report(flow, table)
        >>> found.comparison.rows, round(found.gap.gap)
        ({'real': 360, 'synthetic': 360, 'test': 40}, 0)
        >>> found.html().startswith("<!doctype html>")
        True
    """
    encoding = table_encoding(flow)
    if rows < 1:
        raise ConfigError(f"rows={rows} cannot be looked at; let them be at least 1.")
    told("reading")
    whole = _read(encoding, table)
    target = None if target is None else whole.own([target])[0]
    held = _held_out(flow, len(whole)) if test is None else np.empty(0, np.int64)
    others = np.delete(np.arange(len(whole)), held)
    index = np.sort(np.concatenate([held, others[sampled(len(others), rows, seed).numpy()]]))
    looked, is_held = whole.rows(index), np.isin(index, held)
    told("scoring")
    scores = score_table(flow, looked)

    def score(rows: Table) -> Array:
        return score_table(flow, rows).log_prob

    is_held &= _as_noted(flow, scores.log_prob[is_held])
    real, trained = looked.rows(~is_held), scores.log_prob[~is_held]
    if test is not None:
        fresh = _read(encoding, test)
        fresh = fresh.rows(sampled(len(fresh), rows, seed).numpy())
        judged = score(fresh)
    else:
        fresh, judged = (looked.rows(is_held), scores.log_prob[is_held]) if is_held.any() else (None, trained)
    told("drawing")
    given = real.select(encoding.given) if encoding.given else None
    drawn = sample_table(flow, len(real) if given is None else 1, given=given, seed=seed)
    drawn_scores = score(drawn)
    told("plain densities")
    plain, notes = _beside_plain(encoding, real, fresh, judged, seed)
    told("comparing")
    weighted = resampled(real, encoding.weights) if encoding.weights in real.names else real
    drawn = drawn.select(name for name in drawn.names if name in weighted.names)
    comparison = compare(weighted.select(drawn.names), drawn, test=fresh, target=target, seed=seed)
    told("looking at rows")
    columns = CellPits(flow) if columns is None and isinstance(encoding, Cells) else columns
    if fresh is None:
        notes.append("Which rows the model was trained on is not known: all count as held out.")
    known = looked if fresh is None else fresh
    return Report(
        model=_model(flow),
        schema=tuple(_schema(encoding, comparison.columns, looked)),
        comparison=comparison,
        nats=nats(plain),
        gap=None if fresh is None else gap(trained, judged),
        calibration=() if columns is None else calibrations(columns, known, seed),
        likelihoods=ranks(judged, drawn_scores),
        rare=rarest(score, looked, scores, is_held if fresh is not None else ~is_held, index, seed),
        notes=(*scores.notes, *notes),
    )


# -- inside ---------------------------------------------------------------------------------------


def _read(encoding: Columns | Cells, data: Any) -> Table:
    """The model's columns, and its rows' weights where they are there."""
    names = list(dict.fromkeys([*encoding.given, *encoding.names]))
    others = {d.name for d in encoding.decided} if isinstance(encoding, Cells) else set()
    others |= set() if encoding.weights is None else {encoding.weights}
    if not others:
        return Table.of(data, only=names)
    table = Table.of(data)
    return table.select([*names, *(name for name in table.names if name in others)])


def _held_out(flow: Flow, rows: int) -> NDArray[np.int64]:
    """The rows that the fit held out and scored, if a table of so many rows is the one it was given."""
    found, seed = flow.notes.get(HELD_OUT_SCORES), flow.notes.get("seed")
    count = found.get("rows") if isinstance(found, Mapping) else None
    if flow.notes.get("rows") != rows or type(count) is not int or type(seed) is not int:
        return np.empty(0, np.int64)
    held = split(Table({"row": np.arange(rows)}), _VALIDATION, seed)[1].column("row")
    return held[sampled(len(held), count, seed).numpy()]


def _as_noted(flow: Flow, scores: Array) -> bool:
    """Whether rows score as those that the fit held out did: their mean is in its notes."""
    noted = flow.notes.get("held out")
    mean = noted.get("flow") if isinstance(noted, Mapping) else None
    return len(scores) > 0 and isinstance(mean, float) and abs(float(scores.mean()) - mean) < _AS_NOTED


def _beside_plain(
    encoding: Columns | Cells, real: Table, fresh: Table | None, judged: Array, seed: int
) -> tuple[dict[str, Array], list[str]]:
    """Scores of the same held-out rows under the model and under plain densities, and notes."""
    notes, learned, told = [], real, fresh
    if told is None:
        order = np.random.default_rng(seed).permutation(len(real))
        kept, held = np.split(order, [len(order) // 2])
        learned, told, judged = real.rows(kept), real.rows(held), judged[held]
        notes.append(
            "The plain densities are fitted to one half of the rows, and all are scored on the other."
        )
    scores = {"this model": judged}
    if isinstance(encoding, Cells):
        plain = independent(encoding, to_rows(encoding, learned))
        rows = in_parts(plain, plain.log_prob, to_rows(encoding, told), batch_size=BATCH)
        return {**scores, "independent columns": rows.double().numpy()}, notes
    try:
        with seeded(seed):
            plain = encoded_scores(
                deepcopy(encoding),
                to_rows(encoding, learned),
                to_rows(encoding, told),
                given=to_context(encoding, learned),
                test_given=to_context(encoding, told),
                seconds=_SECONDS,
            )
    except DataError as error:
        return scores, [f"There are no plain densities beside the model: {error}"]
    names = {"gaussian": "a Gaussian", "mixture": "a mixture of Gaussians"}
    return {**scores, **{names[name]: rows for name, rows in plain.items()}}, notes


def _schema(
    encoding: Columns | Cells, shapes: Sequence[ColumnShape], table: Table
) -> Iterator[tuple[str, ...]]:
    """What each column was taken for, the header first."""
    yield "column", "taken for", "stored as", "missing", "values"
    if isinstance(encoding, Cells):
        kinds = {c.name: "category" if isinstance(c, Levels) else c.measure for c in encoding.columns}
        kinds |= dict.fromkeys((d.name for d in encoding.decided), "computed from others")
    else:
        columns = encoding.columns
        kinds = {c.name: "constant" if isinstance(c.kind, Constant) else str(c.kind) for c in columns}
    stored = dict(zip(table.names, table.dtypes, strict=True))
    for side in sides(table.select([shape.name for shape in shapes])):
        part = side.parts[0][~np.isnan(side.parts[0])]
        if side.levels is None:
            values = f"{side.text(part.min())} to {side.text(part.max())}" if len(part) else "none"
        else:
            more = f", and {len(side.levels) - 4:,} more" if len(side.levels) > 4 else ""
            common = np.argsort(-np.bincount(part.astype(np.int64)), kind="stable")[:4]
            values = ", ".join(side.levels[int(i)] for i in common) + more
        missing = 1 - len(part) / len(table)
        yield side.name, kinds.get(side.name, "given"), stored[side.name], f"{missing:.1%}", values


def _model(flow: Flow) -> dict[str, Any]:
    """What the model is, and how its run went."""
    found = {"preset": "unknown" if flow.preset is None else type(flow.preset).__name__}
    size = sum(p.numel() for p in flow.parameters())
    kept = {
        name: flow.notes[name] for name in ("date", "rows", "steps", "seconds", "seed") if name in flow.notes
    }
    return {**found, "parameters": size, **kept}


def _plain(value: Any) -> Any:
    """The same as plain JSON: numbers that are not finite are null."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
