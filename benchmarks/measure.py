"""Measurements by name: what each finds goes out a row at a time as JSON, and in the end as a table.

    python benchmarks/measure.py NAME [options]
    python benchmarks/measure.py contraction --lipschitz 0.9
    python benchmarks/measure.py NAME --help

With --keep, benchmarks/results/NAME.json and NAME.md are written as well.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace

import kit
from measurements import NAMES, Measurement, named
from peers.worker import versions


def options() -> kit.Options:
    parser = kit.Options(__doc__)
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    return parser


def run(name: str, measurement: Measurement, asked: Namespace) -> None:
    found = {**kit.provenance("measure.py", asked, asked.threads), "options": kit.settings(asked), "rows": []}
    for row in measurement.rows(asked):
        print(json.dumps({k: v for k, v in row.items() if k not in measurement.hidden}), flush=True)
        found["rows"].append(row)
    print("\n" + kit.shown(found["rows"], measurement.hidden))
    if asked.keep:
        found["versions"] |= versions(measurement.stands_on(asked), asked.threads)
        kit.write(asked.results, name, found, page(name, measurement, found) if measurement.page else "")


def page(name: str, measurement: Measurement, found: kit.Row) -> str:
    """The docstring, the command, the rows, and where it ran."""
    prose = [part for part in measurement.doc.strip().split("\n\n") if not part.startswith("    ")]
    place, versions = found["machine"], ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    where = f"{place['processor']}, {place['threads']} threads, {place['date']}. {versions}."
    title = f"# {name.replace('_', ' ').capitalize()}"
    parts = [title, *prose, f"    {found['command']}", kit.shown(found["rows"], measurement.hidden), where]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    name = options().parse_args(sys.argv[1:2]).name
    measurement = named(name)
    parser = measurement.parser()
    parser.prog = f"measure.py {name}"
    run(name, measurement, parser.ask(sys.argv[2:]))


if __name__ == "__main__":
    main()
