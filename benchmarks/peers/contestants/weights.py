"""Weights for residual and continuous flows: as they start, their solvers have nothing to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from peers.architecture import Spec

STEPS, ROWS, RATE = 500, 512, 1e-2
STRENGTH = 0.9
GAIN = 3.0


def fit_contractions(nets: Sequence[nn.Module], features: int, settle: Callable[[nn.Module], object]) -> None:
    """Fit net k to ``0.9 Q_k tanh(x)``, Q_k a random rotation: hardly less than a residual block may have.

    A net that keeps its Lipschitz bound comes only so near to it. ``settle`` is called after each step:
    whatever the library does there for the bound.
    """
    generator = torch.Generator().manual_seed(0)
    for net in nets:
        turn = torch.linalg.qr(torch.randn(features, features, generator=generator))[0]
        optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
        for _ in range(STEPS):
            x = 2 * torch.randn(ROWS, features, generator=generator)
            optimizer.zero_grad()
            (net(x) - STRENGTH * x.tanh() @ turn).square().mean().backward()
            optimizer.step()
            settle(net)


def field_weights(spec: Spec) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each layer of a field: torch's own start, weights three times as large.

    The first layer's columns are those of the time, then those of x. With tanh between them this moves points
    by some 0.8 and turns corners: what a trained flow does.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        layers = [nn.Linear(n, m) for n, m in spec.products(0)]
        return [(GAIN * layer.weight, layer.bias.clone()) for layer in layers]
