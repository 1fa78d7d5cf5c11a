"""bfloat16 products in training against float32: seconds a step, and nats after equal steps.

    python benchmarks/measure.py products --data DIR [--names protein] [--hidden 128 512] [--steps 1500]

A coupling flow (CouplingNSF, 4 layers), whose nets are dense, and an autoregressive one (NSF, 4 layers); the
same seed, rows and steps for both precisions, timed one after the other.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

import kit
import torch

import diffeo
from diffeo.presets import NSF, CouplingNSF
from diffeo.train import OptimizerSettings
from measurements import Measurement


def rows(asked: Namespace) -> Iterator[kit.Row]:
    for name in asked.names:
        train, test = (torch.from_numpy(table.values).float() for table in kit.tables(asked, name))
        for kind in (CouplingNSF, NSF):
            for hidden in asked.hidden:
                row = {"table": name, "flow": kind.__name__, "hidden": hidden, "steps": asked.steps}
                for label, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):
                    torch.manual_seed(asked.seed)
                    flow = kind(train.shape[1], layers=4, hidden=hidden).build()
                    settings = OptimizerSettings(matmul_dtype=dtype, patience=1.0)
                    size = {"max_steps": asked.steps, "batch_size": asked.batch}
                    report = diffeo.fit(flow, train, seed=asked.seed, optimizer=settings, **size)
                    with torch.no_grad():
                        nats = torch.cat([flow.log_prob(x) for x in test.split(8192)]).mean().item()
                    row[f"{label}, ms a step"] = 1e3 * report.seconds / report.steps
                    row[f"{label}, held out"], row[f"{label}, test"] = report.valid, nats
                yield row


OPTIONS = {"--names": ["protein"], "--hidden": [128, 512], "--steps": 1500, "--batch": 1024}
MEASUREMENT = Measurement(__doc__, rows, {"data": ..., "seed": ...}, OPTIONS)
