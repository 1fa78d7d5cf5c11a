"""Inverses of increasing functions: against closed forms, certified, differentiable, captured."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffeo.errors import NotConverged
from diffeo.functional import roots

CLOSED = {
    "sinh": (lambda x: (x.sinh(), torch.logaddexp(x, -x) - math.log(2)), torch.asinh),
    "x + x^3": (lambda x: (x + x**3, (1 + 3 * x * x).log()), None),
    "tanh": (lambda x: (x.tanh() + 1e-3 * x, (x.cosh().square().reciprocal() + 1e-3).log()), None),
    "steps": (lambda x: (x + 0.0999 * (10 * x).sin(), (1 + 0.999 * (10 * x).cos()).log()), None),
    "kink": (
        lambda x: (torch.where(x < 1, 1e-3 * x, 1e3 * x - 999.999), 6.9 * (x >= 1) - 6.9 * (x < 1)),
        None,
    ),
    "2 x": (lambda x: (2 * x, torch.full_like(x, math.log(2))), lambda y: y / 2),
}
closed = pytest.mark.parametrize("f, known", CLOSED.values(), ids=CLOSED.keys())
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def wanted(dtype: torch.dtype) -> Tensor:
    far = torch.tensor([0.0, 1e-30, 1e-6, 1e-3, 1.0, 30.0, 1e3, 1e6], dtype=dtype)
    return torch.cat([torch.linspace(-10, 10, 501, dtype=dtype), far, -far])


def count(f):
    calls = [0]

    def counted(x: Tensor):
        calls[0] += 1
        return f(x)

    return counted, calls


@closed
@dtypes
def test_certified_from_zero_to_a_million(f, known, dtype: torch.dtype):
    y = wanted(dtype)
    counted, calls = count(f)
    low, high = roots.bracket(counted, y, torch.zeros_like(y))
    x = roots.invert(counted, y, low, high, "f")
    assert calls[0] <= 80
    eps = torch.finfo(dtype).eps
    residual = f(x)[0] - y
    beyond = torch.nextafter(x, torch.where(residual > 0, -math.inf, math.inf).to(x))
    best = (f(beyond)[0] - y) * residual <= 0
    assert ((residual.abs() <= 16 * eps * y.abs().clamp_min(1)) | best).all()
    if known is not None:
        slope = f(x)[1].exp()
        error = (x.double() - known(y.double())).abs()
        assert (error <= 20 * eps * (y.abs().clamp_min(1) / slope + x.abs())).all()


@closed
@dtypes
def test_a_false_slope_only_costs_time(f, known, dtype: torch.dtype):
    y = wanted(dtype)

    def lies(x: Tensor):
        return f(x)[0], 5 * (3 * x).sin()

    x = roots.invert(lies, y, *roots.bracket(lies, y, torch.zeros_like(y)), "f")
    truth = roots.invert(f, y, *roots.bracket(f, y, torch.zeros_like(y)), "f")
    bound = 40 * torch.finfo(dtype).eps * (y.abs().clamp_min(1) * (-f(x)[1]).exp() + x.abs())
    assert ((x - truth).abs() <= bound).all()


@dtypes
def test_a_slope_of_a_thousand_ends_at_neighboring_floats(dtype: torch.dtype):
    """No float is within the tolerance then; the nearer of the two around the root is given."""
    y = torch.linspace(-1, 1, 101, dtype=dtype)
    centre = 1e3

    def f(x: Tensor):
        return 1e3 * (x - centre), torch.full_like(x, math.log(1e3))

    x = roots.invert(f, y, torch.full_like(y, 0.0), torch.full_like(y, 2e3), "steep")
    residual = (f(x)[0] - y).abs()
    for end in (-math.inf, math.inf):
        assert (residual <= (f(torch.nextafter(x, torch.full_like(x, end)))[0] - y).abs()).all()


def test_a_computed_bracket_may_miss_by_round_off():
    y = torch.linspace(-5, 5, 101)
    end = y / 3.0
    x = roots.invert(lambda x: (3 * x, torch.full_like(x, math.log(3))), y, end, end, "thrice")
    torch.testing.assert_close(x, end)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: (-x, 0 * x),
        lambda x: (torch.zeros_like(x), 0 * x),
        lambda x: (x.tanh(), -2 * torch.logaddexp(x, -x) + math.log(4)),  # never reaches 2
    ],
    ids=["falls", "flat", "bounded"],
)
@dtypes
def test_what_has_no_root_is_not_certified(f, dtype: torch.dtype):
    y = torch.tensor([2.0], dtype=dtype)
    low, high = roots.bracket(f, y, torch.zeros_like(y))
    with pytest.raises(NotConverged, match="mine: 1 of 1 entries"):
        roots.invert(f, y, low, high, "mine")
    with pytest.raises(NotConverged):
        roots.invert(lambda x: (x, 0 * x), y, y + 1, y + 2, "a bracket elsewhere")
    given = roots.inverse
    mapped = torch.func.vmap(lambda t: given(f, t, -torch.ones_like(t), torch.ones_like(t), "f")[0])(y)
    assert mapped.isnan().all()


def test_nan_stays_in_its_row():
    y = torch.tensor([1.0, math.nan, 2.0, 3.0, math.inf])
    scale = torch.tensor([2.0, 2.0, math.nan, 2.0, 2.0])

    def f(x: Tensor):
        return x * scale, scale.log()

    low, high = roots.bracket(f, y, torch.zeros_like(y))
    x, log_slope = roots.inverse(f, y, low, high, "f")
    assert x.isnan().tolist() == [False, True, True, False, True]
    assert not log_slope.isinf().any()
    torch.testing.assert_close(x[[0, 3]], torch.tensor([0.5, 1.5]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_shapes(shape: tuple[int, ...]):
    y = torch.ones(shape)
    x, log_slope = roots.inverse(lambda x: (x**3 + x, (3 * x * x + 1).log()), y, y - 2, y + 2, "f")
    assert x.shape == log_slope.shape == shape
    assert x.dtype == torch.float32


@closed
def test_vmap_is_the_same(f, known):
    y = torch.linspace(-20, 20, 31, dtype=torch.float64)

    def solve(y: Tensor) -> Tensor:
        low, high = roots.bracket(f, y, torch.zeros_like(y))
        return roots.inverse(f, y, low, high, "f")[0]

    torch.testing.assert_close(torch.func.vmap(solve)(y), solve(y), rtol=1e-11, atol=1e-11)


def test_torch_func_differentiates():
    def solve(y: Tensor) -> Tensor:
        return roots.inverse(lambda x: (x.sinh(), x.cosh().log()), y, -y.abs(), y.abs(), "f")[0]

    y = torch.linspace(-3, 3, 7, dtype=torch.float64)
    slopes = torch.func.vmap(torch.func.grad(solve))(y)
    torch.testing.assert_close(slopes, (1 + y * y).rsqrt())


def test_gradients_to_y_and_to_what_f_closes_over():
    """In value and in log_slope, against finite differences."""
    torch.manual_seed(0)
    y = (3 * torch.randn(6, dtype=torch.float64)).requires_grad_()
    a = torch.rand(6, dtype=torch.float64).requires_grad_()
    b = torch.randn(6, dtype=torch.float64).requires_grad_()

    def solve(y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        def f(x: Tensor):
            return x * a + (x + b).sinh(), (a + (x + b).cosh()).log()

        return roots.inverse(f, y, *roots.bracket(f, y, torch.zeros_like(y)), "f")

    assert torch.autograd.gradcheck(solve, (y, a, b))


def test_attach_leaves_every_bit():
    torch.manual_seed(0)
    x, value, y = (torch.randn(1000) * 10.0 ** torch.randint(-20, 20, (1000,)) for _ in range(3))
    value.requires_grad_()
    attached = roots.attach(x, value, y, torch.randn(1000))
    assert torch.equal(attached, x)
    assert attached.requires_grad
