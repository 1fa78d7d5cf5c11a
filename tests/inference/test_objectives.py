"""Objectives that fit to a density: values and gradients against closed forms and quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import diffeo
from diffeo import Flow
from diffeo.bases import Normal
from diffeo.bijections import ActNorm, Exp
from diffeo.contexts import Classes
from diffeo.encodings import Dequantization
from diffeo.errors import ConfigError
from diffeo.inference import AlphaDivergence, ChiSquare, ImportanceBound, ReverseKL, SymmetricKL
from diffeo.objectives import Batch
from diffeo.presets import IAF, MAF, Jet, RealNVP
from diffeo.targets import Evaluator, Sampled

LOC, LOG_SCALE = 0.3, -0.2
Objective = Callable[[Flow, Batch], Tensor]


class Gaussian(Sampled):
    """An unnormalized normal density with one mean and one deviation for all columns."""

    def __init__(self, mean: float, deviation: float, log_z: float = 0.0):
        self.mean, self.deviation, self.log_z = mean, deviation, log_z

    def log_prob(self, x: Tensor) -> Tensor:
        standard = (x - self.mean) / self.deviation
        constant = math.log(self.deviation) + 0.5 * math.log(2 * math.pi)
        return (-0.5 * standard.square() - constant).sum(-1) + self.log_z

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.mean + self.deviation * torch.randn(n, 1, generator=generator, dtype=torch.float64)


class Pair:
    """A mixture of two normals, unnormalized."""

    def log_prob(self, x: Tensor) -> Tensor:
        terms = torch.stack([-0.5 * (x[:, 0] - 1).square(), -2 * (x[:, 0] + 1.5).square()])
        return terms.logsumexp(0)


class Half:
    """The positive half of a standard normal."""

    def log_prob(self, x: Tensor) -> Tensor:
        inside = (x > 0).all(-1)
        return torch.where(inside, -0.5 * x.square().sum(-1), -math.inf)


class InNumPy:
    def log_prob(self, x: Tensor) -> Tensor:
        return torch.from_numpy(-0.5 * np.square(x.numpy()).sum(-1))


def gaussian_flow(features: int = 1, loc: float = LOC, log_scale: float = LOG_SCALE) -> Flow:
    flow = Flow(ActNorm((features,)), Normal((features,))).double()
    with torch.no_grad():
        flow.bijection.loc.fill_(loc)  # type: ignore[union-attr, operator]
        flow.bijection.log_scale.fill_(log_scale)  # type: ignore[union-attr, operator]
    return flow


def batch(
    rows: int, features: int = 1, context: Tensor | None = None, weights: Tensor | None = None
) -> Batch:
    return Batch(torch.zeros(rows, features, dtype=torch.float64), context, weights, torch.arange(rows))


def value_and_gradient(flow: Flow, objective: Objective, rows: int) -> Tensor:
    loss = objective(flow, batch(rows))
    loc, log_scale = torch.autograd.grad(loss, list(flow.parameters()))
    return torch.cat([loss.detach()[None], loc, log_scale])


def repeated(objective: Objective, rows: int, times: int) -> tuple[Tensor, Tensor]:
    """Mean and standard error of the loss and of its gradient in loc and log-scale."""
    flow = gaussian_flow()
    found = torch.stack([value_and_gradient(flow, objective, rows) for _ in range(times)])
    return found.mean(0), found.std(0) / times**0.5


def exact(divergence: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The same of a function of loc and log-scale, by autograd."""
    loc = torch.tensor(LOC, dtype=torch.float64, requires_grad=True)
    log_scale = torch.tensor(LOG_SCALE, dtype=torch.float64, requires_grad=True)
    value = divergence(loc, log_scale)
    return torch.stack([value, *torch.autograd.grad(value, [loc, log_scale])]).detach()


def log_q(x: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    return -0.5 * ((x - loc) * torch.exp(-log_scale)).square() - log_scale - 0.5 * math.log(2 * math.pi)


def check(found: tuple[Tensor, Tensor], wanted: Tensor, bias: float = 0.0) -> None:
    mean, error = found
    assert (error > 0).all()
    assert (error < 0.03).all(), "too noisy to tell anything"
    assert ((mean - wanted).abs() < 4 * error + bias).all(), (mean, wanted, error)


# -- values and gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("path", [True, False])
def test_reverse_kl_of_gaussians(path: bool):
    def divergence(loc: Tensor, log_scale: Tensor) -> Tensor:
        square = (2 * log_scale).exp() + (loc - 1.0).square()
        return math.log(1.5) - log_scale + square / (2 * 1.5**2) - 0.5 - 0.7

    check(repeated(ReverseKL(Gaussian(1.0, 1.5, 0.7), path), 200, 200), exact(divergence))


@pytest.mark.parametrize("alpha", [0.3, 0.8, 1.5, 2.0])
def test_alpha_divergence_against_quadrature(alpha: float):
    x = torch.linspace(-12, 12, 20_001, dtype=torch.float64)

    def divergence(loc: Tensor, log_scale: Tensor) -> Tensor:
        own = log_q(x, loc, log_scale + 0.6)
        integral = torch.trapezoid(torch.exp(alpha * (Pair().log_prob(x[:, None]) - own) + own), x)
        return integral.log() / (alpha * (alpha - 1))

    objective: Objective = ChiSquare(Pair()) if alpha == 2 else AlphaDivergence(Pair(), alpha)
    flow = gaussian_flow(log_scale=LOG_SCALE + 0.6)  # wide enough for the weights to have a variance
    found = torch.stack([value_and_gradient(flow, objective, 10_000) for _ in range(40)])
    check((found.mean(0), found.std(0) / 40**0.5), exact(divergence), bias=1e-3)


@pytest.mark.parametrize("draws", [1, 2])
def test_importance_bound_against_quadrature(draws: int):
    nodes, weights = np.polynomial.hermite_e.hermegauss(160)
    z = torch.from_numpy(nodes)
    share = torch.from_numpy(weights / weights.sum())

    def bound(loc: Tensor, log_scale: Tensor) -> Tensor:
        x = loc + log_scale.exp() * z
        log_w = Pair().log_prob(x[:, None]) - log_q(x, loc, log_scale)
        if draws == 1:
            return -(share * log_w).sum()
        both = torch.logaddexp(log_w[:, None], log_w) - math.log(2)
        return -(share[:, None] * share * both).sum()

    check(repeated(ImportanceBound(Pair(), draws), 500, 200), exact(bound))


def test_symmetric_kl_of_gaussians():
    def divergence(loc: Tensor, log_scale: Tensor) -> Tensor:
        own, other, gap = (2 * log_scale).exp(), 1.5**2, (loc - 1.0).square()
        return 0.5 * ((own + gap) / other + (other + gap) / own) - 1

    check(repeated(SymmetricKL(Gaussian(1.0, 1.5, 0.7)), 200, 300), exact(divergence))


ALL = {
    "ReverseKL": ReverseKL,
    "alpha 0.5": lambda target: AlphaDivergence(target, 0.5),
    "ChiSquare": ChiSquare,
    "ImportanceBound": lambda target: ImportanceBound(target, 3),
}


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_is_zero_in_every_draw_where_the_flow_is_the_target(name: str):
    target = Gaussian(LOC, math.exp(LOG_SCALE), log_z=2.5)
    value, *gradient = value_and_gradient(gaussian_flow(), ALL[name](target), 20).tolist()
    assert max(map(abs, gradient)) < 1e-12
    assert abs(value) == pytest.approx({"alpha 0.5": 5.0}.get(name, 2.5))


def test_a_plain_gradient_would_be_noise_there():
    flow, target = gaussian_flow(), Gaussian(LOC, math.exp(LOG_SCALE))
    x, own = flow.sample_and_log_prob(20)
    (own - target.log_prob(x)).mean().backward()
    assert max(p.grad.abs().max().item() for p in flow.parameters() if p.grad is not None) > 1e-3


@pytest.mark.parametrize("preset", [MAF, IAF, RealNVP])
def test_training_reaches_a_correlated_target(preset: Any):
    covariance = torch.tensor([[1.0, 0.8], [0.8, 2.0]], dtype=torch.float64)
    target = torch.distributions.MultivariateNormal(torch.tensor([1.0, -1.0]).double(), covariance)
    flow = preset(features=2, layers=3, hidden=(16,)).build()
    rows = torch.zeros(256, 2)
    report = diffeo.fit(
        flow, rows, objective=ReverseKL(target), max_steps=300, validation=0.5, batch_size=128
    )
    assert -0.05 < report.valid < 0.01  # the bound of log Z = 0


# -- draws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_evaluation_draws_the_same_and_training_does_not(name: str):
    flow, objective = gaussian_flow().eval(), ALL[name](Pair())
    state = torch.get_rng_state()
    first = objective(flow, batch(10))
    with torch.no_grad():
        assert objective(flow, batch(10)) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert objective(flow.train(), batch(10)) != objective(flow, batch(10))


def test_each_draw_is_at_its_row_s_context():
    flow = RealNVP(2, context=Classes(3), layers=2, hidden=(8,)).build().double().eval()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.3 * torch.randn_like(p))
    context = torch.tensor([0, 2, 1, 1])
    generator = torch.Generator().manual_seed(0)
    x, own = flow.sample_and_log_prob((), context, generator=generator)
    assert torch.allclose(flow.log_prob(x, context), own)
    target = Gaussian(0.0, 1.0)
    found = ReverseKL(target)(flow, batch(4, 2, context))
    assert torch.allclose(found, (own - target.log_prob(x)).mean())
    x, own = flow.sample_and_log_prob(5, context, generator=torch.Generator().manual_seed(0))
    log_w = target.log_prob(x.reshape(20, 2)).reshape(5, 4) - own
    found = ImportanceBound(target, 5)(flow, batch(4, 2, context))
    assert torch.allclose(found, -(log_w.logsumexp(0) - math.log(5)).mean())
    found.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in list(flow.parameters())[-2:])


@pytest.mark.parametrize("name", ALL)
def test_rows_count_by_their_weights(name: str):
    flow, objective = gaussian_flow().eval(), ALL[name](Pair())
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    if name == "ImportanceBound":  # the draws of one row lie apart in memory
        flow_draws = flow.sample_and_log_prob((3, 5), generator=torch.Generator().manual_seed(0))
        log_w = Pair().log_prob(flow_draws[0].reshape(15, 1)).reshape(3, 5) - flow_draws[1]
        wanted = -(log_w.logsumexp(0) - math.log(3))[:3].mean()
    else:
        wanted = objective(flow, batch(3))
    assert torch.allclose(objective(flow, batch(5, weights=weights)), wanted)


def test_draws_without_mass_are_left_out():
    flow = gaussian_flow(loc=0.5).eval()
    x, own = flow.sample_and_log_prob(400, generator=torch.Generator().manual_seed(0))
    inside = x[:, 0] > 0
    gap = (own + 0.5 * x[:, 0].square())[inside].mean()
    share = inside.double().mean()
    assert 0.5 < share < 0.9
    loss = ReverseKL(Half())(flow, batch(400))
    assert torch.allclose(loss, gap - share.log())
    assert -loss <= 0.5 * math.log(math.pi / 2)  # log Z
    for objective in (
        ReverseKL(Half()),
        AlphaDivergence(Half(), 0.5),
        ChiSquare(Half()),
        ImportanceBound(Half(), 9),
    ):
        gradient = torch.autograd.grad(objective(flow, batch(200)), list(flow.parameters()))
        assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradient)


def test_no_draw_with_mass_is_an_infinite_loss():
    flow = gaussian_flow(loc=-50.0)
    loss = ReverseKL(Half())(flow, batch(20))
    assert loss == math.inf
    report = diffeo.fit(
        gaussian_flow(loc=-5.0).requires_grad_(True),
        np.full((8, 1), -30.0) + np.arange(8)[:, None],  # the layer starts where these rows are
        objective=ReverseKL(Half()), max_steps=3, validation=0,
    )  # fmt: skip
    assert report.skipped == 3


# -- what is refused, and what is kept -------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_target_without_gradients_is_refused_with_the_way_out(name: str):
    with pytest.raises(ConfigError, match="fit_target"):
        ALL[name](InNumPy())(gaussian_flow(), batch(5))


def test_encoded_flows_are_refused():
    flow = Jet((1, 2, 2), patch=1, hidden=8, heads=2).build(Dequantization((1, 2, 2)))
    with pytest.raises(ConfigError, match="without_encoding"):
        ReverseKL(Pair())(flow, batch(5, 2))


@pytest.mark.parametrize("alpha", [0.0, 1.0, -2.0, math.inf, math.nan])
def test_alphas_that_are_none(alpha: float):
    with pytest.raises(ConfigError, match="alpha must be"):
        AlphaDivergence(Pair(), alpha)


def test_other_refusals():
    with pytest.raises(ConfigError, match="cannot be sampled"):
        SymmetricKL(Pair())
    with pytest.raises(ConfigError, match="num_draws must be"):
        ImportanceBound(Pair(), 0)
    with pytest.raises(ConfigError, match="not a target"):
        ReverseKL(object())  # type: ignore[arg-type]


def test_an_evaluator_keeps_its_counts():
    evaluator = Evaluator(Pair())
    ReverseKL(evaluator)(gaussian_flow(), batch(7))
    assert (evaluator.evaluations, evaluator.gradients) == (14, 14)  # as many to ask for gradients


@pytest.mark.parametrize("name", [*ALL, "SymmetricKL"])
def test_frozen_parameters_stay_frozen(name: str):
    objective = {**ALL, "SymmetricKL": SymmetricKL}[name](Gaussian(1.0, 2.0))
    flow = MAF(features=1, layers=2, hidden=(4,)).build().double()
    first, *others = flow.parameters()
    first.requires_grad_(False)
    before = [p.detach().clone() for p in (first, *others)]
    diffeo.fit(flow, torch.zeros(32, 1, dtype=torch.float64), objective=objective, max_steps=5, validation=0)
    assert not first.requires_grad
    assert torch.equal(first, before[0])
    assert any(not torch.equal(p, b) for p, b in zip(others, before[1:], strict=True))
    assert all(p.requires_grad for p in others)


def test_a_flow_on_the_half_line_fits_there():
    flow = Flow(diffeo.bijections.Inverse(Exp((1,))), Normal((1,))).double()
    assert ReverseKL(Half())(flow, batch(50)).isfinite()


@pytest.mark.parametrize("kind", [ReverseKL, ChiSquare, ImportanceBound])
def test_a_large_constant_changes_no_gradient(kind: Callable[[Sampled], Objective]):
    """In float32 a log-density of 1e6 has steps of 0.06; the weights must have none."""

    def gradient(constant: float) -> Tensor:
        torch.manual_seed(0)
        flow = gaussian_flow().float()
        rows = Batch(torch.zeros(64, 1), None, None, torch.arange(64))
        loss = kind(Gaussian(1.0, 1.5, constant))(flow, rows)
        assert loss.dtype == torch.float32
        return torch.cat(torch.autograd.grad(loss, list(flow.parameters())))

    torch.testing.assert_close(gradient(1e6), gradient(0.0), rtol=1e-5, atol=1e-6)
