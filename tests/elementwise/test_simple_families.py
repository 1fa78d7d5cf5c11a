"""Additive, Affine, PiecewiseLinear and PiecewiseQuadratic against the contract of a family."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffeo.elementwise.additive import Additive
from diffeo.elementwise.affine import Affine
from diffeo.elementwise.base import Elementwise
from diffeo.elementwise.linear_spline import PiecewiseLinear
from diffeo.elementwise.quadratic_spline import PiecewiseQuadratic
from diffeo.functional.domains import bounds

FAMILIES = [
    Additive(),
    Affine(),
    PiecewiseLinear(),
    PiecewiseLinear(bins=16, low=-3.0, high=5.0),
    PiecewiseQuadratic(),
    PiecewiseQuadratic(bins=2, bound=10.0),
]
family_cases = pytest.mark.parametrize("family", FAMILIES, ids=repr)


def inside(family: Elementwise, count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    low, high = bounds(family.domain)
    unit = torch.rand(count, dtype=dtype)
    return low + (high - low) * unit if high < math.inf else 8 * unit - 4


@family_cases
def test_log_slope_is_the_autograd_derivative(family: Elementwise):
    torch.manual_seed(0)
    x, params = inside(family, 500).requires_grad_(), 3 * torch.randn(500, family.num_params).double()
    for apply in (family.forward, family.inverse):
        y, log_slope = apply(x, params)
        (slope,) = torch.autograd.grad(y.sum(), x)
        assert torch.allclose(slope.log(), log_slope, atol=1e-7)


@family_cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("far", [0.0, 1e6])
def test_round_trips_keep_their_bound_with_extreme_parameters(
    family: Elementwise, dtype: torch.dtype, far: float
):
    torch.manual_seed(1)
    x = inside(family, 4000, dtype)
    if far and bounds(family.domain)[1] == math.inf:
        x = far * x.sign()
    params = 20 * torch.rand(4000, family.num_params, dtype=dtype) - 10
    params[::2] = 10 * params[::2].sign()
    limit, s = 64 * torch.finfo(dtype).eps, family.scale
    y, log_slope = family.forward(x, params)
    back, _ = family.inverse(y, params)
    allowed = limit * (x.abs().clamp_min(s) + y.abs().clamp_min(s) * torch.exp(-log_slope))
    assert ((back - x).abs() <= allowed).all()
    # ... and from the other side, x now playing y.
    z, log_slope = family.inverse(x, params)
    again, _ = family.forward(z, params)
    allowed = limit * (x.abs().clamp_min(s) + z.abs().clamp_min(s) * torch.exp(-log_slope))
    assert ((again - x).abs() <= allowed).all()


@family_cases
def test_gradients_are_finite_everywhere(family: Elementwise):
    torch.manual_seed(2)
    x = torch.tensor([-1e6, -3.0, -1.0, 0.0, 0.125, 0.5, 1.0, 3.0, 5.0, 1e6]).repeat(100).requires_grad_()
    params = (20 * torch.rand(1000, family.num_params) - 10).requires_grad_()
    for apply in (family.forward, family.inverse):
        y, log_slope = apply(x, params)
        used = torch.where(log_slope > -math.inf, log_slope, 0.0)
        for grad in torch.autograd.grad((y + used).sum(), (x, params)):
            assert grad.isfinite().all()


@family_cases
def test_zero_parameters_are_the_identity(family: Elementwise):
    x = inside(family, 100)
    y, log_slope = family.forward(x, torch.zeros(100, family.num_params).double())
    assert torch.allclose(y, x, atol=1e-14)
    assert torch.allclose(log_slope, torch.zeros_like(x), atol=1e-13)


@family_cases
def test_nan_stays_nan(family: Elementwise):
    x, params = torch.full((1,), torch.nan), torch.zeros(1, family.num_params)
    assert family.forward(x, params)[0].isnan().all()
    assert family.inverse(x, params)[0].isnan().all()


@family_cases
def test_captured_transformed_and_differentiated_twice(family: Elementwise):
    """Peers' splines cannot be captured: boolean-mask indexing, asserts, ``.any()``."""
    torch.manual_seed(3)
    x, params = inside(family, 5), torch.randn(5, family.num_params).double()
    for apply in (family.forward, family.inverse):
        plain = apply(x, params)
        mapped = torch.func.vmap(apply)(x, params)
        assert all(torch.allclose(a, b) for a, b in zip(plain, mapped, strict=True))
        jac = torch.func.jacrev(lambda t, apply=apply: apply(t, params)[0])(x)
        assert torch.allclose(jac.diagonal().log(), plain[1])
        assert torch.autograd.gradgradcheck(
            lambda t, p, apply=apply: apply(t, p),
            (x.clone().requires_grad_(), params.clone().requires_grad_()),
        )


@pytest.mark.parametrize("family", [PiecewiseLinear(), PiecewiseQuadratic()], ids=repr)
def test_splines_are_captured_whole(family: Elementwise):
    x, params = torch.rand(6), torch.randn(6, family.num_params)
    captured = torch.compile(family.forward, fullgraph=True, backend="eager")
    assert torch.allclose(captured(x, params)[0], family.forward(x, params)[0])
