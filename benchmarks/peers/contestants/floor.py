"""The floor: the nets' dense matrix products alone, on their very shapes, times the layers.

A training step counts each product three times (forward, gradient of input, gradient of weight); a
sample counts it once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from peers.architecture import LAYERS, Spec
from peers.contestants.on_torch import OnTorch


class Floor(OnTorch):
    """Products with outputs already allocated."""

    def __init__(self, spec: Spec):
        super().__init__(spec.features, nn.Module(), _none, _none)
        self.spec = spec

    def prepare(self, kind: str, batch: int) -> Callable[[], Tensor]:
        steps: list[tuple[Tensor, Tensor, Tensor]] = []
        for layer in range(LAYERS):
            for n, m in self.spec.products(layer):
                x, weight, y = torch.randn(batch, n), torch.randn(m, n) / n**0.5, torch.empty(batch, m)
                steps.append((x, weight.T, y))
                if kind == "train":
                    slope = torch.randn(batch, m)
                    steps.append((slope, weight, torch.empty(batch, n)))
                    steps.append((slope.T, x, torch.empty(m, n)))

        @torch.no_grad()
        def run() -> Tensor:
            for a, b, out in steps:
                torch.mm(a, b, out=out)
            return steps[-1][-1]

        return run


def _none(_: object) -> Tensor:
    raise NotImplementedError


def build(spec: Spec) -> Floor:
    return Floor(spec)
