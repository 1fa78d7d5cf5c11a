"""Default ``fit_table`` on the five comparison tables: mean test nats per row.

    python benchmarks/tables.py --data DIR [--seconds 120] [--seeds 0 1 2] [--names galaxies ...]

Each table has a training and a test file; test rows are scored after the fit. Nothing is set.
"""

from __future__ import annotations

import argparse
import json

import data
import numpy as np

import diffeo
from diffeo.io.recipes import to_recipe

NAMES = ("galaxies", "protein", "california", "power", "kin8nm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    data.add_arguments(parser)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--names", nargs="+", default=NAMES, choices=NAMES)
    arguments = parser.parse_args()
    folder = data.folder(arguments, "compare")
    for name in arguments.names:
        test = diffeo.Table.read(folder / f"{name}_test.parquet")
        means = []
        for seed in arguments.seeds:
            flow, report = diffeo.fit_table(
                folder / f"{name}_train.parquet", max_seconds=arguments.seconds, seed=seed
            )
            log_prob = diffeo.tables.score_table(flow, test).log_prob
            means.append(float(log_prob.mean()))
            assert flow.preset is not None
            row = {
                "table": name,
                "seed": seed,
                "test": round(means[-1], 3),
                "standard_error": round(float(log_prob.std() / np.sqrt(len(log_prob))), 3),
                "held_out": {k: round(v, 3) for k, v in report.baselines.items()},
                "steps": report.steps,
                "best_step": report.best_step,
                "seconds": round(report.seconds, 1),
                "stopped": report.stopped,
                "flow": to_recipe(flow.preset)["fields"],
            }
            print(json.dumps(row), flush=True)
        print(f"{name}: mean {np.mean(means):.3f}, from {min(means):.3f} to {max(means):.3f}", flush=True)


if __name__ == "__main__":
    main()
