"""Measurements by name: a module each, which has a ``MEASUREMENT``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import kit

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


@dataclass(frozen=True)
class Measurement:
    """What is asked, and a function that gives a row after the other."""

    doc: str
    """The module's docstring: the title, the command, what the columns mean."""
    rows: Callable[[Namespace], Iterable[kit.Row]]
    usual: dict[str, Any] = field(default_factory=dict)
    """The options of ``kit`` that it has, with its defaults."""
    options: dict[str, Any] = field(default_factory=dict)
    """Its own: a default, or a pair of default and help."""
    hidden: tuple[str, ...] = ()
    """What is kept and not shown."""
    page: bool = False
    """Whether what is kept has a page, NAME.md."""
    stands_on: Callable[[Namespace], list[str]] = lambda asked: []
    """The other libraries it takes part of, whose versions are kept as well."""

    def parser(self) -> kit.Options:
        parser = kit.Options(self.doc, **{"threads": 1, **self.usual})
        for name, given in self.options.items():
            default, help = given if isinstance(given, tuple) else (given, "")
            parser.option(name, default, help)
        parser.option("--keep", False, "also write NAME.json and NAME.md into RESULTS")
        return parser.option("--results", kit.RESULTS, "folder for both")


def named(name: str) -> Measurement:
    return import_module(f"measurements.{name}").MEASUREMENT
