"""Which flow a table is fitted by: what may be, a short race between these, and how it began."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from diffeo.contexts import Vector
from diffeo.encodings.cells import Cells
from diffeo.encodings.columns import Columns
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.functional.seeding import seeded
from diffeo.presets import Mixed, VectorPreset, choose, choose_mixed
from diffeo.tables.codes import as_numbers
from diffeo.tables.judging import compared, mean_log_prob, relative, sizes_for
from diffeo.tables.schema import Schema
from diffeo.tables.table import Table
from diffeo.tables.tensors import to_context, to_rows
from diffeo.train.loop import fit_rows
from diffeo.train.options import Options
from diffeo.train.report import FitReport, relabelled
from diffeo.train.rows import TensorRows, sampled

RACE = 0.3
"""Part of the time that candidates share to find out which is best; the winner trains on from there. Half of
it was too short: what leads after 200 steps is not what leads after 800."""
ANSWERS = 0.05
"""Nats a row by which a flow may fall behind that answers questions about any columns."""
LEAST = 0.1
"""Part of the time that training gets, however long all else takes."""


@dataclass(frozen=True)
class Racer:
    """A preset, and the rows as its encoding takes them."""

    preset: VectorPreset | Mixed
    encoding: Columns | Cells
    train: TensorRows
    valid: TensorRows

    @property
    def cells(self) -> bool:
        """Whether values that repeat have masses of their own."""
        return isinstance(self.encoding, Cells)

    def build(self, seed: int) -> Flow:
        """The flow, untrained."""
        with seeded(seed):
            return self.preset.build(self.encoding)


def racers(
    preset: VectorPreset | Mixed | None,
    schema: Schema,
    train: Table,
    valid: Table,
    given: Sequence[str],
    weights: str | None,
) -> list[Racer]:
    """What may be fitted to the rows, the safest first."""
    if isinstance(preset, Mixed) or (preset is None and schema.mixed):
        encoding = schema.cell_encoding(train, weights=weights)
        chosen = preset or choose_mixed(len(train), len(encoding.columns))
        if chosen.features != len(encoding.columns):
            raise ConfigError(
                f"the preset has features={chosen.features}, but this table has {len(encoding.columns)} "
                f"columns; build it with features={len(encoding.columns)}."
            )
        return [Racer(chosen, encoding, _rows(train, encoding), _rows(valid, encoding))]
    context = Vector(len(given)) if given else None
    if preset is not None:
        _check_preset(preset, schema, context)
    encoding = schema.encoding(train, given=given, weights=weights)
    rows = _rows(train, encoding), _rows(valid, encoding)
    if preset is not None:
        return [Racer(preset, encoding, *rows)]
    presets = choose(len(train), schema.features, context, schema.circular)
    racers = [Racer(each, encoding, *rows) for each in presets]
    if context is None and schema.features > 1 and not any(schema.circular):
        cells = schema.cell_encoding(train, weights=weights)
        mixed = choose_mixed(len(train), len(cells.columns))
        racers.append(Racer(mixed, cells, _rows(train, cells), _rows(valid, cells)))
    return racers


def preset_for(
    schema: Schema, kind: type[VectorPreset] | type[Mixed], **settings: Any
) -> VectorPreset | Mixed:
    """The preset of this kind for a table of this schema, with what the table decides."""
    if issubclass(kind, Mixed):
        return kind(features=schema.cell_columns, **settings)
    if "circular" in (f.name for f in fields(kind)):
        settings["circular"] = schema.circular
    return kind(features=schema.features, context=len(schema.given) or None, **settings)


def _check_preset(preset: VectorPreset, schema: Schema, context: Vector | None) -> None:
    if unreal := [e.name for e in (*schema.entries, *schema.given) if not e.real]:
        name = unreal[0]
        raise ConfigError(
            f"{type(preset).__name__} takes complete numbers only, and column {name!r} holds other things; "
            f"use no preset, or Mixed, or drop such columns."
        )
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


def _rows(table: Table, encoding: Columns | Cells) -> TensorRows:
    weights = None if encoding.weights is None else relative(as_numbers(table.column(encoding.weights)))
    return TensorRows(
        to_rows(encoding, table),
        to_context(encoding, table),
        None if weights is None else torch.from_numpy(weights),
        torch.arange(len(table)),
    )


def _race(flows: Sequence[Flow], racers: Sequence[Racer], options: Options) -> int:
    """Train each flow for an equal share of the race's length; the best by validation."""
    if len(flows) == 1:
        return 0
    reports: list[FitReport] = []
    for i, (flow, racer) in enumerate(zip(flows, racers, strict=True)):
        callbacks = relabelled(options.callbacks, f"race {i + 1}/{len(flows)}")
        heat = replace(_shortened(options, RACE / len(flows)), callbacks=callbacks)
        reports.append(fit_rows(flow, racer.train, racer.valid, None, heat))
    rows = min(report.checked for report in reports)
    common = sampled(len(racers[0].valid), rows, options.seed)  # the same rows for all
    scores = [mean_log_prob(f, r.valid.take(common)) for f, r in zip(flows, racers, strict=True)]
    scores = [s + ANSWERS * isinstance(r.preset, Mixed) for s, r in zip(scores, racers, strict=True)]
    return max(range(len(flows)), key=lambda i: scores[i])


@dataclass(frozen=True)
class Start:
    """What was decided and found before the training, as a checkpoint keeps it.

    Args:
        winner: which of the presets.
        seconds: that it took.
        baselines: held-out nats of the plain densities.
        scored: held-out rows that figures stand on.
        drawn: draws that are looked at.
        reserve: seconds that the training leaves for these.
        doubts: about the time.
    """

    winner: int
    seconds: float
    baselines: dict[str, float]
    scored: int
    drawn: int
    reserve: float
    doubts: tuple[str, ...] = ()


def begun(
    racers: Sequence[Racer],
    options: Options,
) -> tuple[Flow, Start, Options]:
    """The best of them, what is known before it is trained to the end, and how it is to be."""
    keeper = options.keeper
    limits = [options.max_seconds, options.max_steps, options.max_epochs]
    asked = [limits, [repr(racer.preset) for racer in racers]]
    noted = None if keeper is None else keeper.notes()
    if keeper is not None and noted is not None:
        notes = dict(noted[0])
        if notes.pop("asked", None) != asked:
            raise keeper.of_another_run("another preset or limit")
        start = Start(**{**notes, "doubts": tuple(notes["doubts"])})
        flow = racers[start.winner].build(options.seed)
        if any(flow.state_dict()[name].shape != tensor.shape for name, tensor in noted[1].items()):
            raise keeper.of_another_run("another table")
        flow.load_state_dict(noted[1])  # as the race left it
        options = replace(options, began=options.clock() - start.seconds)
    else:
        flow, start = _started(racers, replace(options, checkpoint=None))
        if keeper is not None:
            keeper.note({"asked": asked, **asdict(start)}, flow.state_dict())
    if len(racers) > 1:
        whole = {"max_seconds": options.max_seconds, "began": options.began}
        options = replace(_shortened(options, 1 - RACE), **whole)
    return flow, start, options


def _started(
    racers: Sequence[Racer],
    options: Options,
) -> tuple[Flow, Start]:
    limit, prepared = options.max_seconds, options.spent()
    flows = [racer.build(options.seed) for racer in racers]
    first = racers[0]
    sizes = sizes_for(flows, first.valid, limit, options.clock)
    scored = first.valid.take(sampled(len(first.valid), sizes.scored, options.seed))
    with seeded(options.seed):
        plain = compared(first.encoding, first.train, scored, limit)
    if limit is None:
        winner = _race(flows, racers, options)
        return flows[winner], Start(winner, options.spent(), plain, sizes.scored, sizes.drawn, 0.0)
    least, spent, doubts = LEAST * limit, options.spent(), ()
    if late := spent + sizes.seconds + least > limit:
        doubts = (
            f"{limit:.0f} seconds are short for this table: {prepared:.0f} had gone by when its rows were "
            f"ready, and training had {least:.1f}.",
        )
    left = least if late else limit - spent - sizes.seconds
    winner = _race(flows, racers, replace(options, max_seconds=left))
    spent = options.spent()
    reserve = min(sizes.seconds, limit - spent - least)
    return flows[winner], Start(winner, spent, plain, sizes.scored, sizes.drawn, reserve, doubts)


def _shortened(options: Options, share: float) -> Options:
    """The options with a share of every limit."""
    seconds, steps, epochs = options.max_seconds, options.max_steps, options.max_epochs
    return replace(
        options,
        began=None,
        max_seconds=None if seconds is None else share * seconds,
        max_steps=None if steps is None else max(1, round(share * steps)),
        max_epochs=None if epochs is None else share * epochs,
    )
