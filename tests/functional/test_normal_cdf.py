"""The normal distribution in logarithms, against scipy; mixtures of it, against their definition."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from scipy import special
from torch import Tensor

from diffeo.functional.normal_cdf import log_hazard, log_ndtri, log_tails, probit_mixture

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def depths() -> Tensor:
    """Points from the middle to a million million, float64."""
    far = torch.logspace(0, 9, 400, dtype=torch.float64)
    return torch.cat([torch.linspace(-40, 40, 4001, dtype=torch.float64), far, -far])


@dtypes
def test_log_tails(dtype: torch.dtype):
    z = depths().to(dtype)
    below, above = log_tails(z)
    truth = torch.from_numpy(special.log_ndtr(z.double().numpy()))
    # far right the logarithm vanishes as the density does, which magnifies round-off by z^2
    bound = 8 * torch.finfo(dtype).eps * truth.abs() * (1 + z.double().clamp_min(0).square())
    assert ((below.double() - truth).abs() <= bound + torch.finfo(dtype).tiny).all()
    assert torch.equal(above, log_tails(-z)[0])


@dtypes
def test_log_hazard(dtype: torch.dtype):
    z = depths().to(dtype)
    d = z.double()
    truth = -0.5 * d * d - 0.5 * math.log(2 * math.pi) - torch.from_numpy(special.log_ndtr(d.numpy()))
    scaled = torch.from_numpy(special.erfcx(d.clamp_max(0).neg().numpy() / math.sqrt(2)))
    truth = torch.where(d < 0, 0.5 * math.log(2 / math.pi) - scaled.log(), truth)
    error = (log_hazard(z).double() - truth).abs()
    assert (error <= 8 * torch.finfo(dtype).eps * (1 + truth.abs())).all()


@dtypes
def test_log_ndtri_undoes_log_ndtr(dtype: torch.dtype):
    z = depths()
    z = z[z <= 0.01]
    log_p = torch.from_numpy(special.log_ndtr(z.numpy())).to(dtype)
    found = log_ndtri(log_p).double()
    truth = log_ndtri(log_p.double())  # of what the dtype kept
    assert ((found - truth).abs() <= 10 * torch.finfo(dtype).eps * truth.abs().clamp_min(1)).all()
    exact = log_ndtri(torch.from_numpy(special.log_ndtr(z.numpy())))
    assert ((exact - z).abs() <= 1e-14 * z.abs().clamp_min(1)).all()


def test_derivatives():
    z = torch.linspace(-150, 20, 35, dtype=torch.float64).requires_grad_()
    for f in (log_hazard, lambda z: log_tails(z)[0]):
        assert torch.autograd.gradcheck(f, z, rtol=1e-5)
    log_p = torch.linspace(-3000, -0.7, 31, dtype=torch.float64).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch, on its own account
        assert torch.autograd.gradcheck(log_ndtri, log_p, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(log_ndtri, log_p)
    near = torch.linspace(-60, -0.7, 9, dtype=torch.float64)
    mapped = torch.func.vmap(torch.func.grad(log_ndtri))(near)
    torch.testing.assert_close(mapped, (-log_hazard(log_ndtri(near))).exp())


def test_gradients_in_float32_are_those_of_float64():
    z = -torch.logspace(-2, 9, 200)
    single, double = z.clone().requires_grad_(), z.double().requires_grad_()
    for t in (single, double):
        log_hazard(t).sum().backward()
    assert single.grad is not None
    assert double.grad is not None
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-4, atol=0)


def test_nan():
    z = torch.tensor([math.nan, 0.0])
    for t in (*log_tails(z), log_hazard(z), log_ndtri(z - 1)):
        assert t.isnan().tolist() == [True, False]


def test_a_mixture_is_its_definition_in_both_tails():
    torch.manual_seed(0)
    logits, centers, log_rates = torch.randn(3, 4, 1, dtype=torch.float64)
    x = torch.cat([torch.linspace(-5, 5, 41), torch.tensor([-1e8, 1e8])]).double()
    shape = (4, len(x))
    y, log_slope = probit_mixture(x, logits.expand(shape), centers.expand(shape), log_rates.expand(shape))
    s = (torch.special.ndtr(log_rates.exp() * (x - centers)) * logits.softmax(0)).sum(0)
    middle = (s > 1e-10) & (s < 1 - 1e-6)
    torch.testing.assert_close(y[middle], torch.special.ndtri(s)[middle], rtol=1e-8, atol=1e-8)
    widest = log_rates.min()
    torch.testing.assert_close(y[-2:] / x[-2:], widest.exp().expand(2), rtol=1e-6, atol=0)
    torch.testing.assert_close(log_slope[-2:], widest.expand(2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mixture_is_straight_as_far_as_floats_go(dtype: torch.dtype) -> None:
    log_rates = torch.tensor([0.0, 0.7], dtype=dtype).unsqueeze(1)
    logits, centers = torch.zeros_like(log_rates), torch.tensor([[0.3], [-0.2]], dtype=dtype)
    largest = torch.finfo(dtype).max
    far = torch.tensor(
        [largest**0.25, largest**0.5, 10 * largest**0.5, largest**0.75, largest / 4], dtype=dtype
    )
    for x in (far, -far):
        shape = (2, len(x))
        inputs = [t.expand(shape) for t in (logits, centers, log_rates)]
        y, log_slope = probit_mixture(x, *inputs)
        # far out the widest unit, of rate 1, is all there is
        torch.testing.assert_close(y, x)
        torch.testing.assert_close(log_slope, torch.zeros_like(x), rtol=0, atol=1e-5)
