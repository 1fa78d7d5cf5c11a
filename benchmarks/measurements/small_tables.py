"""Default ``fit_table`` on tables of 300 to 2,000 rows, beside a Gaussian and a mixture: test nats.

    python benchmarks/measure.py small_tables --data DIR [--seconds 120] [--splits 0] [--names concrete ...]

X and y together, the published 90/10 splits; the three models score the same test rows.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

import kit
import numpy as np
import torch

import diffeo
from diffeo.tables.gaussians import encoded_baselines
from measurements import Measurement

NAMES = ["concrete", "energy", "wine-quality-red"]


def rows(asked: Namespace) -> Iterator[kit.Row]:
    for name in asked.names:
        path = kit.folder(asked, "uci_regression") / f"{name}.npz"
        with np.load(path, allow_pickle=False) as file:
            values = np.column_stack([file["X"], file["y"]])
            masks = np.unpackbits(file["test_mask_packed"], axis=1)[:, : len(values)].astype(bool)
        for split in asked.splits:
            train, test = (diffeo.Table.of(values[part]) for part in (~masks[split], masks[split]))
            flow, report = diffeo.fit_table(train, max_seconds=asked.seconds, seed=split)
            same = (torch.from_numpy(table.select(flow.encoding.names).values) for table in (train, test))
            yield {
                "table": name,
                "split": split,
                "training rows": len(train),
                **encoded_baselines(flow.encoding, *same),
                **kit.mean_and_error(diffeo.tables.score_table(flow, test).log_prob, 3),
                **kit.fitted(report.training),
                "flow": kit.fields(flow.preset),
            }


OPTIONS = {"--splits": [0], "--names": NAMES}
MEASUREMENT = Measurement(__doc__, rows, {"data": ..., "seconds": 120.0}, OPTIONS, hidden=("flow",))
