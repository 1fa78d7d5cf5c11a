"""The scalar map of planar flows, against numbers of many digits and another root finder."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import brentq

from diffeo.functional.gains import MARGIN, bend, lift_of, slope_of, unbend

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
RAW = torch.tensor([0.0, 1e-6, 0.3, 1.0, 20.0, 1e4, 1e8], dtype=torch.float64)
RAW = torch.cat([-RAW.flip(0), RAW])


@dtypes
def test_slopes_are_positive_and_known_to_round_off(dtype: torch.dtype):
    slope = slope_of(RAW.to(dtype))
    c = 1 - MARGIN
    for raw, found in zip(RAW.to(dtype).tolist(), slope.tolist(), strict=True):
        root = math.hypot(raw, c)
        exact = MARGIN + (c * c / (root - raw) if raw < 0 else root + raw)
        assert found == pytest.approx(exact, rel=4 * torch.finfo(dtype).eps)
        assert found >= MARGIN
    assert (slope.diff() >= 0).all()


def test_a_slope_of_one_is_exact_and_can_be_left():
    """At 0 the derivative is 1 from either side: no saddle where layers start."""
    raw = torch.zeros(1, requires_grad=True)
    slope = slope_of(raw)
    slope.backward()
    assert slope.item() == 1
    assert raw.grad is not None
    assert raw.grad.item() == 1
    x = torch.linspace(-3, 3, 31, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(slope_of, x)
    assert torch.autograd.gradgradcheck(slope_of, x)


def test_the_lift_is_what_the_slope_adds():
    raw = torch.linspace(-5, 5, 51, dtype=torch.float64)
    assert torch.allclose(1 + raw + raw.square() * lift_of(raw), slope_of(raw))


@pytest.mark.parametrize("slope", [MARGIN, 0.1, 1.0, 3.0, 1e3])
def test_log_slope_is_that_of_autograd(slope: float):
    t = torch.tensor([-30.0, -2.0, -1e-3, 0.0, 0.5, 8.0, 1e6], dtype=torch.float64, requires_grad=True)
    value, log_slope = bend(t, torch.tensor(slope, dtype=torch.float64))
    (found,) = torch.autograd.grad(value.sum(), t)
    assert torch.allclose(log_slope.exp(), found, rtol=1e-12, atol=1e-12)


@dtypes
@pytest.mark.parametrize("slope", [MARGIN, 0.1, 1.0, 3.0, 1e3])
def test_unbend_finds_the_roots_of_another_finder(slope: float, dtype: torch.dtype):
    far = torch.tensor([0.0, 1e-6, 1e-2, 1.0, 50.0, 998.0, 1e6], dtype=dtype)
    y = torch.cat([-far, torch.linspace(-4, 4, 101, dtype=dtype), far])
    t, log_slope = unbend(y, torch.tensor(slope, dtype=dtype), "it")
    for found, given, log in zip(t.tolist(), y.tolist(), log_slope.tolist(), strict=True):
        reach = abs(slope - 1) + 1e-9
        exact = brentq(
            lambda s, given=given: s + (slope - 1) * math.tanh(s) - given, given - reach, given + reach,
            xtol=1e-300, rtol=1e-15,
        )  # fmt: skip
        rate = 1 + (slope - 1) / math.cosh(min(abs(exact), 300)) ** 2
        error = 24 * torch.finfo(dtype).eps * (abs(exact) + max(1.0, abs(given)) / rate)
        assert abs(found - exact) <= error
        # d log(rate) / dt is at most |gain| / rate
        assert abs(log + math.log(rate)) <= error * abs(slope - 1) / rate + 24 * torch.finfo(dtype).eps


def test_gradients_of_the_root_are_implicit():
    y = torch.linspace(-3, 3, 13, dtype=torch.float64, requires_grad=True)
    slope = torch.linspace(0.05, 5, 13, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y, slope: unbend(y, slope, "it"), (y, slope))


def test_not_a_number_stays_one():
    slope = torch.tensor([1.5, 1.5, math.nan])
    t, log_slope = unbend(torch.tensor([math.nan, 2.5, 2.5]), slope, "it")
    assert t.isnan().tolist() == [True, False, True]
    assert log_slope.isnan().tolist() == [True, False, True]
