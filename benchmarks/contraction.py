"""The inverse of the slowest contraction, ``y = x + 0.97 Q x``, Q orthogonal: its error and iterations.

python benchmarks/contraction.py [--lipschitz 0.97] [--features 64] [--rows 256] [--seed 0]
"""

from __future__ import annotations

import argparse
import json

import torch

from diffeo.bijections import Contractive
from diffeo.nets import LipschitzMLP


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--lipschitz", type=float, default=0.97)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    generator = torch.Generator().manual_seed(asked.seed)
    size = asked.features, asked.features
    q = torch.linalg.qr(torch.randn(size, generator=generator, dtype=torch.float64))[0]
    points = torch.randn(asked.rows, asked.features, generator=generator, dtype=torch.float64)
    for dtype in (torch.float64, torch.float32):
        layer = Contractive(LipschitzMLP(asked.features, (), lipschitz=asked.lipschitz)).to(dtype)
        with torch.no_grad():
            layer.net.weights()[0].copy_(asked.lipschitz * (1 - 1e-7) * q)
            x = points.to(dtype)
            y = layer.push(x)
            row = {
                "dtype": str(dtype).removeprefix("torch."),
                "round_trip_error": (layer.pull(y) - x).abs().max().item(),
                "iterations": layer.solve(y).iterations,
                "plain_iterations": layer.solve(y, memory=0).iterations,
                "certified_bound": (layer.solve(y).residual / (1 - asked.lipschitz)).max().item(),
            }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
