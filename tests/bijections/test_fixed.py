"""The fixed scalar maps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import transforms

from diffeo.bijections.fixed import Exp, LeakyReLU, Logit, PointwiseMap, Sigmoid, Softplus, Tanh
from diffeo.errors import ConfigError
from diffeo.functional.domains import bounds

KINDS = [Sigmoid, Logit, Exp, Softplus, Tanh, LeakyReLU]
kinds = pytest.mark.parametrize("kind", KINDS)


def inside(layer: PointwiseMap, dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.linspace(-4, 4, 81, dtype=dtype)[:, None]
    return torch.sigmoid(x) if layer.domain is not LeakyReLU.domain else x


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_round_trip_and_autograd_slope(kind, dtype: torch.dtype):
    layer = kind((1,))
    x = inside(layer, dtype).requires_grad_()
    y, log_det = layer(x)
    back, inverse_log_det = layer.inverse(y)
    (slope,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    eps = torch.finfo(dtype).eps
    assert y.dtype == log_det.dtype == dtype
    assert log_det.shape == (81,)
    assert torch.allclose(slope.log()[:, 0], log_det, atol=4e3 * eps)
    bound = 64 * eps * (x.abs() + y.abs() * torch.exp(-log_det)[:, None])
    assert ((back - x).abs() <= bound).all()
    assert torch.allclose(inverse_log_det, -log_det, atol=4e3 * eps)
    (slope,) = torch.autograd.grad(back.sum(), y)
    assert torch.allclose(slope.log()[:, 0], inverse_log_det, atol=4e3 * eps)


@pytest.mark.parametrize(
    "kind, peer",
    [(Sigmoid, transforms.SigmoidTransform()), (Logit, transforms.SigmoidTransform().inv),
     (Exp, transforms.ExpTransform()), (Softplus, transforms.SoftplusTransform()),
     (Tanh, transforms.TanhTransform())],
)  # fmt: skip
def test_agrees_with_torch_distributions(kind, peer):
    layer = kind((1,))
    x = inside(layer)
    y, log_det = layer(x)
    assert torch.allclose(y, peer(x))
    assert torch.allclose(log_det, peer.log_abs_det_jacobian(x, y)[:, 0])


@kinds
def test_log_det_sums_over_the_event(kind):
    x = inside(kind((1,)))[:12].reshape(2, 3, 2)
    parts = kind((1,))(x.reshape(12, 1))[1].reshape(2, 3, 2)
    assert torch.allclose(kind((3, 2))(x)[1], parts.sum((1, 2)))
    assert torch.allclose(kind(())(x)[1], parts)


@kinds
@pytest.mark.parametrize("value", [-1e6, -200.0, -20.0, 20.0, 200.0, 1e6])
def test_both_tails_stay_inside_and_finite_in_float32(kind, value: float):
    layer = kind((1,))
    apply, codomain = (layer.inverse, layer.domain) if kind is Logit else (layer.forward, layer.codomain)
    x = torch.tensor([[value]], requires_grad=True)
    y, log_det = apply(x)
    low, high = bounds(codomain)
    assert low < y.item() < high
    assert log_det.isfinite().all()
    exact = apply(x.double())[1]
    assert torch.allclose(log_det.double(), exact)
    assert torch.autograd.grad(y.sum() + log_det.sum(), x)[0].isfinite().all()
    back = (layer.forward if kind is Logit else layer.inverse)(y.detach().requires_grad_())
    assert all(t.isfinite().all() for t in back)


@pytest.mark.parametrize("y", [1e-40, 1e-30, 1e-7, 0.5, 1 - 6e-8])
@pytest.mark.parametrize("kind", [Sigmoid, Softplus, Exp, Tanh])
def test_inverse_gradients_are_finite_up_to_the_ends(kind, y: float):
    point = torch.tensor([[y]], requires_grad=True)
    x, log_det = kind((1,)).inverse(point)
    (x.sum() + log_det.sum()).backward()
    assert x.isfinite().all()
    assert log_det.isfinite().all()
    assert point.grad is not None
    assert point.grad.isfinite().all()


OUTSIDE = [
    (Logit, "forward", [-1e6, -1.0, 0.0, 1.0, 2.0, math.inf]),
    (Sigmoid, "inverse", [-1e6, -1.0, 0.0, 1.0, 2.0, -math.inf]),
    (Exp, "inverse", [-1e6, -1.0, 0.0, -math.inf]),
    (Softplus, "inverse", [-1e6, -1.0, 0.0, -math.inf]),
    (Tanh, "inverse", [-1e6, -1.0, 1.0, 1e6]),
    (Exp, "forward", [-math.inf, math.inf]),
]


@pytest.mark.parametrize("kind, direction, points", OUTSIDE)
def test_outside_the_domain_is_minus_infinity_never_nan(kind, direction: str, points: list[float]):
    x = torch.tensor(points)[:, None].requires_grad_()
    y, log_det = getattr(kind((1,)), direction)(x)
    assert y.isfinite().all()
    assert (log_det == -math.inf).all()
    for t in (y, log_det):
        assert (torch.autograd.grad(t.sum(), x, retain_graph=True)[0] == 0).all()


@kinds
def test_nan_stays_nan(kind):
    layer, x = kind((2,)), torch.tensor([[0.5, torch.nan]])
    for apply in (layer.forward, layer.inverse):
        y, log_det = apply(x)
        assert y.isnan().tolist() == [[False, True]]
        assert log_det.item() != -math.inf


@kinds
def test_differentiated_twice_and_mapped(kind):
    layer = kind((2,)).double()
    x = torch.tensor([[0.2, 0.6], [0.9, 0.3]], dtype=torch.float64, requires_grad=True)
    for apply in (layer.forward, layer.inverse):
        assert torch.autograd.gradgradcheck(lambda t, apply=apply: apply(t), x)
        assert torch.allclose(torch.func.vmap(apply)(x)[0], apply(x)[0])
        assert torch.func.vmap(torch.func.jacrev(lambda t, apply=apply: apply(t)[0]))(x).shape == (2, 2, 2)


def test_float64_tails_are_not_cut_off_at_20():
    """torch's softplus is linear from 20 on: 2e-9 off, and zuko's tests would not see it."""
    x = torch.tensor([[25.0]], dtype=torch.float64)
    y, log_det = Softplus((1,))(x)
    assert (y - x).item() == pytest.approx(math.exp(-25), rel=1e-3)
    assert log_det.item() == pytest.approx(-math.exp(-25), rel=1e-9)


def test_small_values_come_back_to_their_own_precision():
    x = torch.tensor([[-80.0], [-30.0], [-1e-20], [1e-20]])
    for kind in (Sigmoid, Exp, Softplus):
        assert torch.allclose(kind((1,)).inverse(kind((1,))(x)[0])[0][:2], x[:2])
    assert torch.allclose(Tanh((1,)).inverse(Tanh((1,))(x)[0])[0][2:], x[2:])


@pytest.mark.parametrize("slope", [0.0, -1.0, math.inf, math.nan])
def test_bad_slope_is_refused(slope: float):
    with pytest.raises(ConfigError, match="slope"):
        LeakyReLU((1,), slope=slope)
