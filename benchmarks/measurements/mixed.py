"""Synthetic rows of mixed tables by TabDiff's protocol: ``diffeo fit`` and ``diffeo sample``, nothing set.

    .bench/tables/bin/python benchmarks/measure.py mixed --data DIR --seconds 600 --threads 2 [--seeds 0 1 2]
    .bench/tables/bin/python benchmarks/measure.py mixed --data DIR --names adult --rows FILE

As many rows as were trained on, against these; `mixed/figures.py` says what each figure is. ``published`` is
the best of TabSyn, TabDiff, TabPC, CTGAN and TVAE. ``real`` is the efficacy of the training rows themselves.
--rows takes synthetic rows of a file, CSV or Parquet, or `shuffled`: each training column by itself, whose
published figures say whether these here are computed in the same way.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import kit
import mixed
import numpy as np
import pandas as pd

from measurements import Measurement


def shuffled(table: mixed.Mixed, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({name: rng.permutation(column) for name, column in table.train.items()})


def drawn(table: mixed.Mixed, seed: int, asked: Namespace) -> tuple[pd.DataFrame, kit.Row]:
    if asked.rows == "shuffled":
        return shuffled(table, seed), {"fit": asked.rows}
    made: kit.Row = {"fit": asked.rows and Path(asked.rows).name}
    path = asked.rows and Path(asked.rows)
    if not path:
        model, made = mixed.model(table, asked.seconds, seed, asked.threads)
        path, how = mixed.samples(table, model, seed, asked.threads)
        made |= how
    return (pd.read_parquet if path.suffix == ".parquet" else pd.read_csv)(path), made


def rows(asked: Namespace) -> Iterator[kit.Row]:
    from mixed import figures

    figures.THREADS = asked.threads
    for table in mixed.tables(asked):
        for seed in asked.seeds:
            synthetic, made = drawn(table, seed, asked)
            found = figures.figures(table, synthetic)
            yield {"table": table.name, "seed": seed, **found, **made}
        if table.target is not None:
            best = {name: table.published(name) for name in mixed.PUBLISHED}
            yield {"table": table.name, "seed": "published", **best}
            yield {
                "table": table.name,
                "seed": "real",
                "efficacy": round(figures.efficacy(table, table.train), 4),
            }


OPTIONS = {**mixed.OPTIONS, "--rows": (None, "a file of synthetic rows, or `shuffled`")}
MEASUREMENT = Measurement(__doc__, rows, {"data": ..., "seconds": 600.0, "seeds": [0]}, OPTIONS)
