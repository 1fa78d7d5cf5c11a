"""bfloat16 products in training against float32: seconds a step, and held-out nats after equal steps.

    python benchmarks/products.py --data DIR [--names protein] [--hidden 128 512] [--steps 1500]

A coupling flow (CouplingNSF, 4 layers), whose nets are dense, and an autoregressive one (NSF, 4 layers); the
same seed, rows and steps for both precisions, timed one after the other.
"""

from __future__ import annotations

import argparse
import json

import data
import torch

import diffeo
from diffeo.presets import NSF, CouplingNSF
from diffeo.train.loop import Recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    data.add_arguments(parser)
    parser.add_argument("--names", nargs="+", default=["protein"])
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=1024)
    asked = parser.parse_args()
    folder = data.folder(asked, "compare")
    for name in asked.names:
        tables = (diffeo.Table.read(folder / f"{name}_{part}.parquet") for part in ("train", "test"))
        train, test = (torch.from_numpy(table.values).float() for table in tables)
        for kind in (CouplingNSF, NSF):
            for hidden in asked.hidden:
                row = {"table": name, "flow": kind.__name__, "hidden": hidden}
                for dtype in (None, torch.bfloat16):
                    torch.manual_seed(0)
                    flow = kind(train.shape[1], layers=4, hidden=hidden).build()
                    recipe = Recipe(products=dtype, patience=1.0)
                    report = diffeo.fit(
                        flow, train, max_steps=asked.steps, batch_size=asked.batch, recipe=recipe
                    )
                    with torch.no_grad():
                        nats = torch.cat([flow.log_prob(x) for x in test.split(8192)]).mean().item()
                    label = "float32" if dtype is None else "bfloat16"
                    row[label] = {
                        "ms/step": round(1e3 * report.seconds / report.steps, 2),
                        "validation": round(report.valid, 4),
                        "test": round(nats, 4),
                    }
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
