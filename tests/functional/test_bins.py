"""Knots, look-up and rounding rules."""

from __future__ import annotations

import torch

from diffeo.functional.affine import soft_clip
from diffeo.functional.bins import fractions, knots, locate, outside, snap


def test_fractions_sum_to_one_and_keep_their_floor():
    parts = fractions(torch.tensor([[50.0, -50.0, 0.0]]), 1e-3)
    assert parts.min() >= 1e-3
    assert torch.allclose(parts.sum(-1), torch.ones(1))


def test_ends_of_the_box_are_exact():
    ends = knots(fractions(torch.randn(100, 7), 1e-3), -3.3, 0.1)[:, [0, -1]]
    assert torch.equal(ends, torch.tensor([[-3.3, 0.1]]).expand(100, 2))


def test_a_knot_belongs_to_the_bin_at_its_right():
    grid = torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(6, 4)
    x = torch.tensor([0.0, 0.5, 1.0, 2.0, 3.0, torch.nan])
    assert locate(x, grid).tolist() == [0, 0, 1, 2, 2, 0]


def test_snap_clamps_the_value_and_not_the_gradient():
    x = torch.tensor([-0.1, 0.5, 1.1], requires_grad=True)
    y = snap(x, torch.zeros(3), torch.ones(3))
    y.sum().backward()
    assert y.tolist() == [0.0, 0.5, 1.0]
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 1.0]


def test_nan_is_not_outside():
    assert outside(torch.tensor([torch.nan, -1.0, 0.0, 1.0, 2.0]), 0.0, 1.0).tolist() == [
        False, True, False, False, True,
    ]  # fmt: skip


def test_soft_clip_is_the_identity_to_first_order_and_bounded():
    raw = torch.tensor([0.0, 1e30, -1e30], requires_grad=True)
    clipped = soft_clip(raw, 7.0)
    clipped.sum().backward()
    assert raw.grad is not None
    assert raw.grad[0] == 1
    assert clipped.tolist() == [0.0, 7.0, -7.0]
