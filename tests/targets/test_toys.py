"""Toys: samples, densities and entropies agree with each other and with the published definitions."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn import datasets

import diffeo
from diffeo.errors import ShapeError
from diffeo.targets import TOYS, Evaluator

# Half the side of a box that holds all the mass, and cells a side fine enough for the density.
GRIDS = {
    "8gaussians": (6.0, 120),
    "checkerboard": (4.0, 16),
    "moons": (5.0, 200),
    "circles": (4.8, 160),
    "rings": (3.6, 260),
    "pinwheel": (6.0, 240),
    "2spirals": (4.2, 140),
    "swissroll": (4.4, 150),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def centers(half: float, n: int) -> torch.Tensor:
    axis = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 * half / n) - half
    return torch.cartesian_prod(axis, axis)


@pytest.mark.parametrize("name", TOYS)
def test_entropy_and_mass_by_quadrature(name):
    half, n = GRIDS[name]
    log_p = TOYS[name].log_prob(centers(half, n))
    p = log_p.exp() * (2 * half / n) ** 2
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    entropy = -torch.where(p > 0, p * log_p, 0.0).sum().item()
    assert entropy == pytest.approx(TOYS[name].entropy, abs=2e-5)


@pytest.mark.parametrize("name", TOYS)
def test_samples_follow_the_density(name):
    """Counts in a coarse grid of cells against the density integrated over each: a chi-squared test."""
    half, n = GRIDS[name]
    coarse = 20 if name != "checkerboard" else 8
    n = math.ceil(n / coarse) * coarse
    p = TOYS[name].log_prob(centers(half, n)).exp() * (2 * half / n) ** 2
    p = p.reshape(coarse, n // coarse, coarse, n // coarse).sum((1, 3)).flatten()
    rows = 200_000
    cell = ((TOYS[name].draw(rows, seeded()) + half) / (2 * half) * coarse).floor().long()
    assert ((cell >= 0) & (cell < coarse)).all()
    counts = torch.bincount(cell[:, 0] * coarse + cell[:, 1], minlength=coarse**2).double()
    large = p * rows > 5
    expected = torch.cat([p[large], p[~large].sum()[None]]) * rows
    observed = torch.cat([counts[large], counts[~large].sum()[None]])
    expected, observed = expected[expected > 1e-6], observed[expected > 1e-6]
    chi2, freedom = ((observed - expected) ** 2 / expected).sum().item(), len(expected) - 1
    assert abs(chi2 - freedom) < 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("name", TOYS)
def test_mean_log_prob_of_samples_is_the_entropy(name):
    toy = TOYS[name]
    x = toy.draw(20_000, seeded(1))
    surprise = -toy.log_prob(x)
    error = max(surprise.std().item() / math.sqrt(len(x)), 1e-12)
    assert abs(surprise.mean().item() - toy.entropy) < 4 * error + 1e-5


@pytest.mark.parametrize(
    "name, make",
    [
        ("moons", lambda n: datasets.make_moons(n, noise=0.1, random_state=0)[0] * 2 + [-1, -0.2]),
        ("circles", lambda n: datasets.make_circles(n, factor=0.5, noise=0.08, random_state=0)[0] * 3),
        ("swissroll", lambda n: datasets.make_swiss_roll(n, noise=1.0, random_state=0)[0][:, [0, 2]] / 5),
    ],
)
def test_agrees_with_scikit_learn(name, make):
    """The mean is the entropy plus the divergence of the two densities: nothing, if they are one."""
    surprise = -TOYS[name].log_prob(torch.from_numpy(make(40_000)))
    error = surprise.std().item() / 200
    assert abs(surprise.mean().item() - TOYS[name].entropy) < 4 * error


def test_checkerboard_is_exact():
    toy = TOYS["checkerboard"]
    assert toy.entropy == math.log(32)
    inside = torch.tensor([[0.5, 0.5], [-3.9, -3.9], [2.5, -1.5], [1.0, -3.0]])
    outside = torch.tensor([[0.5, 2.5], [4.1, 0.5], [1.0, -1.0], [0.0, 9.0]])
    assert (toy.log_prob(inside) == torch.tensor(-math.log(32.0))).all()
    assert (toy.log_prob(outside) == -math.inf).all()


@pytest.mark.parametrize("name", TOYS)
def test_seeds_shapes_and_dtypes(name):
    toy = TOYS[name]
    x = toy.sample(12, seeded(3))
    assert x.shape == (12, 2)
    assert x.dtype == torch.get_default_dtype()
    assert torch.equal(x, toy.sample(12, seeded(3)))
    assert not torch.equal(x, toy.sample(12, seeded(4)))
    assert toy.sample(0).shape == (0, 2)
    assert toy.log_prob(x.reshape(3, 4, 2)).shape == (3, 4)
    assert toy.log_prob(x).dtype == x.dtype
    assert toy.log_prob(x[0]).shape == ()
    assert toy.log_prob(x[:0]).shape == (0,)
    assert torch.allclose(toy.log_prob(x.reshape(3, 4, 2)).flatten(), toy.log_prob(x))


@pytest.mark.parametrize("name", TOYS)
def test_far_away_and_nan(name):
    far = TOYS[name].log_prob(torch.tensor([[50.0, -30.0], [0.0, 0.0]], dtype=torch.float64))
    assert far[0] < -100
    assert math.isfinite(far[0]) or name == "checkerboard"
    assert not far.isnan().any()
    assert TOYS[name].log_prob(torch.tensor([[math.nan, 0.0], [0.0, 1.0]])).isnan().tolist() == [True, False]


@pytest.mark.parametrize("name", [name for name in TOYS if name != "checkerboard"])
def test_gradients_are_those_of_the_values(name):
    x = torch.cat([TOYS[name].draw(20, seeded(5)), torch.tensor([[9.0, -7.0], [-12.0, 5.0]])]).double()
    assert torch.autograd.gradcheck(TOYS[name].log_prob, (x.requires_grad_(),))


def test_a_toy_is_a_target():
    toy = TOYS["moons"]
    assert (toy.features, toy.log_z, toy.scale) == (2, 0.0, 2.0)
    assert Evaluator(toy).differentiable(torch.zeros(1, 2))
    assert not Evaluator(TOYS["checkerboard"]).differentiable(torch.zeros(1, 2))
    flow = diffeo.presets.NSF(2, layers=2, hidden=16).build()
    report = diffeo.fit_target(flow, toy, start=toy.scale, max_steps=60)
    assert abs(report.log_z) < max(4 * report.log_z_error, 1e-3)


def test_wrong_shape_is_named():
    with pytest.raises(ShapeError, match=r"\(5, 3\)"):
        TOYS["moons"].log_prob(torch.zeros(5, 3))
