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
