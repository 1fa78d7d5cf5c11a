"""Autoregressive sampling against its own ``log_prob``: NSF, 5 layers, hidden 64, 8 bins.

    python benchmarks/sampling.py [--features 8 64] [--batch 1024] [--repeats 15]

Runs are interleaved; figures are medians in milliseconds. ``full passes`` is the plain inverse by D
masked passes, timed for comparison.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

import diffeo
from diffeo.bijections import Autoregressive
from diffeo.nets import FullPasses, ResMADE


class ByFullPasses(ResMADE):
    """The same net, inverted the plain way."""

    def stepper(self, context, batch_shape):
        return FullPasses(self, context, batch_shape)


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--features", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    for features in arguments.features:
        flow = diffeo.presets.NSF(features=features, hidden=64).build()
        for parameter in flow.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        plain = diffeo.presets.NSF(features=features, hidden=64).build()
        plain.load_state_dict(flow.state_dict())
        for part in plain.modules():
            if isinstance(part, Autoregressive):
                part.net.__class__ = ByFullPasses
        x = torch.randn(arguments.batch, features)
        error = (flow.to_data(x) - plain.to_data(x)).abs().max().item()
        runs = {
            "log_prob": lambda flow=flow, x=x: flow.log_prob(x),
            "sample": lambda flow=flow: flow.sample(arguments.batch),
            "full passes": lambda plain=plain: plain.sample(arguments.batch),
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for i in range(arguments.repeats + 2):
            for name, run in runs.items():
                if name == "full passes" and i > 4:
                    continue
                spent = timed(run)
                if i >= 2:
                    times[name].append(spent)
        medians = {name: round(statistics.median(t), 2) for name, t in times.items()}
        ratio = round(medians["sample"] / medians["log_prob"], 2)
        row = {"features": features, "batch": arguments.batch, "ms": medians, "sample / log_prob": ratio}
        print(json.dumps({**row, "difference of the two inverses": error}), flush=True)


if __name__ == "__main__":
    main()
