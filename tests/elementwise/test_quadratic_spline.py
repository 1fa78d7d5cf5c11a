"""The family with a piecewise-linear slope."""

from __future__ import annotations

import pytest
import torch

from diffeo.elementwise.quadratic_spline import PiecewiseQuadratic
from diffeo.errors import ConfigError


def test_slope_is_continuous_and_piecewise_linear_and_integrates_to_the_box():
    torch.manual_seed(0)
    family = PiecewiseQuadratic(bins=6, bound=2.0, min_width=0.05)
    params = 2 * torch.randn(family.num_params).double()
    x = torch.linspace(-2.5, 2.5, 50_001, dtype=torch.float64)
    y, log_slope = family.forward(x, params.expand(len(x), -1))
    slope = log_slope.exp()
    assert abs(torch.trapezoid(slope, x).item() - 5) < 1e-6
    assert (slope.diff().abs() < 0.02).all()
    # Bends only at the K + 1 knots: each shows in at most two second differences.
    assert (slope.diff(n=2).abs() > 1e-10).sum() <= 2 * 7
    assert (y.diff() > 0).all()


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_tails_are_exactly_the_identity_with_clean_gradients(direction: str):
    """flowjax issue 239: a spline's unused branch leaks NaN gradients."""
    family = PiecewiseQuadratic(bound=3.0)
    x = torch.tensor([-1e6, -3.001, 3.001, 1e6], requires_grad=True)
    params = (10 * torch.randn(4, family.num_params)).requires_grad_()
    y, log_slope = getattr(family, direction)(x, params)
    assert torch.equal(y, x)
    assert (log_slope == 0).all()
    dx, dparams = torch.autograd.grad((y + log_slope).sum(), (x, params))
    assert (dx == 1).all()
    assert (dparams == 0).all()


@pytest.mark.parametrize(
    "bad", [{"bins": 1}, {"bound": 0.0}, {"min_width": 0.2}, {"min_slope": 0.0}], ids=repr
)
def test_bad_fields_are_refused(bad: dict[str, float]):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        PiecewiseQuadratic(**bad)  # pyright: ignore[reportArgumentType]
