"""The flat optimizer against ``torch.optim`` on the same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffeo.train.optimizer import FlatAdamW


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2), nn.Linear(4, 4)).double()


@pytest.mark.parametrize("clip", [0.05, 1e9])
def test_the_update_is_adamw(clip: float):
    ours, mean, theirs = net(), net(), net()
    flat = FlatAdamW(list(ours.parameters()), list(mean.parameters()), weight_decay=0.1, clip=clip)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=1.0, weight_decay=0.1)
    expected_mean = [p.detach().clone() for p in theirs.parameters()]
    generator = torch.Generator().manual_seed(1)
    for step in range(20):
        x = torch.randn(7, 3, generator=generator, dtype=torch.float64)
        for model in (ours, theirs):
            for p in model.parameters():
                p.grad = None
            model[:3](x).square().mean().backward()  # the last layer has no part in it
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip)
        assert flat.gather() == pytest.approx(norm.item())
        flat.step(learning_rate=0.01 * (step + 1), decay=0.9)
        for group in adamw.param_groups:
            group["lr"] = 0.01 * (step + 1)
        for p in theirs[3].parameters():
            p.grad = torch.zeros_like(p)  # weight decay acts on what has no gradient, too
        adamw.step()
        for m, p in zip(expected_mean, theirs.parameters(), strict=True):
            m.lerp_(p.detach(), 0.1)
    for model, wanted in ((ours, list(theirs.parameters())), (mean, expected_mean)):
        for found, expected in zip(model.parameters(), wanted, strict=True):
            torch.testing.assert_close(found.data, expected.data, rtol=1e-10, atol=1e-12)


def test_parameters_are_views_until_they_are_released():
    model, mean = net(), net()
    flat = FlatAdamW(list(model.parameters()), list(mean.parameters()), 0.0, 1.0)
    before = [p.detach().clone() for p in model.parameters()]
    assert len({p.untyped_storage().data_ptr() for p in model.parameters()}) == 1
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    assert torch.equal(flat.flat[:15].view(5, 3), before[0] + 1.0)
    flat.release()
    assert len({p.untyped_storage().data_ptr() for p in [*model.parameters(), *mean.parameters()]}) == 12
    for p, b in list(zip(model.parameters(), before, strict=True))[1:]:
        assert torch.equal(p, b)


def test_state_goes_back():
    model, other = net(), net()
    flat, twin = (FlatAdamW(list(m.parameters()), list(net().parameters()), 0.0, 1.0) for m in (model, other))
    for _ in range(3):
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        flat.gather()
        flat.step(0.1, 0.5)
    other.load_state_dict(model.state_dict())
    twin.load_state({k: v.clone() for k, v in flat.state.items()})
    for optimizer, m in ((flat, model), (twin, other)):
        for p in m.parameters():
            p.grad = torch.full_like(p, 0.5)
        optimizer.gather()
        optimizer.step(0.1, 0.5)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
