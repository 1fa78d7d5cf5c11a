"""Default ``fit_table`` on tables of 300 to 2,000 rows, beside a Gaussian and a mixture: test nats.

    python benchmarks/small_tables.py --data DIR [--seconds 120] [--splits 0] [--names concrete ...]

X and y together, the published 90/10 splits; the three models score the same test rows.
"""

from __future__ import annotations

import argparse
import json

import data
import numpy as np
import torch

import diffeo
from diffeo.io.recipes import to_recipe
from diffeo.tables.baselines import encoded_baselines

NAMES = ("concrete", "energy", "wine-quality-red")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    data.add_arguments(parser)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--splits", type=int, nargs="+", default=[0])
    parser.add_argument("--names", nargs="+", default=NAMES, choices=NAMES)
    arguments = parser.parse_args()
    folder = data.folder(arguments, "uci_regression")
    for name in arguments.names:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
            rows = np.column_stack([file["X"], file["y"]])
            masks = np.unpackbits(file["test_mask_packed"], axis=1)[:, : len(rows)].astype(bool)
        for split in arguments.splits:
            train = diffeo.Table.of(rows[~masks[split]])
            test = diffeo.Table.of(rows[masks[split]])
            flow, report = diffeo.fit_table(train, max_seconds=arguments.seconds, seed=split)
            assert flow.encoding is not None
            assert flow.preset is not None
            names = flow.encoding.names
            plain = encoded_baselines(
                flow.encoding,
                torch.from_numpy(train.select(names).values),
                torch.from_numpy(test.select(names).values),
            )
            scores = diffeo.tables.score_table(flow, test).log_prob
            found = {"flow": float(scores.mean()), **plain}
            row = {
                "table": name,
                "split": split,
                "rows": len(train),
                "test": {k: round(v, 3) for k, v in found.items()},
                "steps": report.steps,
                "best_step": report.best_step,
                "seconds": round(report.seconds, 1),
                "flow": to_recipe(flow.preset)["fields"],
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
