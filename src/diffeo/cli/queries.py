"""The commands that ask a model about any columns given any others, and fill gaps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffeo.cli import options
from diffeo.cli.printing import grid, say
from diffeo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from diffeo.tables import Answer

QUERY_EXAMPLE = (
    "Example: `diffeo query people.safetensors --given sex=F --given 'age=30..40' --given 'state={CA,NY}' "
    "--of income`, `diffeo query people.safetensors --given 'age>=30' --probability 'income>50000'`, "
    "`diffeo query people.safetensors --given born=1990-01-01..1999-12-31 --of income --quantiles 0.1,0.9 "
    "-o draws.csv --seed 1`"
)
IMPUTE_EXAMPLE = "Example: `diffeo impute people.safetensors gaps.csv -o filled.csv --draws 5 --seed 1`"
_LEVELS = 8
"""Most levels of a category that are printed."""
_QUANTILES = (0.05, 0.5, 0.95)


def query(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file that `diffeo fit` wrote.")],
    given: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="What is known (repeatable): sex=F, 'age=30..40', 'age>=30', 'state={CA,NY}', 'sex!=F', "
            "note=missing.",
        ),
    ] = None,
    of: Annotated[
        list[str] | None,
        typer.Option(metavar="COL", help="Column asked for (repeatable). Default: all that are not known."),
    ] = None,
    probability: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION", help="Ask how probable it is; repeated, that all of them hold at once."
        ),
    ] = None,
    quantiles: Annotated[
        str | None,
        typer.Option(metavar="Q,...", help="Quantiles of numbers; default: 0.05,0.5,0.95."),
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", metavar="N", min=1, help="Draws.")] = 1000,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="OUT", help="Write the draws; `-`: CSV on stdout.")
    ] = None,
    seed: options.DrawSeed = None,
) -> None:
    """Ask a model about some columns, given what others hold: any of either.

    Prints means and quantiles of numbers and the probabilities of levels, or the probability of a condition,
    each with its Monte-Carlo error. Where too few draws satisfy all that is given, it says so and gives no
    answer.
    """
    from diffeo.tables.files import WRITERS

    options.check_paths({"--output": output}, {"MODEL": model}, tuple(WRITERS))
    options.check_model(model)
    shown = _shares(quantiles) if quantiles is not None else list(_QUANTILES)

    from diffeo.cli import report
    from diffeo.tables.queries import query as ask

    answer = ask(options.load_model(model), of or None, given or None, n, seed)
    rows = _probable(answer, probability) if probability else _figures(answer, shown)
    numbers = len(rows[0]) - 2, len(rows[0]) - 1
    if output is not None:
        answer.rows.write(output)
        report.say_written(output, len(answer.rows))
    if output != "-":
        known = f"given {' and '.join(given)}: " if given else ""
        say(f"{known}{n:,} draws, worth {answer.ess:,.0f} independent ones")
        grid(rows, right=numbers)


def impute(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file that `diffeo fit` wrote.")],
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="CSV, Parquet, Feather/Arrow, NPY or NPZ.")],
    output: options.TableOut,
    draws: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Fillings; of several, a first column `draw` says which."),
    ] = 1,
    seed: options.DrawSeed = None,
) -> None:
    """Fill a table's missing entries with draws from a model, given all that each row has.

    What is there stays as it is. Several draws stand one below the other: how much a result differs between
    them says what the gaps leave open.
    """
    from diffeo.tables.files import WRITERS

    options.check_paths({"--output": output}, {"MODEL": model, "TABLE": table}, tuple(WRITERS))
    options.check_model(model)

    from diffeo.cli import report
    from diffeo.tables.imputation import below, impute
    from diffeo.tables.table import Table

    rows = Table.read(table)
    if draws > 1 and "draw" in rows.names:
        raise DataError("the table has a column 'draw' already; rename it.")
    filled = impute(options.load_model(model), rows, draws, seed=seed)
    written = filled[0] if draws == 1 else below(filled, "draw")
    written.write(output)
    report.say_written(output, len(written))


def _shares(text: str) -> list[float]:
    try:
        found = list(options.parse(text, tuple[float, ...]))
    except ValueError:
        found = []
    if not found or not all(0 <= q <= 1 for q in found):
        raise ConfigError(f"--quantiles {text}: write shares from 0 to 1, for example 0.1,0.5,0.9.")
    return found


def _probable(answer: Answer, asked: list[str]) -> list[tuple[str, ...]]:
    found = answer.probability(asked)
    return [
        ("", "probability", "error"),
        (" and ".join(asked), f"{found.value:.4g}", f"{found.standard_error:.2g}"),
    ]


def _figures(answer: Answer, quantiles: list[float]) -> list[tuple[str, ...]]:
    """The answer as a table of text, the header first."""
    rows: list[tuple[str, ...]] = [("column", "", "value", "error")]
    for name, dtype in zip(answer.rows.names, answer.rows.dtypes, strict=True):
        levels = answer.has_levels(name)
        rows += _of_levels(answer, name) if levels else _of_numbers(answer, name, dtype, quantiles)
    return rows


def _of_levels(answer: Answer, name: str) -> list[tuple[str, ...]]:
    every = answer.shares(name)
    ranked = sorted(every, key=lambda level: -every[level].value)
    rows = [
        (
            "" if i else name,
            "missing" if level is None else str(level),
            f"{every[level].value:.4f}",
            f"{every[level].standard_error:.4f}",
        )
        for i, level in enumerate(ranked[:_LEVELS])
    ]
    if rest := ranked[_LEVELS:]:
        rows.append(("", f"{len(rest)} others", f"{sum(every[level].value for level in rest):.4f}", ""))
    return rows


def _of_numbers(answer: Answer, name: str, dtype: str, quantiles: list[float]) -> list[tuple[str, ...]]:
    found = [("mean", answer.mean(name))]
    found += [
        (f"quantile {q:g}", e) for q, e in zip(quantiles, answer.quantiles(name, quantiles), strict=True)
    ]
    return [
        ("" if i else name, what, _number(dtype, e.value), f"{e.standard_error:.3g}")
        for i, (what, e) in enumerate(found)
    ]


def _number(dtype: str, value: float) -> str:
    """A number as text; a date or a time as such."""
    import numpy as np

    from diffeo.tables.codes import from_numbers

    if not isinstance(found := from_numbers(np.array([value]), dtype), np.ndarray):
        return str(found[0])  # a date, a time, a decimal
    return f"{value:.6g}"
