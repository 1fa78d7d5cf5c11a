"""The standard energies against quadrature, torch.distributions and each other's samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from diffeo.errors import ConfigError, ShapeError
from diffeo.targets import (
    U1,
    U2,
    U3,
    U4,
    Banana,
    Energy,
    Evaluator,
    Funnel,
    GaussianMixture40,
    ManyWell,
    Phi4,
    Sampled,
    named,
)

KINDS: dict[str, Callable[[], Any]] = {
    "U1": U1,
    "U2": U2,
    "U3": U3,
    "U4": U4,
    "GaussianMixture40": GaussianMixture40,
    "ManyWell, two": lambda: ManyWell(2),
    "ManyWell": ManyWell,
    "Funnel": Funnel,
    "Funnel, two": lambda: Funnel(2),
    "Banana": Banana,
    "Banana, strong": lambda: Banana(4, 0.1, 5.0),
    "Phi4": lambda: Phi4((3, 4)),
    "Phi4, free": lambda: Phi4((4,), 0.5, 0.0),
}
PLANE = {  # the box that holds all of it, and how fine the grid must be
    "U1": ((-6, 6), (-6, 6), 0.02),
    "U2": ((-8, 8), (-6, 6), 0.03),
    "U3": ((-8, 8), (-8, 6), 0.03),
    "U4": ((-8, 8), (-9, 6), 0.03),
    "GaussianMixture40": ((-50, 50), (-50, 50), 0.4),
    "ManyWell, two": ((-4, 4), (-8, 8), 0.04),
    "Banana": ((-70, 70), (-150, 12), 0.3),
}
kinds = pytest.mark.parametrize("name", KINDS)
sampled = pytest.mark.parametrize("name", [name for name in KINDS if isinstance(KINDS[name](), Sampled)])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grid(name: str) -> tuple[Tensor, float]:
    *box, step = PLANE[name]
    axes = (torch.arange(low, high, step, dtype=torch.float64) for low, high in box)
    return torch.cartesian_prod(*axes), step**2


def score(target: Energy, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(target.log_prob(x).sum(), x)[0]


@pytest.mark.parametrize("name", PLANE)
def test_log_z_by_quadrature(name: str):
    target, (x, cell) = KINDS[name](), grid(name)
    found = target.log_prob(x).logsumexp(0).item() + math.log(cell)
    assert found == pytest.approx(target.log_z, abs=1e-6)


@pytest.mark.parametrize("name", PLANE)
def test_samples_have_the_density(name: str):
    target, (x, cell) = KINDS[name](), grid(name)
    density = (target.log_prob(x) - target.log_z).exp() * cell
    rows = target.sample(40_000, seeded()).double()
    middle = x.T @ density
    for function in (
        lambda x: torch.tanh(3 * (x - middle) / target.scale),
        lambda x: torch.tanh(9 * ((x - middle) / target.scale).prod(-1, keepdim=True)),
        lambda x: (x / target.scale).square(),
        lambda x: torch.sin(3 * x / target.scale),
        lambda x: target.log_prob(x).unsqueeze(-1),
    ):
        values = function(rows)
        error = values.std(0) / math.sqrt(len(rows))
        assert ((values.mean(0) - function(x).T @ density).abs() < 4 * error).all()


@sampled
def test_samples_obey_steins_identity(name: str):
    target = KINDS[name]()
    x = target.sample(40_000, seeded(1)).double()
    g = score(target, x)
    for values, wanted in ((g, 0.0), (g * x, -1.0), (g * torch.sin(x) + torch.cos(x), 0.0)):
        error = values.std(0) / math.sqrt(len(x))
        assert ((values.mean(0) - wanted).abs() < 4.5 * error).all()


def test_funnel_and_banana_are_products_of_conditionals():
    x = 3 * torch.randn(50, 10, dtype=torch.float64, generator=seeded())
    first, others = x[:, 0], x[:, 1:]
    zero = torch.zeros((), dtype=torch.float64)
    funnel = Normal(zero, 3).log_prob(first) + Normal(zero, (0.5 * first).exp()[:, None]).log_prob(
        others
    ).sum(1)
    torch.testing.assert_close(Funnel(10).log_prob(x), funnel)
    ridge = 0.1 * (25 - first.square())
    banana = Normal(zero, 5).log_prob(first) + Normal(ridge, 1).log_prob(x[:, 1])
    banana = banana + Normal(zero, 1).log_prob(x[:, 2:]).sum(1)
    torch.testing.assert_close(Banana(10, 0.1, 5.0).log_prob(x), banana)


def test_the_funnel_still_integrates_to_one_where_it_is_cut():
    """Beyond the cut the others' scale stays, and their normalization with it: x_0's own normal is left."""
    for first in (-420.0, -430.0, -1e4):
        width = math.exp(0.5 * max(first, -0.6 * math.log(torch.finfo(torch.float64).max)))
        others = torch.linspace(-12, 12, 2001, dtype=torch.float64) * width
        x = torch.stack([torch.full_like(others, first), others], 1)
        found = Funnel(2).log_prob(x).logsumexp(0) + math.log(0.012) + math.log(width)
        wanted = -0.5 * (first / 3) ** 2 - math.log(3) - 0.5 * math.log(2 * math.pi)
        assert found.item() == pytest.approx(wanted, rel=1e-12, abs=1e-8)


def test_many_well_is_the_published_one():
    assert ManyWell().log_z == pytest.approx(164.6957, abs=5e-5)
    assert ManyWell.log_z_well == pytest.approx(math.log(11784.50927), abs=1e-9)
    x = torch.tensor([[1.5, -0.5, -2.0, 3.0]], dtype=torch.float64)
    wells = [-(a**4) + 6 * a**2 + 0.5 * a - 0.5 * b**2 for a, b in ((1.5, -0.5), (-2.0, 3.0))]
    assert ManyWell(4).log_prob(x).item() == pytest.approx(sum(wells))


def test_the_forty_modes_are_the_published_ones():
    target = GaussianMixture40()
    torch.manual_seed(0)
    means = ((torch.rand((40, 2)) - 0.5) * 2 * 40).double()
    torch.testing.assert_close(target.modes, means)
    assert target.modes[0].tolist() == pytest.approx([-0.2995, 21.4577], abs=1e-4)
    sd = torch.nn.functional.softplus(torch.ones(40, 2, dtype=torch.float64))
    peer = MixtureSameFamily(Categorical(torch.ones(40)), Independent(Normal(means, sd), 1))
    x = target.sample(100, seeded()).double()
    torch.testing.assert_close(target.log_prob(x), peer.log_prob(x), rtol=1e-6, atol=1e-6)
    assert target.nearest(means).tolist() == list(range(40))
    counts = target.nearest(target.sample(40_000, seeded(3))).bincount(minlength=40)
    assert (counts / 1000 - 1).abs().max() < 0.35  # neighbors that overlap share their draws


def test_u1_to_u4_by_their_formulas():
    """Table 1 of the paper, in plain Python."""

    def bump(t):
        return math.exp(-0.5 * t * t)

    for a, b in ((0.3, -1.0), (-1.7, 0.4), (2.2, -2.9), (1.0, -2.0)):
        w1, w2, w3 = math.sin(0.5 * math.pi * a), 3 * bump((a - 1) / 0.6), 3 / (1 + math.exp(-(a - 1) / 0.3))
        wanted = {
            U1: -0.5 * ((math.hypot(a, b) - 2) / 0.4) ** 2
            + math.log(bump((a - 2) / 0.6) + bump((a + 2) / 0.6)),
            U2: -0.5 * ((b - w1) / 0.4) ** 2,
            U3: math.log(bump((b - w1) / 0.35) + bump((b - w1 + w2) / 0.35)),
            U4: math.log(bump((b - w1) / 0.4) + bump((b - w1 + w3) / 0.35)),
        }
        x = torch.tensor([[a, b]], dtype=torch.float64)
        for kind, value in wanted.items():
            assert kind().log_prob(x).item() == pytest.approx(value)


@pytest.mark.parametrize("shape", [(1,), (2,), (5,), (3, 4), (2, 2, 3)])
def test_the_free_field_is_a_gaussian(shape: tuple[int, ...]):
    target = Phi4(shape, 0.7, 0.0)
    zero = torch.zeros(target.features, dtype=torch.float64)
    hessian: Any = torch.autograd.functional.hessian(lambda x: target.log_prob(x), zero)
    wanted = 0.5 * target.features * math.log(2 * math.pi) - 0.5 * torch.logdet(-hessian).item()
    assert target.log_z == pytest.approx(wanted, abs=1e-10)


def test_the_action_site_by_site():
    target = Phi4((3, 4), -1.3, 0.6)
    assert target.log_z is None
    phi = torch.randn(3, 4, dtype=torch.float64, generator=seeded())
    action = 0.0
    for i in range(3):
        for j in range(4):
            here = phi[i, j].item()
            near = [phi[(i + 1) % 3, j], phi[i - 1, j], phi[i, (j + 1) % 4], phi[i, j - 1]]
            action += here * (4 * here - sum(n.item() for n in near)) - 1.3 * here**2 + 0.6 * here**4
    assert target.log_prob(phi.reshape(1, 12)).item() == pytest.approx(-action)
    for moved in (phi.roll(1, 0), phi.roll(2, 1), -phi):
        assert target.log_prob(moved.reshape(12)).item() == pytest.approx(-action)


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_out_gradients_stay_finite(name: str, dtype: torch.dtype):
    target = KINDS[name]()
    signs = torch.randn(40, target.features, generator=seeded()).sign()
    signs[0], signs[1] = 1, -1
    for size in (0.0, 1e3, 1e6):
        x = (size * signs).to(dtype)
        value = target.log_prob(x)
        assert value.isfinite().all()
        assert score(target, x).isfinite().all()


@kinds
def test_dtypes_shapes_and_refusals(name: str):
    target = KINDS[name]()
    x = torch.randn(2, 3, target.features, generator=seeded())
    value = target.log_prob(x)
    assert value.dtype == torch.float32
    exact = target.log_prob(x.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(value, exact.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(target.log_prob(x[1, 2]), value[1, 2])
    assert target.log_prob(x[:0]).shape == (0, 3)
    assert target.scale > 0
    evaluator = Evaluator(target)
    assert evaluator.differentiable(x[0])
    torch.testing.assert_close(evaluator(x[0]), exact[0].float())
    assert list(named(target, x[0])) == ["x"]
    with pytest.raises(ShapeError, match=f"has {target.features} columns"):
        target.log_prob(torch.zeros(3, target.features + 1))


@kinds
def test_gradients_are_those_of_the_values(name: str):
    target = KINDS[name]()
    x = torch.randn(4, target.features, dtype=torch.float64, generator=seeded(), requires_grad=True)
    assert torch.autograd.gradcheck(target.log_prob, (x,))


@sampled
def test_sampling_is_the_generators(name: str):
    target = KINDS[name]()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = target.sample(7, seeded(1))
    KINDS[name]()
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (7, target.features)
    assert first.dtype == torch.get_default_dtype()
    assert torch.equal(first, target.sample(7, seeded(1)))
    assert not torch.equal(first, target.sample(7, seeded(2)))
    assert target.sample(0).shape == (0, target.features)
    assert target.sample(3).isfinite().all()


many: Any = ManyWell
lattice: Any = Phi4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ManyWell(3), "even"),
        (lambda: ManyWell(0), "at least 1"),
        (lambda: many(2.0), "whole number"),
        (lambda: Funnel(1), "at least 2"),
        (lambda: Banana(1), "at least 2"),
        (lambda: Banana(2, math.nan), "bend finite"),
        (lambda: Banana(2, 0.1, 0.0), "spread positive"),
        (lambda: Phi4(()), "shape"),
        (lambda: Phi4((3, 0)), "shape"),
        (lambda: lattice((2.5,)), "shape"),
        (lambda: Phi4((3, 3), math.inf), "finite"),
        (lambda: Phi4((3, 3), 1.0, -1.0), "at least 0"),
        (lambda: Phi4((3, 3), 0.0, 0.0), "cannot be normalized"),
    ],
)
def test_bad_settings(make: Callable[[], Energy], words: str):
    with pytest.raises(ConfigError, match=words):
        make()
