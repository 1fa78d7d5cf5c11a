"""Gap to the exact entropy of ``NSF`` on the eight toys, on 100,000 fresh points.

python benchmarks/toys.py [--seconds 60] [--rows 100000] [--seed 0] [--names moons ...]
"""

from __future__ import annotations

import argparse
import json

import torch

import diffeo
from diffeo.data import TOYS

FRESH = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--names", nargs="+", default=list(TOYS), choices=list(TOYS))
    parser.add_argument("--set", nargs="*", default=["layers=4", "hidden=64", "bins=16"])
    arguments = parser.parse_args()
    fields = {k: int(v) for k, v in (item.split("=") for item in arguments.set)}
    for name in arguments.names:
        toy = TOYS[name]
        generator = torch.Generator().manual_seed(arguments.seed)
        rows, fresh = toy.sample(arguments.rows, generator), toy.sample(FRESH, generator)
        torch.manual_seed(arguments.seed)
        flow = diffeo.presets.NSF(features=2, **fields).build()
        report = diffeo.fit(flow, rows, max_seconds=arguments.seconds, seed=arguments.seed)
        with torch.no_grad():
            log_prob = torch.cat([flow.log_prob(part) for part in fresh.split(8192)]).double()
        excess = toy.log_prob(fresh).double() - log_prob
        row = {
            "toy": name,
            "gap": round(excess.mean().item(), 4),
            "standard_error": round(excess.std().item() / FRESH**0.5, 4),
            "entropy": toy.entropy,
            "nll": round(-log_prob.mean().item(), 4),
            "steps": report.steps,
            "seconds": round(report.seconds, 1),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
