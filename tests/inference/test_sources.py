"""Sources: chains that stay on their target whatever the flow proposes, and annealed draws."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffeo import Flow
from diffeo.bases import LearnedNormal, Normal
from diffeo.bijections import Standardize
from diffeo.errors import ConfigError
from diffeo.inference import Annealed, Annealing, Hamiltonian, Population, RandomWalk, Transition
from diffeo.inference.resampling import systematic
from diffeo.presets import MAF
from diffeo.targets import Evaluator, FromNumPy, FromTorch

INF = math.inf


def normal_flow(loc: float, scale: float, features: int = 1) -> Flow:
    flow = Flow(Standardize((features,)), LearnedNormal((features,)))
    with torch.no_grad():
        flow.base.loc.fill_(loc)  # type: ignore[union-attr, operator]
        flow.base.log_scale.fill_(math.log(scale))  # type: ignore[union-attr, operator]
    return flow


def standard(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum(-1)


def gamma(x: Tensor) -> Tensor:
    return (3 * x - x.exp()).sum(-1)


@pytest.mark.parametrize("transition", [Hamiltonian(3), RandomWalk(2)], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("flow", [normal_flow(2.5, 0.3), normal_flow(0.0, 20.0)], ids=["narrow", "wide"])
def test_a_wrong_flow_leaves_the_chains_on_their_target(flow: Flow, transition: Any):
    """Chains that start as draws of a skewed density are draws of it afterwards."""
    draws = torch.distributions.Gamma(torch.tensor(3.0).double(), 1.0).sample((206_000, 1)).log()
    chains = Population(FromTorch(gamma), draws[:6000], transition=transition)
    for _ in range(11):
        chains.draw(flow)
    found = chains.draw(flow)
    assert (found.log_weights == 0).all()
    assert torch.equal(found.x, chains.points.x)
    torch.testing.assert_close(chains.points.log_prob, gamma(found.x))
    assert 0 < chains.jumped < 0.5
    for f in (lambda x: x, lambda x: x**2, lambda x: (x > 1.6).double()):
        exact = f(draws[6000:])
        assert abs(float(f(found.x).mean() - exact.mean())) < 4 * float(exact.std()) / math.sqrt(6000)


def test_jumps_repair_the_weights_of_modes():
    """All chains begin in one mode of two; steps of their own do not get them out of it."""

    def two(x: Tensor) -> Tensor:
        left, right = -0.5 * (x + 12).square() + math.log(0.7), -0.5 * (x - 12).square() + math.log(0.3)
        return torch.logaddexp(left, right).sum(-1)

    x = torch.randn(2000, 1, dtype=torch.float64) - 12
    chains = Population(FromTorch(two), x, transition=RandomWalk(1))
    for _ in range(3):
        chains.draw(normal_flow(-12.0, 1.0))  # a flow that has dropped the other mode
    assert (chains.points.x < 0).all()
    for _ in range(100):
        chains.draw(normal_flow(0.0, 14.0))
    share = float((chains.points.x > 0).double().mean())
    assert abs(share - 0.3) < 4 * math.sqrt(0.21 / 2000)


def test_a_turn_moves_the_next_rows_and_goes_round():
    x = torch.randn(10, 2, dtype=torch.float64)
    chains = Population(FromTorch(standard), x, moving=3)
    flow = normal_flow(0.0, 1.0, 2)  # the target itself: every jump is taken
    for turn in ([0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 0, 1], [2, 3, 4]):
        before = chains.points.x.clone()
        found = chains.draw(flow)
        changed = (chains.points.x != before).any(-1)
        assert sorted(changed.nonzero()[:, 0].tolist()) == sorted(turn)
        assert torch.equal(found.x, chains.points.x[turn])
        assert len(found) == 3
        torch.testing.assert_close(chains.points.terms[0], standard(chains.points.x))
        torch.testing.assert_close(chains.points.grads[0], -chains.points.x)
        assert chains.jumped == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_handed_in_or_out_stays_as_it_is(dtype: torch.dtype):
    x = torch.zeros(20, 2, dtype=dtype)
    chains = Population(FromTorch(standard), x)
    first = chains.draw(normal_flow(0.0, 1.0, 2))
    kept = first.x.clone()
    chains.draw(normal_flow(0.0, 1.0, 2))
    assert (x == 0).all()
    assert torch.equal(first.x, kept)
    assert not torch.equal(chains.points.x, kept)
    assert first.x.dtype == torch.float64


def test_chains_outside_the_support_come_in():
    def boxed(x: Tensor) -> Tensor:
        return torch.where((x.abs() < 1).all(-1), 0 * x.sum(-1), -INF)

    chains = Population(FromTorch(boxed), torch.full((200, 2), 3.0), transition=RandomWalk(2))
    for _ in range(20):
        chains.draw(normal_flow(0.0, 1.0, 2))
    assert (chains.points.x.abs() < 1).all()


def test_costs():
    """A transition and one evaluation of a proposal each."""
    calls = Evaluator(FromTorch(standard))
    chains = Population(calls, torch.zeros(30, 2), moving=10, transition=RandomWalk(4))
    assert calls.evaluations == 30
    chains.draw(normal_flow(0.0, 1.0, 2))
    assert (calls.evaluations, calls.gradients) == (30 + 10 * 5, 0)
    assert isinstance(
        Population(FromNumPy(lambda x: -(x**2).sum(-1)), torch.zeros(3, 1)).transition, RandomWalk
    )
    assert isinstance(Population(FromTorch(standard), torch.zeros(3, 1)).transition, Hamiltonian)


def test_the_flow_stays_as_it_was():
    flow = MAF(features=2, layers=2, hidden=(8,)).build().train()
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    for source in (
        Population(FromTorch(standard), torch.zeros(10, 2)),
        Annealed(FromTorch(standard), num_draws=10),
        Annealed(FromTorch(standard), num_draws=10, annealing=Annealing(end=2.0)),
    ):
        assert not source.draw(flow).x.requires_grad
        assert all(m.training for m in flow.modules())
        assert all(p.requires_grad and p.grad is None for p in flow.parameters())
        assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())


def test_annealed_draws():
    calls = Evaluator(FromTorch(lambda x: standard(2 * x)))
    source = Annealed(calls, num_draws=5000)
    found = source.draw(normal_flow(0.0, 1.0, 2))
    assert (calls.evaluations, calls.gradients) == (5000 + 1, 1)  # one to find out about gradients
    assert source.end == 1.0
    assert abs(found.log_z - math.log(2 * math.pi / 4)) < 0.15
    assert (found.std() - 0.5).abs().max() < 0.04
    assert Annealed(calls, annealing=Annealing(end=2.0)).end == 2.0


def test_wrong_sizes():
    with pytest.raises(ConfigError, match="num_draws must be at least 2"):
        Annealed(FromTorch(standard), num_draws=1)
    for moving in (0, -3):
        with pytest.raises(ConfigError, match=f"moving must be at least 1, not {moving}"):
            Population(FromTorch(standard), torch.zeros(5, 2), moving=moving)
    assert Population(FromTorch(standard), torch.zeros(5, 2), moving=99).moving == 5


# -- resampling -----------------------------------------------------------------------------------


def test_systematic_counts():
    log_w = torch.tensor([0.1, 0.0, 0.6, 0.3]).log()
    for i in range(20):
        index = systematic(log_w, 10, torch.Generator().manual_seed(i))
        assert torch.bincount(index, minlength=4).tolist() == [1, 0, 6, 3]
        assert index.tolist() == sorted(index.tolist())
    mean = sum(torch.bincount(systematic(log_w + 1e4, 1), minlength=4).double() for _ in range(4000)) / 4000
    assert (mean - log_w.exp()).abs().max() < 4 * math.sqrt(0.24 / 4000)


@pytest.mark.parametrize("transition", [RandomWalk(2), Hamiltonian(3)])
def test_few_chains_are_not_drawn_together(transition: Transition):
    """A spread measured anew from the chains that it moves shrinks them: 8 of them to 0.79."""
    squares = []
    far = Flow(Standardize((5,)), Normal((5,)))
    far.initialize(torch.full((2, 5), 1e3) + torch.tensor([[-1.0], [1.0]]))  # its proposals are never taken
    for seed in range(60):
        torch.manual_seed(seed)
        target = FromTorch(lambda x: -0.5 * x.square().sum(-1))
        chains = Population(target, torch.randn(8, 5), None, transition)
        for _ in range(40):
            draws = chains.draw(far)
        assert chains.jumped == 0
        squares.append(draws.x.square().mean())
    values = torch.stack(squares)
    assert abs(float(values.mean()) - 1) < 4 * float(values.std()) / 60**0.5
