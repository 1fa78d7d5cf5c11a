"""The inverse of the slowest contraction, ``y = x + 0.97 Q x``, Q orthogonal: its error and iterations.

python benchmarks/measure.py contraction [--lipschitz 0.97] [--features 64] [--count 256]
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

import kit
import torch

from diffeo.bijections import Contractive
from diffeo.nets import LipschitzMLP
from measurements import Measurement


@torch.no_grad()
def rows(asked: Namespace) -> Iterator[kit.Row]:
    generator = torch.Generator().manual_seed(asked.seed)
    size = asked.features, asked.features
    q = torch.linalg.qr(torch.randn(size, generator=generator, dtype=torch.float64))[0]
    points = torch.randn(asked.count, asked.features, generator=generator, dtype=torch.float64)
    for dtype in (torch.float64, torch.float32):
        layer = Contractive(LipschitzMLP(asked.features, (), lipschitz=asked.lipschitz)).to(dtype)
        layer.net.weights()[0].copy_(asked.lipschitz * (1 - 1e-7) * q)
        x = points.to(dtype)
        y = layer.push(x)
        yield {
            "dtype": str(dtype).removeprefix("torch."),
            "round trip": (layer.pull(y) - x).abs().max().item(),
            "iterations": layer.solve(y).iterations,
            "plain iterations": layer.solve(y, memory=0).iterations,
            "certified bound": (layer.solve(y).residual / (1 - asked.lipschitz)).max().item(),
        }


OPTIONS = {"--lipschitz": 0.97, "--features": 64, "--count": (256, "rows")}
MEASUREMENT = Measurement(__doc__, rows, {"seed": ...}, OPTIONS)
