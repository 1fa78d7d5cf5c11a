"""Permutations and matrices with a cheap determinant."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffeo.bases import Normal
from diffeo.bijections.base import Bijection
from diffeo.bijections.linear import LU, Orthogonal, Permute, Reverse, Triangular
from diffeo.errors import ConfigError

KINDS = {
    "Permute": lambda: Permute([2, 0, 3, 1]),
    "Reverse": lambda: Reverse(4),
    "Triangular": lambda: Triangular(4),
    "LU": lambda: LU(4),
    "LUWithoutBias": lambda: LU(4, bias=False),
    "Orthogonal": lambda: Orthogonal(4),
    "OrthogonalOfTwo": lambda: Orthogonal(4, reflections=2),
}
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())


def trained(make, dtype: torch.dtype = torch.float64) -> Bijection:
    torch.manual_seed(0)
    layer = make().to(dtype)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


@kinds
def test_log_det_is_that_of_the_autograd_jacobian(make):
    """nflows, normflows and torchflows have no such test."""
    layer = trained(make)
    for apply in (layer.forward, layer.inverse):
        x = torch.randn(4, dtype=torch.float64)
        jacobian = torch.func.jacrev(lambda t, apply=apply: apply(t)[0])(x)
        assert torch.allclose(torch.linalg.slogdet(jacobian)[1], apply(x)[1])


@kinds
@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_round_trip_shape_and_dtype(make, batch: tuple[int, ...], dtype: torch.dtype):
    layer = trained(make, dtype)
    x = torch.randn(*batch, 4, dtype=dtype)
    y, log_det = layer(x)
    back, inverse_log_det = layer.inverse(y)
    assert log_det.shape == inverse_log_det.shape == batch
    assert log_det.dtype == back.dtype == dtype
    assert torch.allclose(back, x, atol=2e3 * torch.finfo(dtype).eps)
    assert torch.allclose(inverse_log_det, -log_det)


@kinds
def test_starts_as_the_identity_up_to_order(make):
    x = torch.randn(6, 4)
    z, log_det = make()(x)
    assert torch.allclose(z.sort(-1)[0], x.sort(-1)[0], atol=1e-5)
    assert (log_det == 0).all()


@kinds
def test_differentiated_twice_and_mapped(make):
    layer = trained(make)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    for apply in (layer.forward, layer.inverse):
        assert torch.autograd.gradgradcheck(lambda t, apply=apply: apply(t), x)
        assert torch.allclose(torch.func.vmap(apply)(x)[0], apply(x)[0])


@kinds
def test_float32_survives_extreme_parameters(make):
    torch.manual_seed(0)
    layer = make()
    for name, parameter in layer.named_parameters():
        nn.init.uniform_(parameter, -10, 10) if "log" in name else nn.init.uniform_(parameter, -3, 3)
    x = torch.randn(50, 4, requires_grad=True)
    y, log_det = layer(x)
    back, _ = layer.inverse(y)
    (back.sum() + y.sum() + log_det.sum()).backward()
    for t in (y, log_det, back, *(p.grad for p in layer.parameters())):
        assert t.isfinite().all()


def test_permutation_order_is_as_documented():
    layer, x = Permute(torch.tensor([2, 0, 1])), torch.tensor([10.0, 11.0, 12.0])
    assert layer(x)[0].tolist() == [12.0, 10.0, 11.0]
    assert torch.equal(layer.inverse(layer(x)[0])[0], x)


@pytest.mark.parametrize("bad", [[0, 2], [0, 0, 1], [], [[0, 1]]], ids=str)
def test_what_is_no_permutation_is_refused(bad: list[int]):
    with pytest.raises(ConfigError, match="permutation"):
        Permute(bad)


def test_lu_is_the_product_of_its_factors():
    layer = trained(lambda: LU(3, bias=False))
    assert isinstance(layer, LU)
    lower, upper, log_det = layer._parts()
    x = torch.randn(3, dtype=torch.float64)
    assert torch.allclose(layer(x)[0], lower @ (upper @ x))
    assert torch.equal(lower.triu(), torch.eye(3, dtype=torch.float64))
    assert torch.allclose(torch.linalg.slogdet(lower @ upper)[1], log_det)


def test_triangular_is_lower():
    layer = trained(lambda: Triangular(3))
    jacobian = torch.func.jacrev(lambda t: layer(t)[0])(torch.zeros(3, dtype=torch.float64))
    assert (jacobian.triu(1) == 0).all()
    assert (jacobian.diagonal() > 0).all()


def test_triangular_before_a_normal_is_the_full_covariance_gaussian():
    """normflows: ``GaussianPCA`` is off by 2.6 nats."""
    layer = trained(lambda: Triangular(3))
    assert isinstance(layer, Triangular)
    matrix, _ = layer._parts()
    assert layer.bias is not None
    mean = -torch.linalg.solve(matrix, layer.bias)
    oracle = torch.distributions.MultivariateNormal(mean, precision_matrix=matrix.T @ matrix)
    x = torch.randn(20, 3, dtype=torch.float64)
    z, log_det = layer(x)
    assert torch.allclose(Normal((3,)).log_prob(z) + log_det, oracle.log_prob(x))


@pytest.mark.parametrize("reflections", [2, 6, 40])
def test_gathered_reflections_are_their_product(reflections: int):
    layer = trained(lambda: Orthogonal(5, reflections=reflections))
    assert isinstance(layer, Orthogonal)
    product = torch.eye(5, dtype=torch.float64)
    for v in layer.vectors:
        product = product @ (torch.eye(5, dtype=torch.float64) - 2 * torch.outer(v, v) / (v @ v))
    assert torch.allclose(layer.matrix(), product)
    assert torch.allclose(torch.linalg.det(product), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("spread", [0.0, 1e-4, 1.0])
def test_float32_rotations_stay_orthogonal(spread: float):
    """Also for reflections that are nearly all the same one, or that are zero."""
    torch.manual_seed(0)
    layer = Orthogonal(64)
    with torch.no_grad():
        layer.vectors.copy_(torch.randn(64) + spread * torch.randn(64, 64))
        layer.vectors[3] = 0
    q = layer.matrix()
    assert torch.allclose(q @ q.T, torch.eye(64), atol=1e-4)


def test_a_rotation_is_learned_from_the_identity():
    """The equal pairs of the start draw apart under training."""
    torch.manual_seed(0)
    target = torch.linalg.qr(torch.randn(3, 3))[0]
    target = target * torch.linalg.det(target)  # a rotation
    layer = Orthogonal(3)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (layer.matrix() - target).square().sum().backward()
        optimizer.step()
    assert torch.allclose(layer.matrix(), target, atol=1e-2)


@pytest.mark.parametrize(
    "make", [lambda: LU(0), lambda: Reverse(-1), lambda: Orthogonal(3, 3), lambda: Orthogonal(3, 0)]
)
def test_bad_arguments_are_refused(make):
    with pytest.raises(ConfigError):
        make()
