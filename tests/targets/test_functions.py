"""Targets from functions of rows and of points, in torch and NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from diffeo.errors import ConfigError, ShapeError
from diffeo.targets import Evaluator, FromNumPy, FromTorch, each_row


def torch_rows(x):
    return -0.5 * x.square().sum(-1)


def numpy_rows(x):
    return -0.5 * np.square(x).sum(-1)


def point(p):
    """Works in torch and NumPy, for one point only: rows would be ambiguous."""
    return -0.5 * (p[0] ** 2 + p[1] ** 2) if p[0] > -1e9 else -math.inf


ALL = [FromTorch(torch_rows), FromTorch(each_row(point)), FromNumPy(numpy_rows), FromNumPy(each_row(point))]


@pytest.mark.parametrize("target", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [0, 1, 2, 7])
def test_all_ways_agree(target, dtype, rows):
    x = torch.randn(rows, 2, dtype=dtype, generator=torch.Generator().manual_seed(0))
    for value in (target.log_prob(x), Evaluator(target)(x)):
        assert value.dtype == dtype
        assert value.shape == (rows,)
        torch.testing.assert_close(value, torch_rows(x.double()).to(dtype))


@pytest.mark.parametrize("target", ALL)
def test_gradients_are_those_of_torch(target):
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    evaluator = Evaluator(target)
    assert evaluator.differentiable(x) == isinstance(target, FromTorch)
    if isinstance(target, FromTorch):
        torch.testing.assert_close(evaluator.value_and_grad(x)[1], -x.detach())
    else:
        assert not target.log_prob(x).requires_grad


def test_dtypes_that_the_function_sees():
    seen = []

    def function(x):
        seen.append(x.dtype)
        return torch_rows(x)

    x = torch.zeros(1, 2)
    assert FromTorch(function).log_prob(x).dtype == torch.float32
    FromTorch(function, torch.float32).log_prob(x.double())
    FromTorch(function, None).log_prob(x)
    FromNumPy(lambda a: seen.append(a.dtype) or numpy_rows(a)).log_prob(x)
    assert seen == [torch.float64, torch.float32, torch.float32, np.dtype(np.float64)]


def test_numpy_may_write_into_its_array():
    def vandal(a):
        a[:] = 0
        return a[:, 0]

    x = torch.ones(2, 2, dtype=torch.float64)
    FromNumPy(vandal).log_prob(x)
    assert (x == 1).all()


def test_a_torch_function_that_goes_through_numpy_is_found_out():
    evaluator = Evaluator(FromTorch(lambda x: torch.from_numpy(numpy_rows(x.numpy()))))
    x = torch.ones(2, 2, requires_grad=True)
    assert evaluator(x).tolist() == [-1.0, -1.0]
    assert not evaluator.differentiable(x)


of_torch: Any = FromTorch
of_numpy: Any = FromNumPy
of_points: Any = each_row
BAD = [
    (of_torch(lambda x: x), ShapeError, r"<lambda> must return.*\(3,\).*\(3, 2\).*each_row"),
    (of_torch(lambda x: numpy_rows(x.numpy())), ShapeError, "returned ndarray.*FromNumPy"),
    (of_torch(point), ShapeError, r"point failed on x of shape \(3, 2\):.*one point.*each_row"),
    (of_numpy(point), ShapeError, r"point failed on x of shape \(3, 2\):.*one point.*each_row"),
    (of_numpy(lambda x: math.exp(x)), ConfigError, r"failed on x of shape \(3, 2\)"),
    (of_torch(lambda x: x @ torch.eye(5).double()), ConfigError, r"failed on x of shape \(3, 2\)"),
    (of_numpy(lambda x: x @ np.eye(5)), ConfigError, r"failed.*must take rows"),
    (of_numpy(lambda x: x[:, 7]), ConfigError, "index 7 is out of bounds"),
    (of_numpy(lambda x: None), ShapeError, "real numbers.*object"),
    (of_numpy(lambda x: x[:, 0] + 1j), ShapeError, "real numbers.*complex"),
    (of_numpy(lambda x: x.sum()), ShapeError, r"returned \(\)"),
    (
        of_numpy(of_points(lambda p: p)),
        ShapeError,
        r"one number for one point of shape \(2,\).*drop each_row",
    ),
    (of_torch(of_points(lambda p: p[None])), ShapeError, "drop each_row"),
]


@pytest.mark.parametrize(("target", "error", "words"), BAD, ids=range(len(BAD)))
def test_errors_name_the_function_the_shapes_and_the_cure(target, error, words):
    with pytest.raises(error, match=words) as caught:
        target.log_prob(torch.randn(3, 2, dtype=torch.float64))
    assert "\n" not in str(caught.value)


def test_only_functions():
    for make in (of_torch, of_numpy, of_points):
        with pytest.raises(ConfigError, match="not from int"):
            make(3)
