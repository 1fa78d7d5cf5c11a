"""``diffeo distill``: a thin skin over ``diffeo.distill``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffeo.cli import options
from diffeo.cli.printing import say
from diffeo.errors import ConfigError

if TYPE_CHECKING:
    from diffeo.distillation import DistillReport
    from diffeo.flow import Flow

EXAMPLE = "Example: `diffeo distill maf.safetensors -o iaf.safetensors --max-seconds 300`"


def distill(
    teacher: Annotated[Path, typer.Argument(metavar="TEACHER", help="Model file to learn from.")],
    output: options.NewModel,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Kind of flow; default: an IAF for a MAF, else CouplingNSF."),
    ] = None,
    set_: options.Fields = None,
    given_table: Annotated[
        Path | None, typer.Option(metavar="T", help="Table of what the teacher is conditioned on.")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(metavar="S", min=0.1, help="Seconds for all; default: 10,000 steps.")
    ] = None,
    max_steps: options.MaxSteps = None,
    seed: options.Seed = 0,
    checkpoint: options.RunFile = None,
) -> None:
    """Fit a student to a model, without any data, and write it: a full replacement.

    A MAF samples column by column; its student, an IAF, in one pass. Ends with both KL divergences between
    the two, in nats, by Monte Carlo on fresh draws. A teacher that is conditioned on columns is learned
    at the rows of --given-table.
    """
    inputs = {"TEACHER": teacher, "--given-table": given_table}
    options.check_paths({"--output": output, "--checkpoint": checkpoint}, inputs)
    options.check_model(teacher)
    if preset is not None:
        options.check_preset(preset)

    import diffeo
    from diffeo.distillation import student_preset
    from diffeo.tables import Table
    from diffeo.tables.tensors import table_encoding

    kind = options.preset_class(preset) if preset is not None else None
    settings = options.settings(kind, set_ or ())
    with options.kept(checkpoint) as run:
        flow = options.load_model(teacher)
        if len(flow.without_encoding().event_shape) != 1:
            raise ConfigError(f"{teacher} is a model of images; diffeo.distill in Python takes it.")
        context = None
        if given_table is not None:
            context = Table.read(given_table, only=table_encoding(flow).given or None)
        found, result = diffeo.distill(
            flow,
            None if kind is None else student_preset(flow, kind, **settings),
            context=context,
            max_seconds=max_seconds,
            max_steps=max_steps,
            seed=seed,
            checkpoint=run,
            began=options.began(),
        )
        found.notes["teacher"] = teacher.name
        options.save_model(found, output, run)
    _say(flow, found, result, output)


def _say(teacher: Flow, student: Flow, result: DistillReport, output: Path) -> None:
    """How the run went, and how far the student is from its teacher."""
    from diffeo.cli import report

    for name, flow in (("teacher", teacher), ("student", student)):
        size = sum(p.numel() for p in flow.parameters())
        say(f"{name}  {report.preset_name(flow)}, {size:,} parameters")
    report.say_training(result.training, result.seconds)
    if result.lost:
        say(f"left out {result.lost:,} draws of the teacher that are not finite")
    found = result.judgment
    say(f"student against teacher, {found.num_draws:,} fresh draws of each, nats (0 is perfect):")
    say(f"KL(teacher || student)  {found.forward_kl:.4f} +- {found.forward_kl_error:.4f}")
    say(f"KL(student || teacher)  {found.reverse_kl:.4f} +- {found.reverse_kl_error:.4f}")
    if found.lost:
        say(f"left out {found.lost:,} draws of the student that are not finite")
    say(f"The student's draws, weighted, are worth {found.ess:.0%} as many of the teacher's.")
    say(f"wrote {output}")
