"""The page of the feature table."""

from __future__ import annotations

import kit

from peers.features import LIBRARIES, NO
from peers.features.rows import ROWS, Row


def matrix(table: dict) -> str:
    """The verdicts, a row a feature."""
    verdicts = {key: [cells[library][0] for library in LIBRARIES] for key, cells in table["rows"].items()}
    return kit.markdown(["", *LIBRARIES], [[row.title, *verdicts[row.key]] for row in ROWS], align=":-:")


def details(table: dict, row: Row) -> str:
    """A row's probe, tests, and what was seen of every library."""
    cells = table["rows"][row.key]
    of = "Tests that diffeo has none" if cells["diffeo"][0] == NO else "Tests of diffeo"
    tests = ", ".join(f"`{test}`" for test in row.tests)
    lines = [f"### {row.title}", "", f"Probe: {row.probe}.", "", f"{of}: {tests}.", ""]
    lines += ["| library | | what was seen |", "|---|:-:|---|"]
    lines += [
        f"| {name} | {cells[name][0]} | {cells[name][1].replace('|', chr(92) + '|')} |" for name in cells
    ]
    return "\n".join(lines) + "\n"


def blocks(table: dict) -> dict[str, str]:
    """What the page has of the probes."""
    versions = ", ".join(f"{name} {version}" for name, version in table["versions"].items())
    when = f"What each library has, as probes found it on {table['date']}: {versions}."
    rows = "\n".join(details(table, row) for row in ROWS).rstrip()
    return {"date": when, "matrix": matrix(table), "rows": rows}
