"""``diffeo distill``: a thin skin over ``diffeo.distill``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffeo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from diffeo.distillation import DistillReport
    from diffeo.flow import Flow

EXAMPLE = "Example: `diffeo distill maf.safetensors -o iaf.safetensors --max-seconds 300`"


def distill(
    teacher: Annotated[Path, typer.Argument(metavar="TEACHER", help="Model file to learn from.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="STUDENT", help="Model file to write.")],
    preset: Annotated[
        str | None, typer.Option(help="Kind of flow; default: an IAF for a MAF, else CouplingNSF.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Set a preset's field (repeatable)."),
    ] = None,
    given_table: Annotated[
        Path | None, typer.Option(metavar="T", help="Table of what the teacher is conditioned on.")
    ] = None,
    max_seconds: Annotated[float | None, typer.Option(metavar="S", min=0.1, help="Time to train.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights, the draws and the batches.")] = 0,
) -> None:
    """Fit a student to a model, without any data, and write it: a full replacement.

    A MAF samples column by column; its student, an IAF, in one pass. Ends with both KL divergences between
    the two, in nats, by Monte Carlo on fresh draws.
    """
    import diffeo
    from diffeo._files import check_output
    from diffeo.cli import options

    check_output(output)
    options.apart({"TEACHER": teacher, "--output": output, "--given-table": given_table})
    kind = options.preset_class(preset) if preset is not None else None
    settings = options.settings(kind, set_ or ())
    flow = options.load_model(teacher)
    student = None if kind is None else _preset(kind, settings, flow)
    context = _context(flow, given_table)
    found, result = diffeo.distill(flow, student, context=context, max_seconds=max_seconds, seed=seed)
    found.notes["teacher"] = teacher.name
    diffeo.save(found, output)
    _say(flow, found, result, output)


def _preset(kind: type[Any], settings: dict[str, Any], teacher: Flow) -> Any:
    """The student's preset, of the teacher's columns and context."""
    from diffeo.presets import VectorPreset

    shape = teacher.without_encoding().event_shape
    if len(shape) != 1:
        raise ConfigError(
            "the command line distills models of tables; for images use diffeo.distill in Python."
        )
    own = teacher.preset
    given: dict[str, Any] = {"features": shape[0]}
    if isinstance(own, VectorPreset):
        given["context"] = own.context
        if own.circular and "circular" in (f.name for f in fields(kind)):
            given["circular"] = own.circular
    return kind(**{**given, **settings})


def _context(teacher: Flow, given_table: Path | None) -> Tensor | None:
    """Rows of the columns that the teacher is conditioned on."""
    import torch

    from diffeo.tables.scores import table_encoding
    from diffeo.tables.table import Table

    if teacher.context_shape is None:
        if given_table is not None:
            raise ConfigError("this model is conditioned on nothing; leave --given-table out.")
        return None
    names = table_encoding(teacher).given
    if given_table is None:
        raise ConfigError(
            f"this model is conditioned on {', '.join(names)}; give --given-table, a table with such columns."
        )
    rows = Table.read(given_table)
    if missing := [name for name in names if name not in rows.names]:
        raise DataError(f"{given_table} has no column {missing[0]!r}, which the model is conditioned on.")
    return torch.from_numpy(rows.select(names).values)


def _say(teacher: Flow, student: Flow, result: DistillReport, output: Path) -> None:
    """How the run went, and how far the student is from its teacher."""
    from diffeo.cli import report

    for name, flow in (("teacher", teacher), ("student", student)):
        size = sum(p.numel() for p in flow.parameters())
        typer.echo(f"{name}  {report.preset_name(flow)}, {size:,} parameters")
    report.say_training(result.training, result.seconds)
    if result.lost:
        typer.echo(f"left out {result.lost:,} draws of the teacher that are not finite")
    found = result.judgment
    typer.echo(f"student against teacher, {found.rows:,} fresh draws of each, nats (0 is perfect):")
    typer.echo(f"KL(teacher || student)  {found.forward_kl:.4f} +- {found.forward_kl_error:.4f}")
    typer.echo(f"KL(student || teacher)  {found.reverse_kl:.4f} +- {found.reverse_kl_error:.4f}")
    if found.lost:
        typer.echo(f"left out {found.lost:,} draws of the student that are not finite")
    typer.echo(f"The student's draws, weighted, are worth {found.ess:.0%} as many of the teacher's.")
    typer.echo(f"wrote {output}")
