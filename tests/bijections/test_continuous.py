"""Continuous flows against closed forms, and against each other."""

from __future__ import annotations

import builtins
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffeo.bijections import (
    Adaptive,
    Adjoint,
    Continuous,
    Direct,
    FixedSteps,
    Hutchinson,
)
from diffeo.errors import ConfigError, NotConverged, ShapeError
from diffeo.functional.linearize import linearize, trace
from diffeo.functional.path_penalties import PathPenalties, collecting
from diffeo.nets import ELU, SiLU, Tanh, VelocityMLP
from diffeo.testing import randomize_

EVEN = torch.tensor([[0.3, -1.0], [0.8, -0.5]], dtype=torch.float64)


class Linear(nn.Module):
    """``v = A x``, whatever the time; with a context, ``A x + c``."""

    def __init__(self, matrix: Tensor, context: int = 0):
        super().__init__()
        self.in_features = self.out_features = len(matrix)
        self.context_features = 2 + context
        self.matrix = nn.Parameter(matrix.clone())

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        assert context is not None
        shift = context[..., 2:] if self.context_features > 2 else 0.0
        return x @ self.matrix.T + shift


class Oscillating(nn.Module):
    """``v = pi sin(pi t)``, from the sine among the time features: x moves by 2 in all."""

    in_features = out_features = 1
    context_features = 2

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        assert context is not None
        return math.pi * context[..., 1:2] + 0 * x


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(*hidden: int, features: int = 2, context: int = 0, **more: Any) -> Continuous:
    torch.manual_seed(0)
    net = VelocityMLP(features, features, hidden or (8, 8), context_features=2 + context, activation=Tanh)
    return randomize_(Continuous(net, **more).double())


# -- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_a_linear_field_is_a_matrix_exponential(training: bool):
    flow = Continuous(Linear(EVEN), FixedSteps(64), Adaptive(1e-9)).double().train(training)
    x = normal(5, 2)
    z, log_det = flow(x)
    torch.testing.assert_close(z, x @ torch.linalg.matrix_exp(EVEN).T, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(log_det, EVEN.trace().expand(5), rtol=1e-9, atol=1e-9)
    back, log_det = flow.inverse(z)
    torch.testing.assert_close(back, x, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(log_det, -EVEN.trace().expand(5), rtol=1e-9, atol=1e-9)


def test_the_context_is_a_shift_of_the_field():
    flow = Continuous(Linear(torch.zeros(2, 2), 2)).double().eval()
    x, c = normal(3, 4, 2), normal(3, 4, 2, seed=1)
    torch.testing.assert_close(flow.push(x, c), x + c)


def test_time_enters():
    flow = Continuous(Oscillating()).double().eval()
    times = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    path = flow.trajectory(torch.zeros(3, 1, dtype=torch.float64), times)
    wanted = (1 - (math.pi * times).cos()).reshape(4, 1, 1).expand(4, 3, 1)
    torch.testing.assert_close(path, wanted, rtol=1e-6, atol=1e-6)


def test_a_trajectory_from_latent_meets_the_one_from_data():
    flow, x = layer().eval(), normal(4, 2)
    times = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    path = flow.trajectory(x, times)
    torch.testing.assert_close(path[-1], flow.push(x), rtol=1e-5, atol=1e-6)
    back = flow.trajectory(path[-1], times.flip(0), start=1.0)
    torch.testing.assert_close(back.flip(0), path, rtol=1e-5, atol=1e-6)
    assert flow.trajectory(x, times[:0]).shape == (0, 4, 2)


# -- solvers --------------------------------------------------------------------------------------


def test_fixed_steps_converge_with_order_four():
    flow, x = layer(), normal(20, 2)
    flow.eval().evaluation = Adaptive(1e-10)
    exact = torch.cat([t.reshape(-1) for t in flow(x)]).detach()
    errors = []
    for steps in (4, 8, 16):
        flow.solver = FixedSteps(steps)
        found = torch.cat([t.reshape(-1) for t in flow.train()(x)])
        errors.append((found - exact).norm().item())
    for coarse, fine in pairwise(errors):
        assert 3.5 < math.log2(coarse / fine) < 4.7


def test_the_adaptive_solver_keeps_its_tolerance():
    flow, x = layer(16, 16), 3 * normal(50, 2)
    flow.eval()
    flow.evaluation = Adaptive(1e-10)
    z, log_det = flow(x)
    for tolerance in (1e-3, 1e-5, 1e-7):
        flow.evaluation = Adaptive(tolerance)
        found = flow(x)
        assert ((found[0] - z).abs() / (1 + z.abs())).max() < 2 * tolerance
        assert ((found[1] - log_det).abs() / (1 + log_det.abs())).max() < 2 * tolerance


def test_a_row_that_needs_more_steps_costs_the_others_nothing():
    flow = Continuous(Linear(torch.tensor([[1.0]]), 1), evaluation=Adaptive(1e-6, first=2)).double().eval()
    x, c = torch.ones(100, 1).double(), torch.zeros(100, 1).double()
    c[0] = 1e3
    alone = flow.diagnose(x[1:], c[1:]).evaluations
    assert flow.diagnose(x, c).evaluations < 2 * alone
    torch.testing.assert_close(flow.push(x, c)[1:], flow.push(x[1:], c[1:]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_a_row_of_nan_stays_alone(training: bool):
    flow, x, c = layer(context=1).train(training), normal(6, 2), normal(6, 1, seed=1)
    clean = flow(x, c)
    bad, odd = x.clone(), c.clone()
    bad[2, 1] = math.nan
    odd[4] = math.nan
    z, log_det = flow(bad, odd)
    for i in range(6):
        if i in (2, 4):
            assert z[i].isnan().all()
            assert log_det[i].isnan()
        else:
            torch.testing.assert_close(z[i], clean[0][i], rtol=0, atol=1e-12)
            torch.testing.assert_close(log_det[i], clean[1][i], rtol=0, atol=1e-12)


def test_what_cannot_be_solved_says_so():
    wild = torch.tensor([[0.0, 1e4], [-1e4, 0.0]])
    flow = Continuous(Linear(wild), evaluation=Adaptive(most=64)).double().eval()
    with pytest.raises(NotConverged, match="Continuous: 3 of 3"):
        flow(normal(3, 2))


def test_a_diagnosis_measures():
    flow, x = layer().eval(), normal(30, 2)
    good, rough = flow.diagnose(x), flow.diagnose(x, solver=FixedSteps(1))
    assert good.value_error < 2e-7
    assert good.log_det_error < 1e-6
    assert good.round_trip_error < 1e-6
    assert rough.evaluations == 4
    assert min(rough.value_error, rough.log_det_error, rough.round_trip_error) > 1e-5


# -- gradients ------------------------------------------------------------------------------------


def gradients(flow: Continuous, x: Tensor, context: Tensor) -> list[Tensor]:
    x, context = x.clone().requires_grad_(), context.clone().requires_grad_()
    z, log_det = flow(x, context)
    return list(torch.autograd.grad(z.square().sum() + log_det.exp().sum(), [x, context, *flow.parameters()]))


@pytest.mark.parametrize("training", [True, False])
def test_adjoint_and_direct_gradients_agree(training: bool):
    x, context = normal(5, 2), normal(5, 1, seed=1)
    both = []
    for gradient in (Direct(), Adjoint()):
        solver, evaluation = FixedSteps(32, gradient), Adaptive(1e-8, gradient=gradient)
        flow = layer(context=1, solver=solver, evaluation=evaluation).train(training)
        both.append(gradients(flow, x, context))
    for direct, adjoint in zip(*both, strict=True):
        torch.testing.assert_close(adjoint, direct, rtol=1e-4, atol=1e-5)


def test_second_derivatives_by_the_direct_gradient():
    flow = layer(solver=FixedSteps(3)).train()
    x = normal(2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: flow(x), x)
    assert torch.autograd.gradgradcheck(lambda x: flow(x), x)


def test_a_penalty_on_errors_needs_the_stages():
    flow = layer(solver=FixedSteps(2, Adjoint())).train()
    with collecting(PathPenalties(error=1.0)), pytest.raises(ConfigError, match="Direct"):
        flow(normal(2, 2))


# -- traces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [Tanh, SiLU])
@pytest.mark.parametrize("hidden", [(7,), (7, 5), (7, 5, 6)])
@pytest.mark.parametrize("features", [1, 3])
def test_the_closed_trace_is_the_trace(hidden: Any, features: int, activation: Any):
    torch.manual_seed(0)
    net = VelocityMLP(features, features, hidden, context_features=2, activation=activation)
    net = randomize_(net.double())
    x, context = normal(6, features), normal(6, 2, seed=1)
    value, found = net.with_trace(x, context)
    torch.testing.assert_close(value, net(x, context))
    torch.testing.assert_close(found, trace(linearize(net, x, context)[1], x))
    jacobians = torch.func.vmap(torch.func.jacrev(lambda x, c: net(x, c)))(x, context)
    torch.testing.assert_close(found, jacobians.diagonal(dim1=-2, dim2=-1).sum(-1))


def test_hutchinson_is_unbiased():
    exact, noisy = layer(8, features=3), layer(8, features=3, trace=Hutchinson())
    x, draws = normal(2, 3), 4000
    solved = [flow.train()(x.repeat(draws, 1))[1].reshape(draws, 2).sum(1) for flow in (exact, noisy)]
    error = solved[1].detach().std() / math.sqrt(draws)
    assert 0 < (solved[1].mean() - solved[0].mean()).abs() < 4 * error
    way = [normal(*p.shape, seed=i) for i, p in enumerate(exact.parameters())]
    slopes = []
    for batch in range(40):  # the gradient too: its mean over many draws, with its own standard error
        torch.manual_seed(batch)
        log_det = noisy(x.repeat(100, 1))[1].sum() / 100
        grads = torch.autograd.grad(log_det, list(noisy.parameters()))
        slopes.append(sum((g * w).sum() for g, w in zip(grads, way, strict=True)))
    wanted = torch.autograd.grad(exact(x)[1].sum(), list(exact.parameters()))
    wanted = sum((g * w).sum() for g, w in zip(wanted, way, strict=True))
    found = torch.stack(slopes)
    assert (found.mean() - wanted).abs() < 4 * found.std() / math.sqrt(40)


def test_hutchinson_is_exact_in_evaluation_and_fixed_for_many_features():
    exact, noisy = layer(8, features=3).eval(), layer(8, features=3, trace=Hutchinson()).eval()
    torch.testing.assert_close(noisy(normal(4, 3))[1], exact(normal(4, 3))[1])
    matrix = 0.1 * normal(65, 65)
    many = Continuous(Linear(matrix), trace=Hutchinson(fixed=16)).double().eval()
    assert many.probes is not None
    each = ((many.probes[:, 0] @ matrix) * many.probes[:, 0]).sum(1)
    found = many(normal(2, 65))[1]
    torch.testing.assert_close(found, each.mean().expand(2), rtol=1e-6, atol=1e-6)
    assert (found[0] - matrix.trace()).abs() < 4 * each.std() / 4


def test_the_costs_of_a_path():
    """Of a linear field: ``int |A x|^2`` by quadrature, ``|A|_F^2`` exactly, either way."""
    flow = Continuous(Linear(EVEN), FixedSteps(32)).double().train()
    x = normal(4, 2)
    t = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    paths = torch.linalg.matrix_exp(t.reshape(-1, 1, 1) * EVEN) @ x.T
    kinetic = (EVEN @ paths).square().sum(1).mean(0)
    with collecting(PathPenalties(kinetic=1.0)) as penalties:
        z, _ = flow(x)
        flow.inverse(z)
    for found in penalties.rows:
        torch.testing.assert_close(found, kinetic, rtol=1e-5, atol=1e-5)
    with collecting(PathPenalties(jacobian=1.0)) as penalties:
        flow(x)
    torch.testing.assert_close(penalties.rows[0], EVEN.square().sum().expand(4))


def test_the_error_penalty_falls_with_the_steps():
    sizes = []
    for steps in (2, 4, 8):
        with collecting(PathPenalties(error=1.0)) as penalties:
            layer(solver=FixedSteps(steps)).train()(normal(20, 2))
        sizes.append(penalties.rows[0].sum().item())
    assert sizes[0] > 8 * sizes[1] > 64 * sizes[2] > 0


# -- what cannot be -------------------------------------------------------------------------------


def test_nets_that_do_not_fit():
    with pytest.raises(ShapeError, match="takes 2 and gives 3"):
        Continuous(VelocityMLP(2, 3, (8,), context_features=2))
    with pytest.raises(ConfigError, match="at least 2"):
        Continuous(VelocityMLP(2, 2, (8,)))


@pytest.mark.parametrize(
    "make", [lambda: FixedSteps(0), lambda: Adaptive(0.0), lambda: Adaptive(first=9, most=9)]
)
def test_solvers_that_cannot_be(make: Any):
    with pytest.raises(ConfigError):
        make()


def test_without_the_library_the_cure_is_named(monkeypatch: pytest.MonkeyPatch):
    plain = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "torchdiffeq":
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    unknown = VelocityMLP(2, 2, (4,), context_features=2, activation=ELU)  # not in the kernels
    with pytest.raises(ConfigError, match=r"pip install 'diffeo\[continuous\]'"):
        Continuous(unknown)(normal(2, 2).float())
