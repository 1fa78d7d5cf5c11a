"""The commands. Each is a thin skin over one call that Python has too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from diffeo.cli import options
from diffeo.cli.distill import EXAMPLE, distill
from diffeo.cli.flags import hint
from diffeo.cli.images import images
from diffeo.cli.printing import give_up_streams, say, usage_cleaned
from diffeo.cli.queries import IMPUTE_EXAMPLE, QUERY_EXAMPLE, impute, query
from diffeo.cli.reports import EXAMPLE as REPORT_EXAMPLE
from diffeo.cli.reports import report as report_command
from diffeo.cli.targets import target
from diffeo.errors import ConfigError, DataError, DiffeoError


class OneLineErrors(TyperGroup):
    """Turns what a user can cause into one line on stderr and exit code 2; Ctrl-C into 130."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _one_line():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _one_line():
            return super().invoke(ctx)


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        with usage_cleaned():
            yield
    except BrokenPipeError:
        give_up_streams()
        raise typer.Exit(141) from None  # as the shell names a reader that left
    except (DiffeoError, OSError) as error:
        message = str(error)
        if isinstance(error, FileNotFoundError) and error.filename is not None:
            message = f"{error.filename} does not exist."
        if isinstance(error, DiffeoError):
            message += hint(error.cure)
        say(f"diffeo: error: {' '.join(message.split())}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        say("diffeo: interrupted; no output was written", err=True)
        raise typer.Exit(130) from None


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learn the density of a table, of images or of a posterior, score under it, draw new ones from it.",
    epilog="Start with `diffeo demo`, then `diffeo fit TABLE -o model.safetensors`.",
)
app.add_typer(images)
app.add_typer(target)

NAMES = ", ".join(options.TABLE_PRESETS)

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="Model file that `diffeo fit` wrote.")]
TableFile = Annotated[Path, typer.Argument(metavar="TABLE", help="CSV, Parquet, Feather/Arrow, NPY or NPZ.")]


def _version(wanted: bool) -> None:
    if wanted:
        from diffeo._version import __version__

        say(f"diffeo {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(
    epilog="Example: `diffeo fit wine.csv -o wine.safetensors --max-seconds 60 --column price=positive`"
)
def fit(
    table: TableFile,
    output: options.NewModel,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Kind of flow: {NAMES}. Default: chosen from the rows.",
        ),
    ] = None,
    set_: options.Fields = None,
    given: Annotated[
        list[str] | None, typer.Option(metavar="COL", help="Condition on a column (repeatable).")
    ] = None,
    weights: Annotated[str | None, typer.Option(metavar="COL", help="Column that weights the rows.")] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="COL", help="Leave a column out, whatever it holds (repeatable)."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COL=KIND",
            help="Declare a column's kind (repeatable): category, continuous, integer, 'integer(low, high)', "
            "'lattice(step)', positive, 'bounded(low, high)', 'circular(low, high)'.",
        ),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(metavar="S", min=0.1, help="Seconds from reading to writing; default: 120."),
    ] = None,
    max_steps: options.MaxSteps = None,
    seed: options.Seed = 0,
    checkpoint: options.RunFile = None,
) -> None:
    """Fit a flow to a table's rows and write the model.

    Prints what it takes each column for, trains with a progress bar, and ends with the held-out
    log-likelihood per row beside that of a Gaussian and of a mixture of Gaussians.
    """
    from diffeo.tables import Table  # what can be refused without torch is refused before it is imported
    from diffeo.tables.checks import check_columns

    options.check_paths({"--output": output, "--checkpoint": checkpoint}, {"TABLE": table})
    if preset is not None:
        options.check_preset(preset)
    kinds = options.assignments(column or (), "--column", "price=positive")
    given, drop = given or [], drop or []
    apart = check_columns(given, weights, drop, kinds)
    rows = Table.read(table, drop=drop)
    rows.own([*apart, *kinds])

    from diffeo.cli import report
    from diffeo.tables import Schema
    from diffeo.tables.racing import preset_for

    kind = options.preset_class(preset) if preset is not None else None
    settings = options.settings(kind, set_ or ())
    import diffeo

    with options.kept(checkpoint) as run:
        schema = Schema.infer(rows.drop(apart[len(given) :]), kinds, given=given)
        model = None
        if kind is not None:
            model = preset_for(schema, kind, **settings)
        train = diffeo.fit_table  # loaded before the first word: interrupted imports may swallow Ctrl-C
        report.say_schema(schema, len(rows), given, weights)
        flow, result = train(
            rows,
            given=given,
            weights=weights,
            columns=schema,
            preset=model,
            max_seconds=max_seconds,
            max_steps=max_steps,
            seed=seed,
            checkpoint=run,
            began=options.began(),
        )
        options.save_model(flow, output, run)
    report.say_result(result, output)


@app.command(epilog="Example: `diffeo score wine.safetensors new.csv -o scores.csv`")
def score(
    model: ModelFile,
    table: TableFile,
    output: options.TableOut,
    append: Annotated[bool, typer.Option("--append", help="Put the table's own columns first.")] = False,
) -> None:
    """Score each row of a table under a model.

    Writes `log_prob`, the log-likelihood in nats and in the data's own units, and `quantile`, the
    share of held-out rows that scored no higher, the row itself among them: near 0 is unusual. Where a
    column is integer or repeats values, `standard_error` says how far off the estimate may be.
    """
    from diffeo.tables.files import WRITERS, read_columns, write_columns

    options.check_paths({"--output": output}, {"MODEL": model, "TABLE": table}, tuple(WRITERS))
    options.check_model(model)

    from diffeo.cli import report
    from diffeo.tables.scores import score_table

    scores = score_table(options.load_model(model), table)
    own = dict(read_columns(table)) if append else {}  # as they are, text too
    for name in (name for name in scores.columns() if name in own):
        raise DataError(f"the table has a column {name!r} already; rename it.")
    write_columns(output, own | scores.columns())
    report.say_notes(scores.notes)
    report.say_written(output, len(scores.log_prob))


@app.command(epilog="Example: `diffeo sample wine.safetensors -n 1000 -o new.csv --seed 1`")
def sample(
    model: ModelFile,
    output: options.TableOut,
    n: Annotated[int, typer.Option("-n", "--rows", metavar="N", min=1, help="Rows to draw.")] = 1000,
    given: Annotated[
        list[str] | None,
        typer.Option(metavar="COL=VALUE", help="Value of a column conditioned on (repeatable)."),
    ] = None,
    given_table: Annotated[
        Path | None, typer.Option(metavar="T", help="Table of such values; N rows are drawn for each row.")
    ] = None,
    seed: options.DrawSeed = None,
) -> None:
    """Draw new rows from a model.

    The columns come back with their names, types and supports; columns conditioned on come first.
    """
    from diffeo.tables.files import WRITERS

    inputs = {"MODEL": model, "--given-table": given_table}
    options.check_paths({"--output": output}, inputs, tuple(WRITERS))
    options.check_model(model)
    if given and given_table is not None:
        raise ConfigError("give either --given or --given-table, not both.")
    values: Any = options.parse_given(given or ()) or None

    from diffeo.cli import report
    from diffeo.tables.samples import sample_table
    from diffeo.tables.table import Table
    from diffeo.tables.tensors import table_encoding

    flow = options.load_model(model)
    known = table_encoding(flow).given
    if values and known and {name.strip() for name in values} != {name.strip() for name in known}:
        needs = " ".join(f"--given {name}=VALUE" for name in known)
        raise ConfigError(f"this model needs {needs} and no other; got {', '.join(values)}.")
    if given_table is not None:
        values = Table.read(given_table, only=known or None)
    drawn = sample_table(flow, n, given=values, seed=seed)
    drawn.write(output)
    report.say_written(output, len(drawn))


@app.command(epilog="Example: `diffeo info wine.safetensors`, or `diffeo info` alone")
def info(
    model: Annotated[
        Path | None, typer.Argument(metavar="[MODEL]", help="Default: what is installed.")
    ] = None,
) -> None:
    """Say what a model file holds, or, without one, what diffeo runs on: versions, threads, kernels."""
    if model is not None:
        options.check_model(model)

    from diffeo.cli import report

    if model is None:
        report.say_versions()
    else:
        report.say_model(model, options.load_model(model))


@app.command(epilog="Example: `diffeo demo -o demo`")
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to fill.")] = Path(
        "diffeo-demo"
    ),
    seconds: Annotated[float, typer.Option(min=1, help="Time for both fits together.")] = 60.0,
) -> None:
    """Fit a toy with a known answer and a real table; leave model, scores, samples and a picture."""
    from rich.console import Console

    from diffeo.cli.demo import run

    if output.exists() and not output.is_dir():
        raise DataError(f"{output} is a file; give a folder for the demo.")
    if not output.parent.is_dir():
        raise DataError(f"the folder {output.parent} does not exist; create it first.")
    run(output, Console(), seconds)


app.command(epilog=QUERY_EXAMPLE)(query)
app.command(epilog=IMPUTE_EXAMPLE)(impute)
app.command(epilog=EXAMPLE)(distill)
app.command("report", epilog=REPORT_EXAMPLE)(report_command)
