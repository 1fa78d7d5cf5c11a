"""The mixture of sigmoids: the hand-written derivative against the plain formula, and both tails."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from diffeo.functional.sigmoidal import logit_mixture, logit_mixture_plain


def drawn(size: float, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    x = size * torch.randn(7, 3, generator=g, dtype=torch.float64)
    units = 2 * torch.randn(3, 5, 7, 3, generator=g, dtype=torch.float64)
    return [t.to(dtype).requires_grad_() for t in (x, *units)]


@pytest.mark.parametrize("size", [1.0, 30.0, 1e6])
def test_values_and_gradients_are_the_plain_ones(size: float):
    inputs = drawn(size)
    weights = torch.randn(2, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found, wanted = ([*f(*inputs)] for f in (logit_mixture, logit_mixture_plain))
    for outputs in (found, wanted):
        total = (outputs[0] * weights[0] + outputs[1] * weights[1]).sum()
        outputs += torch.autograd.grad(total, inputs)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_derivatives_are_right_to_second_order():
    inputs = drawn(2.0)
    assert torch.autograd.gradcheck(logit_mixture, inputs)
    assert torch.autograd.gradgradcheck(logit_mixture, inputs)


def test_only_what_is_asked_for():
    x, *units = drawn(1.0)
    x = x.detach()
    y, log_slope = logit_mixture(x, *units)
    (y.sum() + log_slope.sum()).backward()
    assert x.grad is None
    assert all(t.grad is not None for t in units)
    with torch.no_grad():
        assert torch.equal(logit_mixture(x, *units)[0], y)


def test_float32_far_out_is_float64():
    """The slope too, although D and the tail it is divided by are of the order exp(-1e7) there."""
    for size in (1e3, 1e6):
        single = logit_mixture(*(t.detach() for t in drawn(size, torch.float32)))
        double = logit_mixture_plain(*(t.detach().float().double() for t in drawn(size)))
        torch.testing.assert_close(single[0].double(), double[0], rtol=2e-6, atol=1e-5)
        torch.testing.assert_close(single[1].double(), double[1], rtol=2e-6, atol=1e-5)


def test_transforms_take_the_plain_way():
    x, *units = (t.detach() for t in drawn(1.0))
    mapped = torch.func.vmap(logit_mixture, (0, 1, 1, 1))(x, *units)
    for a, b in zip(mapped, logit_mixture(x, *units), strict=True):
        torch.testing.assert_close(a, b)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda *a: logit_mixture(*a)[0]), (0, 1, 1, 1))(x, *units)
    slopes = torch.diagonal(jacobian, dim1=-2, dim2=-1)
    torch.testing.assert_close(slopes.log(), logit_mixture(x, *units)[1])
    with forward_ad.dual_level(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch, on its own account
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        tangent = forward_ad.unpack_dual(logit_mixture(dual, *units)[0]).tangent
    assert tangent is not None
    torch.testing.assert_close(tangent.log(), logit_mixture(x, *units)[1])
