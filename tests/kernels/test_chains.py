"""Which neighbors of a chain are one call of the kernels, so that both directions have gradients there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffeo.functional import native
from diffeo.presets import IAF, MAF

pytestmark = pytest.mark.skipif(native.native is None, reason="built without kernels")


def test_an_iaf_draws_with_gradients_in_the_kernels(monkeypatch: pytest.MonkeyPatch):
    """What stands before the inverses in the chain must not keep their gradients out."""
    flow: Any = IAF(4, layers=2, hidden=(8,)).build()
    flow.initialize(3 * torch.randn(50, 4) + 1)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.3 * torch.randn_like(p))
    z = torch.randn(9, 4)
    assert [run.program.differentiable for run in flow.bijection._runs(None)] == [
        (True, False),
        (False, True),
    ]
    found = []
    for _ in range(2):
        x, log_det = flow.bijection.inverse(z)
        loss = (x.square().sum(-1) + log_det).sum()
        found.append([loss, *torch.autograd.grad(loss, list(flow.parameters()))])
        monkeypatch.setattr(native, "usable", lambda: False)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(*found, strict=True))


def test_layers_of_one_way_stay_one_call():
    flow: Any = MAF(4, layers=3, hidden=(8,)).build()
    assert len(flow.bijection._runs(None)) == 1
