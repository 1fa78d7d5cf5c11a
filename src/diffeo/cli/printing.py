"""The one door by which the command line prints.

Names of files and columns, notes of a model and messages about them are data from anywhere. A terminal obeys
some of what may stand in them: escape sequences move its cursor and name its window, U+202E turns the rest of
a line around. So whatever does not print becomes a question mark here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import typer

_UsageError: Any = typer.BadParameter.__base__
"""Click's, or that of typer's own copy of it."""


def clean(text: str) -> str:
    """The text with a question mark for each character that does not print, ends of lines among them.

    Example:
        >>> clean("\\x1b[2Jsize\\u202e, größe\\a")
        '?[2Jsize?, größe?'
    """
    return "".join(c if c.isprintable() else "?" for c in text)


def say(text: str = "", *, err: bool = False) -> None:
    """Print one line, at once; nothing where the stream is closed, and on standard error if it can be."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None:
        with suppress(OSError) if err else nullcontext():
            print(clean(text), file=stream, flush=True)


def grid(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print rows as a table, the first one as the header; nothing is cut when piped."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = sys.stdout is not None and sys.stdout.isatty()
    out = Console(highlight=False, width=None if shown else 200)
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for i, title in enumerate(rows[0]):
        grid.add_column(title, justify="right" if i in right else "left", overflow="fold")
    for row in rows[1:]:
        grid.add_row(*(Text(clean(cell)) for cell in row))
    with out.capture() as capture:
        out.print(grid)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()), flush=True)


@contextmanager
def usage_cleaned() -> Iterator[None]:
    """Complaints about what was typed, in the block, quote it cleaned: a shell types names of files, too."""
    try:
        yield
    except _UsageError as error:
        error.message = clean(error.message)
        raise


# -- streams ------------------------------------------------------------------------------------


def prepare_streams() -> None:
    """Make standard output and error take any text, wherever they go.

    A descriptor that is closed would be given to the first file that is opened, and be printed into. Where
    the locale has no such letter, its number is printed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]


def give_up_streams() -> None:
    """Let go what nobody takes: Python flushes once more as it ends, which would fail again, loudly."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
