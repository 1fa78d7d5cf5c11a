"""How long a mixed table's model takes to answer, score and draw: Adult, 15 columns, medians of some rounds.

    .bench/tables/bin/python benchmarks/measure.py mixed_speed --data DIR --threads 2 [--model FILE]

``answer``: seconds of a question with 1,000 draws, in a process that has answered one before; ``score``:
rows a second of the test table; ``draw``: seconds for 100,000 rows. Wanted: 0.2 s, 50,000 rows a second, 5
s.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import kit
import mixed

import diffeo
from diffeo import tables
from measurements import Measurement

GIVEN = {
    "a level": {"sex": "Female"},
    "a level, a set and an interval": {"sex": "Female", "race": {"White", "Black"}, "age": (30, 40)},
    "all others": {},
}


def rows(asked: Namespace) -> Iterator[kit.Row]:
    (table,) = mixed.tables(asked)
    path = asked.model and Path(asked.model)
    if not path:
        path, _ = mixed.model(table, asked.seconds, asked.seed, asked.threads)
    flow, test = diffeo.load(path), diffeo.Table.read(table.files[1])
    first = table.test.dropna().iloc[0]
    runs = {}
    for name, given in GIVEN.items():
        known = given or {
            c: v.item() if hasattr(v, "item") else v for c, v in first.items() if c != table.target
        }
        runs[f"answer: {name}"] = lambda known=known: tables.query(
            flow, of=[table.target], given=known, n=1000, seed=0
        )
    runs["score"] = lambda: tables.score_table(flow, test)
    runs["draw"] = lambda: tables.sample_table(flow, 100_000, seed=0)
    for name, taken in kit.by_turns(runs, asked.rounds, warm_up=1).items():
        value = [len(test) / t for t in taken] if name == "score" else taken
        yield {"what": name, "unit": "rows a second" if name == "score" else "seconds", "median": value}


OPTIONS = {**mixed.OPTIONS, "--names": ["adult"], "--model": (None, "a model of it; else one is fitted")}
USUAL = {"data": ..., "seconds": 60.0, "seed": 0, "rounds": ...}
MEASUREMENT = Measurement(__doc__, rows, USUAL, OPTIONS)
