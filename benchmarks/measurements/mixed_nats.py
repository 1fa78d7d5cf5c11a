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
import pandas as pd
from mixed.baselines import BASELINES
from mixed.cells import Cells, guessed

from measurements import Measurement


def by_model(table: mixed.Mixed, asked: Namespace) -> tuple[dict[str, dict], list[pd.DataFrame], np.ndarray]:
    """What the model takes columns for, the two parts as it takes rows, and its scores of the second."""
    import diffeo
    from diffeo.encodings.cell_kinds import Levels
    from diffeo.tables.tensors import to_rows

    path, _ = mixed.model(table, asked.seconds, asked.seed, asked.threads)
    flow, parts = diffeo.load(path), [diffeo.Table.read(file) for file in table.files]
    names, columns = list(flow.encoding.names), flow.encoding.columns
    frames = [pd.DataFrame(to_rows(flow.encoding, part).numpy(), columns=names) for part in parts]
    said = {
        column.name: {"levels": list(range(len(column.levels)))}
        if isinstance(column, Levels)
        else {"atoms": column.atoms, "step": column.step or None}
        for column in columns
    }
    return said, frames, np.asarray(diffeo.tables.score_table(flow, parts[1]).log_prob)


def rows(asked: Namespace) -> Iterator[kit.Row]:
    for table in mixed.tables(asked):
        if asked.guess:
            frames = [table.train[table.columns], table.test[table.columns]]
            said, scores = guessed(frames[0], table.categories), {}
        else:
            said, frames, own = by_model(table, asked)
            scores = {"diffeo": own}
        cells = Cells(said, frames[0])
        train, _ = cells.encode(frames[0])
        test, within = cells.encode(frames[1])
        known = (test >= 0).all(1)
        row = {"table": table.name, "test rows": len(test), "impossible": int((~known).sum())}
        for name in [*scores, *asked.baselines]:
            start = time.perf_counter()
            if name in BASELINES:
                found = BASELINES[name](cells, train, test[known], asked.seed) + within[known]
            else:
                found = scores[name][known]
            took = round(time.perf_counter() - start, 1)
            yield {**row, "density": name, **kit.mean_and_error(np.asarray(found)), "seconds": took}


OPTIONS = {
    **mixed.OPTIONS,
    "--names": list(mixed.TARGETS),
    "--baselines": (list(BASELINES), "of these"),
    "--guess": (False, "take columns by simple rules, without a model"),
}
MEASUREMENT = Measurement(__doc__, rows, {"data": ..., "seconds": 600.0, "seed": 0}, OPTIONS)
