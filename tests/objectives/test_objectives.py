"""Objectives of continuous flows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import diffeo
from diffeo import Flow
from diffeo.bases import Normal
from diffeo.bijections import Chain, Continuous, Standardize
from diffeo.contexts import Classes
from diffeo.errors import ConfigError
from diffeo.nets import Tanh, VelocityMLP
from diffeo.objectives import (
    Batch,
    FlowMatching,
    Independent,
    Likelihood,
    OptimalTransport,
    RegularizedLikelihood,
)
from diffeo.presets import FFJORD, MAF
from diffeo.presets import FlowMatching as Matched
from diffeo.testing import randomize_
from diffeo.train.loop import objective_of


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(rows: int, features: int = 2, **more: Any) -> Batch:
    return Batch(normal(rows, features), more.get("context"), more.get("weights"), torch.arange(rows))


# -- likelihood -----------------------------------------------------------------------------------


def test_penalties_are_added_in_training_only():
    flow = randomize_(FFJORD(2, hidden=8).build())
    rows = batch(50, weights=torch.rand(50))
    plain = Likelihood()(flow.train(), rows)
    none = RegularizedLikelihood(0.0, 0.0, 0.0)(flow, rows)
    torch.testing.assert_close(none, plain)
    for one in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)):
        assert RegularizedLikelihood(*one)(flow, rows) > plain
    flow.eval()
    assert torch.equal(RegularizedLikelihood(1.0, 1.0, 1.0)(flow, rows), Likelihood()(flow, rows))
    with pytest.raises(ConfigError, match="kinetic"):
        RegularizedLikelihood(kinetic=-1.0)


def test_a_penalty_is_weighted_as_its_row():
    flow = randomize_(FFJORD(2, hidden=8).build()).train()
    first = Batch(normal(2, 2)[:1], None, None, torch.arange(1))
    rows = Batch(normal(2, 2), None, torch.tensor([1.0, 0.0]), torch.arange(2))
    objective = RegularizedLikelihood(kinetic=1.0)
    torch.testing.assert_close(objective(flow, rows), objective(flow, first))


def test_presets_say_what_trains_them():
    assert objective_of(MAF(2).build()) == Likelihood()
    assert objective_of(FFJORD(2, kinetic=0.5).build()) == RegularizedLikelihood(0.5, 0.0, 0.0)
    assert objective_of(Matched(2).build()) == FlowMatching(power=2.0)


# -- flow matching --------------------------------------------------------------------------------


def test_evaluation_is_deterministic_and_training_is_not():
    flow, rows = randomize_(Matched(2, hidden=8).build()), batch(60)
    objective = FlowMatching()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert torch.equal(objective(flow.eval(), rows), objective(flow, rows))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(objective(flow.train(), rows), objective(flow, rows))


def test_the_best_field_reaches_the_known_least_loss():
    """From N(m, 1) to N(0, 1) the best field at x_t is linear, and its loss a one-dimensional integral."""
    shift = 2.0
    net = VelocityMLP(1, 1, (32, 32), context_features=2, activation=Tanh)
    flow = Flow(Chain([Standardize((1,)), Continuous(net)]), Normal((1,)))
    rows = normal(4000, 1) + shift
    report = diffeo.fit(flow, rows, max_steps=400, batch_size=256, objective=FlowMatching())
    assert report.skipped == 0
    found = flow.sample(4000, generator=torch.Generator().manual_seed(1))
    assert abs(found.mean().item() - rows.mean().item()) < 0.1
    assert abs(found.std().item() - rows.std().item()) < 0.1
    exact = torch.distributions.Normal(shift, 1.0).log_prob(rows[:500]).sum(1)
    assert (flow.log_prob(rows[:500]) - exact).mean().abs() < 0.05
    # E Var(z - x | x_t) = int 1 / ((1 - t)^2 + t^2) dt = pi / 2
    assert abs(-report.valid - math.pi / 2) < 0.25


def test_a_context_is_seen():
    flow = Matched(1, Classes(2), layers=2, hidden=32).build()
    classes = torch.arange(2000) % 2
    rows = normal(2000, 1) * 0.3 + 4.0 * classes.unsqueeze(1)
    diffeo.fit(flow, rows, classes, max_steps=300, batch_size=256)
    means = flow.sample(500, torch.arange(2)).mean(0).flatten()
    assert means[1] - means[0] > 2.5


def test_weights_count():
    flow = randomize_(Matched(2, hidden=8).build()).eval()
    x = normal(40, 2)
    weights = torch.zeros(40)
    weights[3] = 2.0
    one = FlowMatching()(flow, Batch(x, None, weights, torch.arange(40)))
    moved = x.clone()
    moved[4:] += 5
    assert torch.equal(one, FlowMatching()(flow, Batch(moved, None, weights, torch.arange(40))))


def test_another_flow_is_refused():
    with pytest.raises(ConfigError, match="Continuous layer last"):
        FlowMatching()(MAF(2, layers=1, hidden=(8,)).build(), batch(4))


# -- pairings -------------------------------------------------------------------------------------


def cost(data: Tensor, noise: Tensor) -> float:
    return (data - noise).square().sum(1).mean().item()


def test_transport_lowers_the_cost_to_the_least():
    data, noise = normal(64, 2) + 1, normal(64, 2, seed=1)
    rows, partners, weights = OptimalTransport().pair(data, noise, None, None, None)
    assert weights is None
    assert sorted(partners.tolist()) == list(range(64))  # every noise once: it stays normal
    optimize = pytest.importorskip("scipy.optimize")
    i, j = optimize.linear_sum_assignment(torch.cdist(data, noise).square().numpy())
    least = cost(data[i], noise[j])
    assert cost(data[rows], noise[partners]) == pytest.approx(least, rel=1e-5)
    independent = Independent().pair(data, noise, None, None, None)
    assert least < 0.8 * cost(data[independent[0]], noise[independent[1]])


def test_transport_stays_within_a_context():
    context = torch.tensor([0, 1, 0, 1, 1, 2]).unsqueeze(1)
    data, noise = normal(6, 2), normal(6, 2, seed=1)
    rows, partners, _ = OptimalTransport().pair(data, noise, context, None, None)
    assert torch.equal(context[rows], context[partners])
    assert sorted(rows.tolist()) == sorted(partners.tolist()) == list(range(6))


def test_transport_honors_weights():
    data, noise = normal(200, 1), normal(200, 1, seed=1)
    weights = torch.where(data[:, 0] > 0, 3.0, 1.0)
    generator = torch.Generator().manual_seed(0)
    pairs = [OptimalTransport().pair(data, noise, None, weights, generator) for _ in range(20)]
    rows, partners = (torch.cat([p[i] for p in pairs]) for i in (0, 1))
    share = (weights * (data[:, 0] > 0)).sum() / weights.sum()
    assert abs((data[rows] > 0).float().mean() - share) < 4 * 0.5 / math.sqrt(4000)
    assert abs(noise[partners].mean() - noise.mean()) < 4 / math.sqrt(4000)


def test_a_table_is_told_nats_not_the_loss_of_matching():
    rows = normal(600, 2).numpy() * 5
    flow, report = diffeo.fit_table(rows, preset=Matched(2, layers=1, hidden=8), max_seconds=2)
    assert report.training.valid == report.baselines["flow"]
    assert report.baselines["flow"] == pytest.approx(report.baselines["gaussian"], abs=0.3)
    assert flow.log_prob(torch.from_numpy(rows)).mean().item() == pytest.approx(
        report.training.valid, abs=0.3
    )
