"""Second derivatives of every family, at its knots, its ends and beyond, against differences of first."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from diffeo.functional.domains import bounds
from diffeo.presets import BPF
from diffeo.testing.points import generator
from tests.cases import CASES, knots_of

FAMILIES = [name for name in CASES["elementwise"] if CASES["elementwise"][name]().features is None]


def slopes(family: Any, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The slope, its logarithm's derivative, and the derivative of both, each by autograd."""

    def of(y: Tensor) -> Tensor:
        if not y.requires_grad:
            return torch.zeros_like(x)
        (g,) = torch.autograd.grad(y.sum(), x, create_graph=True, allow_unused=True)
        return torch.zeros_like(x) if g is None else g

    x = x.detach().requires_grad_()
    y, log_slope = family.forward(x, params.expand(*x.shape, -1))
    return log_slope.exp(), of(log_slope), of(of(y)), of(of(log_slope))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [0.0, 0.7])
@pytest.mark.parametrize("name", FAMILIES)
def test_second_derivatives_are_those_of_the_slope(name: str, scale: float, dtype: torch.dtype) -> None:
    family = CASES["elementwise"][name]()
    family = family.to(dtype) if isinstance(family, torch.nn.Module) else family
    params = scale * torch.randn(family.num_params, generator=generator(3), dtype=torch.float64).to(dtype)
    size = family.scale or 3.0
    places = [0.0, 0.37, 1.0, -1.0, 1.5, -1.5, 1e3, -1e3]
    knots = knots_of(family)
    there = [] if knots is None else knots(params.unsqueeze(0))[0].flatten().tolist()
    low, high = bounds(family.domain)
    x = torch.tensor([p for p in (*(size * p for p in places), *there) if low <= p <= high], dtype=dtype)
    *_, second, of_log = slopes(family, x, params)
    assert second.isfinite().all()
    assert of_log.isfinite().all()
    if dtype is torch.float64:
        step = 1e-6 * size
        left, here, right = (slopes(family, x + d, params)[:2] for d in (-step, 0.0, step))
        for found, a, b, c in zip((second, of_log), left, here, right, strict=True):
            sides = torch.stack([(b - a) / step, (c - b) / step])  # they differ at knots
            low_side, high_side = sides.amin(0), sides.amax(0)
            room = 1e-3 * (1 + sides.abs().amax(0))
            inside = (low_side - room <= found) & (found <= high_side + room)
            assert (inside | ~sides.isfinite().all(0)).all()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("point", [0.0, 4.0, 5.0, 50.0])
def test_a_fresh_flow_of_bernstein_polynomials_curves_as_its_base(point: float) -> None:
    flow = BPF(2, layers=1).build().eval().double()
    x = torch.tensor([point, 0.0], dtype=torch.float64)
    for hessian in (torch.autograd.functional.hessian, lambda f, x: torch.func.hessian(f)(x)):
        torch.testing.assert_close(hessian(flow.log_prob, x), -torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("name", FAMILIES)
def test_second_derivatives_of_inverses(name: str) -> None:
    """Those that Newton's method finds, too: first ones alone would leave second ones at 0 without a word."""
    family = CASES["elementwise"][name]()
    family = family.double() if isinstance(family, torch.nn.Module) else family
    params = 0.7 * torch.randn(family.num_params, generator=generator(3), dtype=torch.float64)
    low, high = bounds(family.domain)
    places = torch.tensor([-1.31, -0.23, 0.317, 0.83, 2.71], dtype=torch.float64)
    y, _ = family.forward(places.clamp(max(low + 0.01, -9), min(high - 0.01, 9)), params.expand(5, -1))

    def gradient(y: Tensor) -> tuple[Tensor, Tensor]:
        y = y.detach().requires_grad_()
        x, log_slope = family.inverse(y, params.expand(5, -1))
        (first,) = torch.autograd.grad((x + log_slope).sum(), y, create_graph=True)
        if not first.requires_grad:
            return first, torch.zeros_like(y)
        (second,) = torch.autograd.grad(first.sum(), y, allow_unused=True)
        return first, torch.zeros_like(y) if second is None else second

    step = 1e-6
    wanted = (gradient(y + step)[0] - gradient(y - step)[0]) / (2 * step)
    torch.testing.assert_close(gradient(y)[1], wanted.detach(), rtol=1e-5, atol=1e-6)
