"""What each library has: probes that run in the environments of `make bench`.

    make features

Writes features.json in benchmarks/results and features.md in docs/results, or in other folders:

    .bench/torch/bin/python -m peers.features --results /tmp --pages /tmp
"""

from __future__ import annotations

import datetime
import json

import kit

from peers.features import LIBRARIES
from peers.features.page import blocks
from peers.features.rows import ROWS


def options() -> kit.Options:
    return kit.Options(__doc__, results=..., pages=...)


def merged(*answers: dict) -> dict:
    """All answers by row and library; one that is missing is an error."""
    table: dict = {"date": datetime.date.today().isoformat(), "versions": {}, "rows": {}}
    for answer in answers:
        table["versions"] |= answer.pop("versions")
    for row in ROWS:
        cells = {library: cell for answer in answers for library, cell in answer[row.key].items()}
        table["rows"][row.key] = {library: cells[library] for library in LIBRARIES}
    return table


def main() -> None:
    asked = options().parse_args()
    found = [kit.answer([kit.python(venv), "-m", "peers.features.probe"]) for venv in ("torch", "jax")]
    table = merged(*found)
    (asked.results / "features.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    kit.fill(asked.pages / "features.md", blocks(table))


if __name__ == "__main__":
    main()
