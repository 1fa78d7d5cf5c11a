"""The rows of the feature table, as ``rows.ini`` has them."""

from __future__ import annotations

from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """A feature: what is asked, what ran for whom, and the tests that hold diffeo to it."""

    key: str
    title: str
    probe: str
    tests: tuple[str, ...]
    searched: str | None
    """The names that say a library has it; None where there is a probe for every one."""
    layer: bool
    """Whether they are searched among the layers of flows only."""


def read(path: Path) -> tuple[Row, ...]:
    parser = ConfigParser(interpolation=None, delimiters=("=",))
    parser.read_string(path.read_text(encoding="utf-8"))
    return tuple(
        Row(
            key,
            row["title"],
            row["probe"].replace("\n", " "),
            tuple(row["tests"].split()),
            row.get("layers", row.get("searched")),
            "layers" in row,
        )
        for key, row in parser.items()
        if key != "DEFAULT"
    )


ROWS = read(Path(__file__).with_name("rows.ini"))
