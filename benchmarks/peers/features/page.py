"""The page of the feature table."""

from __future__ import annotations

import kit

from peers.features import LIBRARIES, NO
from peers.features.rows import ROWS, Row

HEAD = """# Features, probed

What each library has, as probes found it on {date}: {versions}.

`make features` runs them anew; they are in `benchmarks/peers`. A cell shows what ran, or which names
were searched in the source, or ends in "(read)": then somebody read it there and nothing ran. Where a library
has the thing under a name that was not looked for, the table errs; say so and it will be mended. Times are
those of one thread.

What no probe shows: the others have been in use for years, by many, and diffeo 0.1 has not; they run on GPUs,
where diffeo is untested, and FlowJAX on TPUs. The last rows are things that others have and diffeo has not.

"""


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


def page(table: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in table["versions"].items())
    head = HEAD.format(date=table["date"], versions=versions) + matrix(table) + "\n"
    return "\n".join([head, "## Row by row\n", *(details(table, row) for row in ROWS)])
