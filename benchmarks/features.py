"""What each library has: probes that run in the environments of `make bench`.

    make features

Writes benchmarks/results/features.json and docs/results/features.md.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from pathlib import Path

from peers.features import LIBRARIES, NO
from peers.features.rows import ROWS, Row
from peers.processes import ROOT, python

JSON = ROOT / "benchmarks" / "results" / "features.json"
PAGE = ROOT / "docs" / "results" / "features.md"
HEAD = """# Features, probed

What each library has, as probes found it on {date}: {versions}.

`make features` runs them anew; they are in `benchmarks/peers/features`. A cell shows what ran, or which names
were searched in the source, or ends in "(read)": then somebody read it there and nothing ran. Where a library
has the thing under a name that was not looked for, the table errs; say so and it will be mended. Times are
those of one thread.

What no probe shows: the others have been in use for years, by many, and diffeo 0.1 has not; they run on GPUs,
where diffeo is untested, and FlowJAX on TPUs. The last rows are things that others have and diffeo has not.

"""


def probed(environment: str, module: str) -> dict:
    """A module's answers; what it says on the way goes to the terminal."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [python(environment), "-m", f"peers.features.{module}"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def merged(*answers: dict) -> dict:
    """All answers by row and library; one that is missing is an error."""
    table: dict = {"date": datetime.date.today().isoformat(), "versions": {}, "rows": {}}
    for answer in answers:
        table["versions"] |= answer.pop("versions")
    for row in ROWS:
        cells = {}
        for answer in answers:
            cells |= answer[row.key]
        table["rows"][row.key] = {library: cells[library] for library in LIBRARIES}
    return table


def matrix(table: dict, rows: tuple[Row, ...] = ROWS) -> str:
    """The verdicts, a row a feature."""
    lines = ["| | " + " | ".join(LIBRARIES) + " |", "|---|" + ":-:|" * len(LIBRARIES)]
    for row in rows:
        cells = table["rows"][row.key]
        lines.append(f"| {row.title} | " + " | ".join(cells[library][0] for library in LIBRARIES) + " |")
    return "\n".join(lines) + "\n"


def details(table: dict, row: Row) -> str:
    """A row's probe, tests, and what was seen of every library."""
    tests = ", ".join(f"`{test}`" for test in row.tests)
    of = "Tests that diffeo has none" if table["rows"][row.key]["diffeo"][0] == NO else "Tests of diffeo"
    lines = [f"### {row.title}", "", f"Probe: {row.probe}.", "", f"{of}: {tests}.", ""]
    lines += ["| library | | what was seen |", "|---|:-:|---|"]
    for library in LIBRARIES:
        verdict, seen = table["rows"][row.key][library]
        lines.append(f"| {library} | {verdict} | {seen.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def page(table: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in table["versions"].items())
    parts = [HEAD.format(date=table["date"], versions=versions) + matrix(table), "## Row by row\n"]
    return "\n".join([*parts, *(details(table, row) for row in ROWS)])


def main() -> None:
    table = merged(probed("torch", "on_torch"), probed("jax", "on_jax"))
    JSON.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(table), encoding="utf-8")


if __name__ == "__main__":
    main()
