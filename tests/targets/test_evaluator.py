"""The door to targets: casts, checks, counts, and gradients that cannot spoil a batch."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import diffeo
from diffeo.errors import ConfigError, DataError, ShapeError
from diffeo.targets import Evaluator, FromNumPy, FromTorch, Parameters, Sampled, Target, named


class Of:
    """A target of any callable, as it is."""

    def __init__(self, function):
        self.function = function

    def log_prob(self, x: Tensor) -> Tensor:
        return self.function(x)


def quartic(x: Tensor) -> Tensor:
    return -x.pow(4).sum(-1)


def through_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(-np.square(x.numpy()).sum(-1))


class Named(Of, Parameters):
    def named(self, u: Tensor) -> dict[str, np.ndarray]:
        return {"rate": np.exp(u[:, 0].numpy())}


def test_protocols():
    assert isinstance(Of(quartic), Target)
    assert isinstance(Evaluator(Of(quartic)), Target)
    assert not isinstance(quartic, Target)
    assert not isinstance(Of(quartic), Sampled)
    wrong: Any
    for wrong in (quartic, None, 3):
        with pytest.raises(ConfigError, match="FromTorch"):
            Evaluator(wrong)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_casts_there_and_back(dtype):
    seen = []

    def function(x):
        seen.append(x.dtype)
        return quartic(x)

    x = torch.randn(5, 3, dtype=dtype)
    value = Evaluator(Of(function))(x)
    assert value.dtype == dtype
    assert seen == [torch.float64]
    assert torch.equal(value, quartic(x.double()).to(dtype))
    Evaluator(Of(function), torch.float32)(x)
    assert seen[-1] == torch.float32


def test_gradients_are_the_targets_own_and_can_be_taken_twice():
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    evaluator = Evaluator(Of(quartic))
    assert torch.autograd.gradcheck(evaluator, (x,))
    assert torch.autograd.gradgradcheck(evaluator, (x,))
    value, grad = evaluator.value_and_grad(x)
    assert not value.requires_grad
    assert not grad.requires_grad
    torch.testing.assert_close(grad, -4 * x.detach().pow(3))
    with torch.no_grad():
        torch.testing.assert_close(evaluator.value_and_grad(x)[1], grad)


def test_counts():
    evaluator = Evaluator(Of(quartic))
    x = torch.randn(5, 3)
    evaluator(x)
    assert (evaluator.evaluations, evaluator.gradients, evaluator.nans) == (5, 0, 0)
    evaluator(x.requires_grad_())
    evaluator.value_and_grad(x[:2])
    with torch.no_grad():
        evaluator(x)
    assert (evaluator.evaluations, evaluator.gradients, evaluator.nans) == (17, 7, 0)
    assert evaluator.differentiable(x)
    assert evaluator.differentiable(x)
    assert evaluator.evaluations == 22
    assert evaluator(torch.zeros(0, 3)).shape == (0,)


def test_parameters_of_a_target_get_no_graph_unless_asked():
    weight = torch.ones(3, requires_grad=True)
    evaluator = Evaluator(Of(lambda x: (x.float() * weight).sum(-1)))
    assert not evaluator(torch.zeros(2, 3)).requires_grad
    assert evaluator.differentiable(torch.zeros(2, 3))
    evaluator.value_and_grad(torch.zeros(2, 3))
    assert weight.grad is None


def test_nan_is_mass_zero_and_leaves_the_other_rows_alone():
    evaluator = Evaluator(Of(lambda x: x.log().sum(-1)))
    x = torch.tensor([[1.0, 2.0], [-1.0, 2.0], [0.5, 4.0]], requires_grad=True)
    value = evaluator(x)
    assert value.tolist() == [pytest.approx(math.log(2)), -math.inf, pytest.approx(math.log(2))]
    assert evaluator.nans == 1
    value[value.isfinite()].sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor([[1.0, 0.5], [0.0, 0.0], [2.0, 0.25]]))


def test_gradients_that_are_not_finite_become_zero_entry_by_entry():
    # at 0 the slope of -sqrt|x| is infinite
    evaluator = Evaluator(Of(lambda x: -x.abs().pow(0.5).sum(-1)))
    grad = evaluator.value_and_grad(torch.tensor([[0.0, 4.0]]))[1]
    assert grad.tolist() == [[0.0, -0.25]]
    # finite in float64, not in float32
    steep = Evaluator(Of(lambda x: -1e39 * x.abs().sum(-1)))
    assert steep.value_and_grad(torch.zeros(1, 1) + 1e-30)[1].tolist() == [[0.0]]
    assert steep(torch.ones(1, 1)).item() == -math.inf


@pytest.mark.parametrize(
    "function", [through_numpy, lambda x: quartic(x.detach()), lambda x: torch.zeros(len(x))]
)
def test_targets_without_gradients_are_found_out(function):
    x = torch.randn(4, 2, requires_grad=True)
    evaluator = Evaluator(Of(function))
    assert not evaluator(x).requires_grad
    assert not evaluator.differentiable(x)
    assert not evaluator.differentiable(torch.zeros(0, 2))
    with pytest.raises(ConfigError, match="gives no gradient"):
        evaluator.value_and_grad(x)


def test_a_parameter_alone_is_no_gradient_of_x():
    weight = torch.ones((), requires_grad=True)
    assert not Evaluator(Of(lambda x: weight.expand(len(x)))).differentiable(torch.zeros(1, 2))


def test_errors_of_the_target_itself_come_through():
    def broken(x):
        raise RuntimeError("the user's own")

    x = torch.zeros(2, 2)
    for wanted in (False, True):
        with pytest.raises(RuntimeError, match="the user's own"):
            Evaluator(Of(broken))(x.requires_grad_(wanted))


def test_a_target_known_to_be_differentiable_is_not_tried_without():
    asked = []

    def once(x):
        asked.append(x.requires_grad)
        if len(asked) > 1:
            raise RuntimeError("out of memory")
        return quartic(x)

    evaluator = Evaluator(Of(once))
    x = torch.zeros(200, 2, requires_grad=True)
    assert evaluator.differentiable(x)
    with pytest.raises(RuntimeError, match="out of memory"):
        evaluator(x)
    assert all(asked)
    assert evaluator.differentiable(x)


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda x: x, ShapeError, r"one real number a row, shape \(4,\).*\(4, 2\).*sum over the last axis"),
        (lambda x: x.sum(), ShapeError, r"returned \(\)"),
        (lambda x: x.sum(-1).cfloat(), ShapeError, "complex"),
        (lambda x: x.sum(-1).numpy(), ShapeError, "returned ndarray.*FromNumPy"),
        (lambda x: 1.0, ShapeError, "returned float"),
        (lambda x: 1e400 * (x[:, 0] - 1), DataError, r"\+inf at row 2, x = \(2, 5\)"),
    ],
)
def test_bad_answers_are_named(function, error, words):
    x = torch.tensor([[0.0, 1.0], [0.5, 0.0], [2.0, 5.0], [3.0, 0.0]])
    with pytest.raises(error, match=words) as caught:
        Evaluator(Of(function))(x)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(2,), (), (1, 2, 3)])
def test_only_rows(shape):
    with pytest.raises(ShapeError, match="takes rows"):
        Evaluator(Of(quartic))(torch.zeros(shape))


def test_draws_are_the_targets_own_names():
    u = torch.randn(3, 1, requires_grad=True)
    assert list(named(Of(quartic), u)) == ["x"]
    np.testing.assert_array_equal(named(Of(quartic), u)["x"], u.detach().numpy())
    target = Named(quartic)
    assert list(named(target, u.detach())) == list(named(Evaluator(target), u.detach())) == ["rate"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_flow_is_a_target_in_its_own_dtype(dtype: torch.dtype):
    flow = diffeo.presets.RealNVP(2, layers=1, hidden=(4,)).build().to(dtype)
    x = torch.randn(5, 2, dtype=torch.float64)
    value, grad = Evaluator(flow).value_and_grad(x)
    assert value.dtype == grad.dtype == torch.float64
    torch.testing.assert_close(value, flow.log_prob(x.to(dtype)).double().detach())


@pytest.mark.parametrize("wrap", [FromTorch, FromNumPy])
def test_a_row_that_fails_is_lost_alone(wrap: Any):
    """As many as fail are counted, at their own places; the others keep value and gradient."""

    def log_prob(x: Any) -> Any:
        if (x[:, 0] > 2).any():
            raise ValueError("no solution for this x")
        return -0.5 * (x**2).sum(-1)

    evaluator = Evaluator(wrap(log_prob))
    x = torch.linspace(-1, 3, 200).double().unsqueeze(1)  # 50 rows above 2
    evaluator(torch.zeros(400, 1).double())
    value = evaluator(x)
    fails = x[:, 0] > 2
    assert (value[fails] == -math.inf).all()
    assert torch.allclose(value[~fails], -0.5 * x[~fails, 0] ** 2)
    assert evaluator.failed == int(fails.sum()) == 50
    assert re.fullmatch(r"x = \(2\.015\): .*no solution for this x.*", evaluator.failure)
    if wrap is FromTorch:
        _, grad = evaluator.value_and_grad(x[140:156])
        assert torch.allclose(grad[:10], -x[140:150])
        assert (grad[10:] == 0).all()
    again = Evaluator(wrap(log_prob))
    again.restore(*evaluator.state())
    assert (again.failed, again.failure) == (evaluator.failed, evaluator.failure)


def test_a_target_that_fails_is_not_survived():
    def log_prob(x: Tensor) -> Tensor:
        if (x > 2).any():
            raise ValueError("no solution")
        return -x.square().sum(-1)

    with pytest.raises(ConfigError, match="no solution"):  # it never answered
        Evaluator(FromTorch(log_prob))(torch.full((5, 1), 3.0))
    evaluator = Evaluator(FromTorch(log_prob))
    evaluator(torch.zeros(100, 1))
    with pytest.raises(ConfigError, match="no solution"):  # more than a tenth
        evaluator(torch.full((100, 1), 3.0))


def test_a_target_that_breaks_on_the_way_is_not_survived():
    calls = []

    def log_prob(x: np.ndarray) -> np.ndarray:
        calls.append(len(x))
        if len(calls) > 1:
            raise ValueError("the licence has run out")
        return -0.5 * (x**2).sum(-1)

    evaluator = Evaluator(FromNumPy(log_prob))
    evaluator(torch.zeros(10_000, 2))
    with pytest.raises(ConfigError, match="the licence has run out") as caught:
        evaluator(torch.zeros(5_000, 2))
    assert caught.value.__context__ is caught.value.__cause__  # no tail of errors met on the way
    assert len(calls) < 2500


def test_rows_that_fail_at_the_start_are_survived_too():
    def log_prob(x: np.ndarray) -> np.ndarray:
        if (x[:, 0] > 0.9).any():
            raise ValueError("no solution")
        return -0.5 * (x**2).sum(-1)

    evaluator = Evaluator(FromNumPy(log_prob))
    x = torch.linspace(1, 0, 101).double().unsqueeze(1)
    assert evaluator(x).isinf().sum() == 10 == evaluator.failed


def test_a_function_of_rows_is_not_told_to_take_points():
    def log_prob(x: np.ndarray) -> np.ndarray:
        if (x > 3).any():
            raise ValueError("no solution")
        return -0.5 * (x**2).sum(-1)

    with pytest.raises(ConfigError, match="must take rows"):
        FromNumPy(log_prob).log_prob(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
