"""A bijection of some of the columns, angles under a masked net, and the uniform made normal."""

from __future__ import annotations

import math

import pytest
import torch

from diffeo.bijections import (
    LU,
    ActNorm,
    Autoregressive,
    Chain,
    Exp,
    Inverse,
    OnColumns,
    Permute,
    Probit,
    Standardize,
)
from diffeo.elementwise import Affine, CircularRationalQuadratic
from diffeo.errors import ConfigError, ShapeError
from diffeo.functional.domains import bounds
from diffeo.nets import MADE, FullPasses, OnAngles, ResMADE
from diffeo.testing import check_bijection, randomize_


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def affine(context: int) -> Autoregressive:
    return Autoregressive(MADE(1, 2, (8,), context_features=context), Affine())


def test_the_others_pass_unchanged():
    layer, inner = OnColumns([3, 1], randomize_(LU(2)), 4), randomize_(LU(2))
    x = torch.randn(5, 4)
    y, log_det = layer(x)
    assert torch.equal(y[:, [0, 2]], x[:, [0, 2]])
    wanted = inner(x[:, [3, 1]])
    assert torch.equal(y[:, [3, 1]], wanted[0])
    assert torch.equal(log_det, wanted[1])


def test_conditional_layers_keep_the_contract():
    check_bijection(OnColumns([1], affine(2), 3, LU(2)), capture=False)
    check_bijection(OnColumns([1], affine(5), 3, LU(2)), capture=False)
    angles = OnAngles(ResMADE(3, 12, 16, 1, context_features=2))
    circular = Autoregressive(angles, CircularRationalQuadratic(4))
    check_bijection(OnColumns([3, 0], circular, 4, LU(2)), capture=False)
    check_bijection(Inverse(OnColumns([0], LU(1), 2)), capture=False)


def test_contexts():
    assert OnColumns([1], LU(1), 3).context_shape is None
    assert OnColumns([1], affine(2), 3).context_shape == (2,)
    assert OnColumns([1], affine(2), 3, LU(2)).context_shape is None
    assert OnColumns([1], affine(5), 3, LU(2)).context_shape == (3,)


def test_domains_by_column():
    low, high = bounds(OnColumns([1], Exp((1,)), 3).codomain)
    assert low.tolist() == [-math.inf, 0.0, -math.inf]
    assert high.tolist() == [math.inf] * 3
    assert OnColumns([0, 1], Permute([1, 0]), 3).domain is None
    inner = OnColumns([0], Probit((1,)), 2)
    low, high = bounds(OnColumns([2, 0], inner, 3).domain)
    assert low.tolist() == [-math.inf, -math.inf, 0.0]
    assert high.tolist() == [math.inf, math.inf, 1.0]
    layer = Chain([OnColumns([1], Probit((1,)), 2), LU(2)])
    assert layer(torch.tensor([[9.0, 0.5], [9.0, 1.5]]))[1].isfinite().tolist() == [True, False]


def test_both_parts_are_set_from_data():
    inner = Chain([affine(1), ActNorm((1,))])
    layer = OnColumns([0], inner, 2, Standardize((1,)))
    x = torch.randn(1000, 2) * torch.tensor([3.0, 50.0]) + 7
    layer.initialize(x)
    z = layer(x)[0][:, 0]
    assert abs(z.mean()) < 1e-4
    assert abs(z.std() - 1) < 1e-2
    assert layer.given is not None
    assert abs(layer.given.push(x[:, 1:]).std() - 1) < 1e-2


def test_errors_name_the_cure():
    for columns in ([], [0, 0], [3], [-1]):
        with pytest.raises(ConfigError, match="distinct numbers from 0 to 2"):
            OnColumns(columns, LU(max(1, len(columns))), 3)
    with pytest.raises(ShapeError, match="build it for \\(1,\\)"):
        OnColumns([1], LU(2), 3)
    with pytest.raises(ShapeError, match="given"):
        OnColumns([1], affine(2), 3, LU(1))
    with pytest.raises(ShapeError, match="see 2 columns"):
        OnColumns([1], LU(1), 3, LU(2))
    with pytest.raises(ShapeError, match="without one"):
        OnColumns([1], affine(1), 2, affine(1))


# -- angles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", [MADE(5, 4, (32,), context_features=2), ResMADE(5, 4, 32, 1)])
def test_nothing_jumps_at_the_seam(net):
    net = randomize_(OnAngles(net)).double()
    x, context = torch.randn(6, 3).double(), torch.randn(6, 2).double()
    torch.testing.assert_close(net(x, context), net(x + 2 * math.pi, context))
    jacobian = torch.func.jacrev(lambda x: net(x, context[0]).sum(-1))(x[0])
    assert torch.equal(jacobian.triu(), torch.zeros(3, 3).double())
    assert (jacobian.tril(-1) != 0).sum() == 3
    step, full = (make(context, x.shape[:1]) for make in (net.stepper, lambda *a: FullPasses(net, *a)))
    for previous in (None, x[:, 0], x[:, 1]):
        torch.testing.assert_close(step(previous), full(previous))


def test_an_even_net_is_refused():
    with pytest.raises(ConfigError, match="odd"):
        OnAngles(MADE(4, 2))


# -- Probit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_becomes_normal_up_to_the_ends(dtype: torch.dtype):
    layer = Probit((1,), -math.pi, math.pi)
    x = torch.linspace(-math.pi, math.pi, 10_001, dtype=dtype)
    steps = torch.tensor([1e-7, 1e-6, 1e-5, 1e-3], dtype=dtype)
    x = torch.cat([x, math.pi - steps, steps - math.pi]).unsqueeze(1).requires_grad_()
    z, log_det = layer(x)
    assert z.isfinite().all()
    log_prob = torch.distributions.Normal(0.0, 1.0).log_prob(z[:, 0]) + log_det
    tol = {"rtol": 0, "atol": 1000 * torch.finfo(dtype).eps}
    torch.testing.assert_close(log_prob, torch.full_like(log_prob, -math.log(2 * math.pi)), **tol)
    assert torch.autograd.grad(z.sum() + log_det.sum(), x)[0].isfinite().all()
    back, log_det_back = layer.inverse(z)
    torch.testing.assert_close(back, x, rtol=0, atol=20 * torch.finfo(dtype).eps)
    torch.testing.assert_close(log_det_back, -log_det)


def test_tails_agree_with_double_precision():
    x = torch.cat([torch.logspace(-37, -1, 100), torch.linspace(0.1, 0.999, 100)])
    single, double = (Probit(()).forward(t) for t in (x, x.double()))
    torch.testing.assert_close(single[0].double(), double[0], rtol=1e-5, atol=1e-6)
    z = torch.linspace(-12, 5, 100)
    single, double = (Probit(()).inverse(t) for t in (z, z.double()))
    torch.testing.assert_close(single[0].double(), double[0], rtol=1e-4, atol=0)
    torch.testing.assert_close(double[0], torch.exp(torch.special.log_ndtr(z.double())), rtol=1e-12, atol=0)


def test_probit_refuses_an_empty_interval():
    with pytest.raises(ConfigError, match="low < high"):
        Probit((1,), 1.0, 1.0)
