"""Nats a test row of mixed tables beside four baselines, all on the model's measure.

    .bench/tables/bin/python benchmarks/measure.py mixed_nats --data DIR --seconds 600 --threads 2

Log-mass of levels, gaps, atoms and points of a grid, log-density of all else; which column has which is read
from the model (`mixed/cells.py`), and the baselines (`mixed/baselines.py`) learn the same training rows.
``impossible`` counts test rows with a value that no training row has, to which every one of them gives none;
means are over the others. --guess needs no model: it takes columns by simple rules.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator

import kit
import mixed
import numpy as np
from mixed.baselines import BASELINES
from mixed.cells import Cells, guessed

from measurements import Measurement


def rows(asked: Namespace) -> Iterator[kit.Row]:
    for table in mixed.tables(asked):
        names = table.columns
        said = guessed(table.train[names], table.categories)
        cells = Cells(said, table.train)
        train, _ = cells.encode(table.train)
        test, within = cells.encode(table.test)
        known = (test >= 0).all(1)
        row = {"table": table.name, "test rows": len(test), "impossible": int((~known).sum())}
        for name in asked.baselines:
            start = time.perf_counter()
            scores = BASELINES[name](cells, train, test[known], asked.seed) + within[known]
            took = round(time.perf_counter() - start, 1)
            yield {**row, "density": name, **kit.mean_and_error(np.asarray(scores)), "seconds": took}


OPTIONS = {
    **mixed.OPTIONS,
    "--baselines": (list(BASELINES), "of these"),
    "--guess": (False, "take columns by simple rules, without a model"),
}
MEASUREMENT = Measurement(__doc__, rows, {"data": ..., "seconds": 600.0, "seed": 0}, OPTIONS)
