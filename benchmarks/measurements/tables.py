"""Default ``fit_table`` on the five comparison tables: mean test nats per row.

    python benchmarks/measure.py tables --data DIR [--seconds 120] [--seeds 0 1 2] [--names galaxies ...]

Each table has a training and a test file; test rows are scored after the fit. Nothing is set.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

import kit

import diffeo
from measurements import Measurement

NAMES = ["galaxies", "protein", "california", "power", "kin8nm"]


def rows(asked: Namespace) -> Iterator[kit.Row]:
    for name in asked.names:
        train, test = kit.tables(asked, name)
        for seed in asked.seeds:
            flow, report = diffeo.fit_table(train, max_seconds=asked.seconds, seed=seed)
            yield {
                "table": name,
                "seed": seed,
                **kit.mean_and_error(diffeo.tables.score_table(flow, test).log_prob, 3),
                **kit.fitted(report.training),
                "held out": report.baselines,
                "flow": kit.fields(flow.preset),
            }


USUAL = {"data": ..., "seconds": 120.0, "seeds": [0, 1, 2]}
MEASUREMENT = Measurement(__doc__, rows, USUAL, {"--names": NAMES}, hidden=("held out", "flow"))
