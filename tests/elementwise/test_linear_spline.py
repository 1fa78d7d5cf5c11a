"""The histogram family."""

from __future__ import annotations

import math

import pytest
import torch

from diffeo.elementwise.linear_spline import PiecewiseLinear
from diffeo.errors import ConfigError


def test_knots_and_slopes_are_those_of_the_figure():
    family, phi = PiecewiseLinear(bins=5, min_slope=1e-9), torch.tensor([0.1, 0.4, 0.1, 0.3, 0.1]).double()
    x = torch.arange(6) / 5
    y, log_slope = family.forward(x.double(), phi.log().expand(6, 5))
    assert torch.allclose(y, torch.tensor([0.0, 0.1, 0.5, 0.6, 0.9, 1.0]).double(), atol=1e-8)
    assert torch.allclose(log_slope[:5].exp(), 5 * phi, atol=1e-7)


def test_density_integrates_to_one():
    torch.manual_seed(0)
    family = PiecewiseLinear(bins=8, low=-2.0, high=3.0)
    params = 4 * torch.randn(8).double()
    x = torch.linspace(-2, 3, 40_001, dtype=torch.float64)
    _, log_slope = family.forward(x, params.expand(len(x), 8))
    assert abs(torch.trapezoid(log_slope.exp(), x).item() / 5 - 1) < 1e-3


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_no_nan_gradients_outside_the_box(direction: str):
    """flowjax issue 239: a spline's unused branch leaks NaN gradients."""
    family = PiecewiseLinear()
    x = torch.tensor([-1e6, -1e-6, 1.0001, math.inf, 0.5], requires_grad=True)
    params = torch.randn(5, 8, requires_grad=True)
    y, log_slope = getattr(family, direction)(x, params)
    assert log_slope.tolist()[:4] == [-math.inf] * 4
    assert y.isfinite().all()
    grads = torch.autograd.grad((y + log_slope)[:4].sum(), (x, params))
    assert all((grad == 0).all() for grad in grads)


def test_ends_belong_to_the_box():
    y, log_slope = PiecewiseLinear(low=-1.0, high=2.0).forward(torch.tensor([-1.0, 2.0]), torch.randn(2, 8))
    assert y.tolist() == pytest.approx([-1.0, 2.0])
    assert log_slope.isfinite().all()


@pytest.mark.parametrize("bad", [{"bins": 0}, {"low": 1.0}, {"high": math.inf}, {"min_slope": 1.0}], ids=repr)
def test_bad_fields_are_refused(bad: dict[str, float]):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        PiecewiseLinear(**bad)  # pyright: ignore[reportArgumentType]


def test_a_gradient_of_zero_for_the_value_is_left_out():
    """Before a uniform base nothing depends on y; its zeros change nothing, and count where they move."""
    torch.manual_seed(0)
    family = PiecewiseLinear(bins=6, low=-0.5, high=0.5)
    x, params = torch.rand(20).double() - 0.5, torch.randn(20, 6).double().requires_grad_()
    y, log_slope = family.forward(x, params)
    (alone,) = torch.autograd.grad(log_slope.sum(), params, retain_graph=True)
    (both,) = torch.autograd.grad(log_slope.sum() + (0 * y).sum(), params, retain_graph=True)
    assert torch.equal(alone, both)
    (wanted,) = torch.autograd.grad(y.sum(), params, retain_graph=True)
    assert wanted.abs().max() > 1e-3
    weight = torch.zeros(20, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad((weight * y).sum(), params, create_graph=True)
    assert (slope == 0).all()
    (back,) = torch.autograd.grad((slope * wanted).sum(), weight)
    torch.testing.assert_close(back, wanted.square().sum(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_hundreds_of_bins(dtype: torch.dtype):
    """Against sums in float64, at points in every bin; a level may have nearly all the mass."""
    family = PiecewiseLinear(bins=256, low=-0.5, high=0.5, min_slope=1e-5)
    torch.manual_seed(0)
    logits = 3 * torch.randn(256, dtype=torch.float64)
    phi = 1e-5 / 256 + (1 - 1e-5) * logits.softmax(-1)
    level = torch.arange(256)
    x = (level + 0.25) / 256 - 0.5
    y, log_slope = family.forward(x.to(dtype), logits.to(dtype).expand(256, 256))
    wanted = phi.cumsum(-1) - 0.75 * phi - 0.5
    tolerance = 200 * torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), wanted, rtol=0, atol=tolerance)
    torch.testing.assert_close(log_slope.double(), (256 * phi).log(), rtol=0, atol=tolerance)
    certain = torch.zeros(256, 256, dtype=dtype)
    certain[:, 3] = 80
    log_mass = family.forward(x.to(dtype), certain)[1] - math.log(256)
    assert -2e-5 < log_mass[3] < 0
    assert (log_mass[level != 3] > math.log(3e-8)).all()


def test_rounding_does_not_leave_the_box():
    """A float32 sum of probabilities may pass one; beyond the box a uniform base has no density."""
    torch.manual_seed(0)
    family = PiecewiseLinear(bins=256, low=-0.5, high=0.5, min_slope=1e-5)
    logits = 6 * torch.randn(4000, 256)
    logits[:, 200:] -= 40
    x = 0.3 + 0.2 * torch.rand(4000)
    assert (logits.softmax(-1).cumsum(-1)[:, 199] > 1).any()
    y, log_slope = family.forward(x, logits)
    assert (y <= 0.5).all()
    again, _ = family.inverse(y, logits)
    assert (again <= 0.5).all()
    assert log_slope.isfinite().all()
