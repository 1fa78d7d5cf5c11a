"""Supports against integrals and autograd Jacobians, and constrained densities as ones on the whole space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Beta, Dirichlet, Gamma, HalfCauchy, Normal, VonMises

from diffeo.errors import ConfigError, DataError, ShapeError
from diffeo.functional.simplex import from_simplex, to_simplex
from diffeo.targets import (
    Above,
    Below,
    Bounded,
    Circular,
    Constrained,
    Evaluator,
    FromNumPy,
    FromTorch,
    Positive,
    Real,
    Simplex,
    named,
)

SUPPORTS = [
    Real(2),
    Positive(2),
    Above(-3.0),
    Above(5.0, 2),
    Below(2.0),
    Below(-7.0, 2),
    Bounded(-1.0, 3.0, 2),
    Bounded(0.0, 1.0),
    Circular(2),
    Simplex(2),
    Simplex(3),
    Simplex(7),
]
supports = pytest.mark.parametrize("support", SUPPORTS, ids=str)


def of(distribution: Any, at=lambda x: x, slope: float = 1.0) -> FromTorch:
    """The normalized density of the first column, ``x -> at(x)`` with a constant slope between."""
    return FromTorch(lambda x: distribution.log_prob(at(x[:, 0])) + math.log(slope))


def t(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


gamma = Gamma(t(2.5)[0], t(1.5)[0], validate_args=False)
NORMALIZED = {
    "normal": ([Real()], of(Normal(t(1.0)[0], t(2.0)[0]))),
    "gamma": ([Positive()], of(gamma)),
    "half-cauchy": ([Positive()], of(HalfCauchy(t(3.0)[0], validate_args=False))),
    "gamma above": ([Above(5.0)], of(gamma, lambda x: x - 5)),
    "gamma below": ([Below(-7.0)], of(gamma, lambda x: -7 - x)),
    "uniform": ([Bounded(-1.0, 3.0)], FromTorch(lambda x: 0 * x[:, 0] - math.log(4))),
    "beta, poles": ([Bounded(0.0, 1.0)], of(Beta(t(0.5)[0], t(0.7)[0], validate_args=False))),
    "beta": ([Bounded(-1.0, 3.0)], of(Beta(t(6.0)[0], t(1.0)[0]), lambda x: (x + 1) / 4, 0.25)),
    "von mises": ([Circular()], of(VonMises(t(0.3)[0], t(4.0)[0]))),
    "von mises at the seam": ([Circular()], of(VonMises(t(3.1)[0], t(4.0)[0]))),
    "dirichlet of two": ([Simplex(2)], FromTorch(Dirichlet(t(0.8, 3.0), validate_args=False).log_prob)),
    "dirichlet": ([Simplex(3)], FromTorch(Dirichlet(t(1.0, 2.5, 4.0), validate_args=False).log_prob)),
    "dirichlet, poles": ([Simplex(3)], FromTorch(Dirichlet(t(0.6, 0.8, 2), validate_args=False).log_prob)),
    "two at once": (
        {"rate": Positive(), "angle": Circular()},
        FromTorch(lambda x: gamma.log_prob(x[:, 0]) + VonMises(t(1.0)[0], t(0.5)[0]).log_prob(x[:, 1])),
    ),
}


@pytest.mark.parametrize("name", NORMALIZED)
def test_the_normalizing_constant_is_the_same(name: str):
    parts, density = NORMALIZED[name]
    target = Constrained(density, parts)
    if target.features == 1:
        u = torch.linspace(-80, 80, 80_001, dtype=torch.float64)
        grid, cell = u[:, None], float(u[1] - u[0])
    else:
        u = torch.linspace(-60, 60, 801, dtype=torch.float64)
        grid, cell = torch.cartesian_prod(u, u), float(u[1] - u[0]) ** 2
    log_p = target.log_prob(grid)
    assert not log_p.isnan().any()
    # the trapezoidal rule converges exponentially for what is smooth and vanishes at both ends
    assert log_p.exp().sum().item() * cell == pytest.approx(1, abs=1e-6)


@supports
def test_log_det_is_autograds(support: Any):
    u = 1.5 * torch.randn(5, support.columns, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    _, log_det = support.constrain(u)
    for row, found in zip(u, log_det, strict=True):
        jacobian: Any = torch.func.jacrev(lambda r: support.constrain(r[None])[0][0, : support.columns])(row)
        assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(found.item(), abs=1e-12)


@supports
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(support: Any, dtype: torch.dtype):
    u = torch.randn(50, support.columns, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).to(
        dtype
    )
    x, log_det = support.constrain(u)
    assert x.dtype == log_det.dtype == dtype
    assert x.shape == (50, support.values)
    back = support.unconstrain(x)
    torch.testing.assert_close(back, u, rtol=0, atol=3e4 * torch.finfo(dtype).eps)
    if isinstance(support, Simplex):
        torch.testing.assert_close(x.sum(-1), torch.ones(50, dtype=dtype))


@supports
@pytest.mark.parametrize("size", [50.0, 500.0, 1e6])
def test_far_out_nothing_breaks(support: Any, size: float):
    signs = torch.cartesian_prod(*[t(-1.0, 1.0)] * support.columns).reshape(-1, support.columns)
    u = (size * signs).requires_grad_()
    x, log_det = support.constrain(u)
    assert support._inside(x).all()
    assert x.isfinite().all()
    assert not log_det.isnan().any()
    assert (log_det < math.inf).all()
    grads = torch.autograd.grad(log_det[log_det.isfinite()].sum() + 1e-308 * x.sum(), u)[0]
    assert grads.isfinite().all()


def test_values_stay_strictly_inside_where_they_round():
    u = t(-40.0, -12.0, 12.0, 40.0)[:, None]
    for support, low, high in [
        (Bounded(5.0, 6.0), 5.0, 6.0), (Above(5.0), 5.0, math.inf), (Below(5.0), -math.inf, 5.0),
        (Circular(), -math.pi, math.pi)]:  # fmt: skip
        x = support.constrain(u)[0]
        assert ((x > low) & (x < high)).all()
        assert (x.diff(dim=0) >= 0).all()


def test_no_mass_hides_where_exp_overflows():
    """A tail of x^-2 falls like exp(-u); were the log-det to grow past overflow, that would rise again."""
    target = Constrained(FromTorch(lambda x: -2 * torch.log1p(x[:, 0])), [Positive()])
    u = t(30.0, 600.0, 700.0, 720.0, 1500.0, 1e6)
    assert target.log_prob(u[:, None]).tolist() == pytest.approx([-30.0, -600.0, -700.0] + [-math.inf] * 3)
    # float32 overflows earlier
    assert target.log_prob(t(80.0, 90.0).float()[:, None]).tolist() == [pytest.approx(-80.0), -math.inf]


@pytest.mark.parametrize("k", [2, 3, 9])
def test_simplex_against_an_explicit_contrast_matrix(k: int):
    helmert = torch.zeros(k, k - 1, dtype=torch.float64)
    for j in range(1, k):
        helmert[:j, j - 1], helmert[j, j - 1] = 1.0, -float(j)
    helmert = helmert / helmert.norm(dim=0)
    u = torch.randn(4, k - 1, dtype=torch.float64)
    torch.testing.assert_close(to_simplex(u)[0], torch.log_softmax(u @ helmert.T, -1))
    torch.testing.assert_close(from_simplex(to_simplex(u)[0] + 3.0), u)
    assert to_simplex(torch.zeros(k - 1))[0].exp().tolist() == pytest.approx([1 / k] * k)


def test_uniform_is_standard_normal():
    u = t(-3.0, -0.2, 0.0, 2.5)[:, None]
    for support, width in [(Bounded(2.0, 5.0), 3.0), (Circular(), 2 * math.pi)]:
        found = support.constrain(u)[1] - math.log(width)
        torch.testing.assert_close(found, Normal(t(0.0)[0], t(1.0)[0]).log_prob(u[:, 0]))


def test_any_angle_is_turned_into_the_circle():
    x = t(-7.0, -3.2, 0.5, 3.3, 1e3)[:, None]
    back = Circular().constrain(Circular().unconstrain(x))[0]
    torch.testing.assert_close(back.sin(), x.sin())
    torch.testing.assert_close(back.cos(), x.cos())


def test_columns_by_name_and_in_order():
    seen = []

    def function(x):
        seen.append(x)
        return -x.sum(-1)

    parts = {"rate": Positive(), "shift": Real(2), "weights": Simplex(3), "share": Bounded(0, 1)}
    target = Constrained(FromTorch(function), parts)
    u = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    target.log_prob(u)
    found = named(target, u)
    assert (target.features, target.values) == (6, 7)
    assert {k: v.shape for k, v in found.items()} == {
        "rate": (4,), "shift": (4, 2), "weights": (4, 3), "share": (4,)}  # fmt: skip
    x = target.constrain(u)
    torch.testing.assert_close(seen[0], x)
    torch.testing.assert_close(x[:, 0], u[:, 0].exp())
    torch.testing.assert_close(x[:, 1:3], u[:, 1:3])
    joined = np.concatenate([v.reshape(4, -1) for v in found.values()], 1)
    np.testing.assert_array_equal(joined, x.detach().numpy())
    torch.testing.assert_close(target.unconstrain(x), u)
    plain = Constrained(FromTorch(function), list(parts.values()))
    np.testing.assert_array_equal(named(plain, u)["x"], joined)
    torch.testing.assert_close(plain.log_prob(u), target.log_prob(u))


def test_gradients_are_whole_or_none():
    u = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    target = Constrained(FromTorch(lambda x: -x.square().sum(-1)), [Positive(), Bounded(-1, 1)])
    assert torch.autograd.gradcheck(target.log_prob, (u,))
    assert Evaluator(target).differentiable(u)
    numpy = Constrained(FromNumPy(lambda x: -np.square(x).sum(-1)), target.supports)
    assert not numpy.log_prob(u).requires_grad
    assert not Evaluator(numpy).differentiable(u)
    torch.testing.assert_close(numpy.log_prob(u), target.log_prob(u))
    hidden = Constrained(
        FromTorch(lambda x: torch.from_numpy(-np.square(x.numpy()).sum(-1))), target.supports
    )
    assert not Evaluator(hidden).differentiable(u)


@supports
def test_zero_rows(support: Any):
    target = Constrained(FromTorch(lambda x: x.sum(-1)), [support])
    u = torch.zeros(0, support.columns)
    assert target.log_prob(u).shape == (0,)
    assert target.unconstrain(target.constrain(u)).shape == u.shape


@pytest.mark.parametrize(
    ("support", "x"),
    [
        (Real(), math.inf),
        (Positive(), 0.0),
        (Positive(), math.nan),
        (Above(1.0), 1.0),
        (Below(1.0), 2.0),
        (Bounded(0.0, 1.0), 1.0),
        (Bounded(0.0, 1.0), math.nan),
        (Circular(), math.inf),
    ],
    ids=str,
)
def test_points_outside_are_refused_by_name(support: Any, x: float):
    target = Constrained(FromTorch(lambda x: x.sum(-1)), {"first": Real(), "second": support})
    with pytest.raises(DataError, match=r"'second': row 1, \[.*\], is not in \w+\("):
        target.unconstrain(t(0.0, 0.5, 0.0, x).reshape(2, 2) if support == Real() else _rows(target, x))


def _rows(target: Constrained, x: float) -> Tensor:
    rows = target.constrain(torch.zeros(2, 2, dtype=torch.float64))
    rows[1, 1] = x
    return rows


def test_weights_that_do_not_sum_to_one_are_refused():
    for bad in ([0.5, 0.6], [0.0, 1.0], [-0.5, 1.5]):
        with pytest.raises(DataError, match="Simplex"):
            Simplex(2).unconstrain(t(*bad)[None])


bounded: Any = Bounded
constrained: Any = Constrained


@pytest.mark.parametrize(
    "make",
    [
        lambda: Real(0),
        lambda: Positive(-1),
        lambda: bounded(0, 1, 1.5),
        lambda: Bounded(1.0, 1.0),
        lambda: Bounded(-math.inf, 1.0),
        lambda: Bounded(0.0, math.nan),
        lambda: Above(-math.inf),
        lambda: Below(math.nan),
        lambda: Simplex(1),
        lambda: Constrained(FromTorch(torch.sum), []),
        lambda: constrained(FromTorch(torch.sum), [Positive]),
        lambda: constrained(FromTorch(torch.sum), {"a": (0, 1)}),
    ],
)
def test_bad_supports(make):
    with pytest.raises(ConfigError) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_bad_shapes():
    target = Constrained(FromTorch(lambda x: x), [Simplex(3)])
    for wrong in (torch.zeros(4, 3), torch.zeros(2)):
        with pytest.raises(ShapeError, match=r"u must have shape \(rows, 2\)"):
            target.log_prob(wrong)
    with pytest.raises(ShapeError, match=r"x must have shape \(rows, 3\)"):
        target.unconstrain(torch.zeros(4, 2))
    with pytest.raises(ShapeError, match="one real number a row"):
        target.log_prob(torch.zeros(4, 2))
