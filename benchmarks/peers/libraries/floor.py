"""The floor: the nets' dense matrix products alone, on their very shapes, times the layers.

A training step counts each product three times (forward, gradient of input, gradient of weight); a
sample counts it once. Outputs are already allocated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from peers.libraries.on_torch import OnTorch
from peers.spec import Spec


class Floor(OnTorch):
    """The products of a spec's nets."""

    def __init__(self, spec: Spec):
        super().__init__(spec, nn.Module(), torch.zeros_like, torch.zeros)
        self.spec = spec

    def prepare(self, kind: str, batch: int) -> Callable[[], Tensor]:
        steps: list[tuple[Tensor, Tensor, Tensor]] = []
        for layer in range(self.spec.layers):
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


build = Floor
