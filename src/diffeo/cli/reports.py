"""``diffeo report``: a thin skin over ``diffeo.tables.report``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from diffeo.cli import options
from diffeo.cli.printing import say

EXAMPLE = "Example: `diffeo report wine.safetensors wine.csv -o report.html`"


def report(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file that `diffeo fit` wrote.")],
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="The table it was fitted to, or new rows.")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT", help="Page (.html) or its figures (.json) to write."),
    ],
    test: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="Rows held out, where TABLE is all that was trained on."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="COL", help="Column that a model trained on the draws is to predict."),
    ] = None,
    rows: Annotated[
        int, typer.Option("-n", "--rows", metavar="N", min=1, help="Most rows to draw, and to look at.")
    ] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of draws, samples and folds.")] = 0,
) -> None:
    """Find out whether a model is any good, and write a page about it.

    Draws rows and holds them against the table's: every column, every pair, whether gradient boosting can
    tell them apart and by which columns, what a model learns from them, and copies. Scores the rows: held
    out and trained on, beside plain densities, and the rarest. The page loads nothing from elsewhere.
    """
    from diffeo.tables.markup import check_suffix

    check_suffix(output)
    options.check_paths({"--output": output}, {"MODEL": model, "TABLE": table, "--test": test})
    options.check_model(model)

    from diffeo.tables import report as found

    with _stages() as told:
        result = found(
            options.load_model(model), table, test=test, target=target, rows=rows, seed=seed, told=told
        )
    result.write(output)
    for line in str(result).splitlines():
        say(line)
    say(f"wrote {output}", err=True)


@contextmanager
def _stages() -> Iterator[Callable[[str], None]]:
    """What shows each stage on standard error while the block runs, where somebody sees it."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda stage: None
        return
    with console.status("reading") as status:
        yield status.update
