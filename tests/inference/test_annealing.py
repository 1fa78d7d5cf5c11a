"""Annealing: whether the evidence is exact, where its stages stop, and what it says when it cannot go on."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffeo import Flow
from diffeo.bases import LearnedNormal, Normal
from diffeo.bijections import Standardize
from diffeo.errors import ConfigError, ContextError, DataError
from diffeo.inference import Annealing, Hamiltonian, Importance, RandomWalk
from diffeo.inference.annealing import spread
from diffeo.presets import MAF
from diffeo.targets import Evaluator, FromNumPy, FromTorch

INF = math.inf


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wide(features: int = 1, scale: float = 1.0, loc: float = 0.0) -> Flow:
    """A normal as a flow, in float64."""
    flow = Flow(Standardize((features,)), LearnedNormal((features,))).double()
    with torch.no_grad():
        flow.base.loc.fill_(loc)  # type: ignore[union-attr, operator]
        flow.base.log_scale.fill_(math.log(scale))  # type: ignore[union-attr, operator]
    return flow.eval()


def gaussian(loc: float, scale: float, log_z: float = 0.0) -> FromTorch:
    """Of this integral in one column."""
    constant = log_z - math.log(scale) - 0.5 * math.log(2 * math.pi)
    return FromTorch(lambda x: (constant - 0.5 * ((x - loc) / scale).square()).sum(-1))


def check_mean(values: Tensor, exact: float) -> None:
    """Within 4 standard errors, and these small enough to mean something."""
    error = float(values.std()) / math.sqrt(len(values))
    assert error < 0.1 * abs(exact)
    assert abs(float(values.mean()) - exact) < 4 * error


def evidence(annealing: Annealing, target: FromTorch, flow: Flow, runs: int = 10, rows: int = 800) -> Tensor:
    return torch.tensor(
        [math.exp(annealing.run(flow, target, rows, generator=generator(i)).log_z) for i in range(runs)]
    )


# -- the weights are exact ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "annealing",
    [
        Annealing(Hamiltonian(2), moves=1),
        Annealing(Hamiltonian(2), moves=1, keep=0.9),
        Annealing(Hamiltonian(2), moves=1, resample=0.0),
        Annealing(Hamiltonian(2), moves=1, resample=1.0),
        Annealing(RandomWalk(2), moves=2, keep=0.3),
        Annealing(moves=0, keep=1e-6, resample=0.0),
        Annealing(moves=0, keep=1e-6, resample=1.0),
    ],
    ids=lambda a: f"{type(a.transition).__name__}-{a.moves}-{a.keep}-{a.resample}",
)
def test_the_mean_weight_is_the_evidence(annealing: Annealing):
    values = evidence(annealing, gaussian(1.5, 0.6, math.log(3)), wide())
    check_mean(values, 3.0)


@pytest.mark.parametrize("resample", [0.0, 0.5])
def test_beyond_the_target(resample: float):
    """At ``end = 2`` the integral of ``p^2 / q``, with q a standard normal and p one of another."""
    loc, scale = 0.8, 0.6
    a = 1 / scale**2 - 0.5
    log_z = -2 * math.log(scale) - 0.5 * math.log(2 * math.pi) + 0.5 * math.log(math.pi / a)
    log_z += loc**2 / (scale**4 * a) - loc**2 / scale**2
    grid = torch.linspace(-10, 10, 100_001, dtype=torch.float64)[:, None]  # the formula itself, by numbers
    log_p, log_q = gaussian(loc, scale).log_prob(grid), wide().log_prob(grid).detach()
    assert float((2 * log_p - log_q).exp().sum() * 2e-4) == pytest.approx(math.exp(log_z), rel=1e-6)
    annealing = Annealing(Hamiltonian(2), moves=1, end=2.0, resample=resample)
    check_mean(evidence(annealing, gaussian(loc, scale), wide()), math.exp(log_z))
    mean, sd = 2 * loc / scale**2 / (2 * a), math.sqrt(1 / (2 * a))
    found = Annealing(end=2.0).run(wide(), gaussian(loc, scale), 4000, generator=generator())
    assert abs(float(found.mean()) - mean) < 5 * sd / math.sqrt(4000 * found.ess)
    assert abs(float(found.std()) - sd) < 5 * sd / math.sqrt(2 * 4000 * found.ess)


def test_half_way_is_normalized_half_way():
    """At ``end = 1/2`` the integral of ``sqrt(q p)``."""
    values = evidence(Annealing(Hamiltonian(3), end=0.5, moves=1), gaussian(2.0, 1.0), wide())
    check_mean(values, math.exp(-0.5))


def test_draws_of_a_far_target():
    """Five deviations off and a tenth as wide, in two columns: the draws are the target's own."""
    found = Annealing(Hamiltonian(5)).run(wide(2), gaussian(5.0, 0.1, 2.0), 3000, generator=generator())
    assert abs(found.log_z - 4) < 0.3
    assert (found.mean() - 5).abs().max() < 0.015
    assert (found.std() / 0.1 - 1).abs().max() < 0.1
    assert found.ess > 0.4


def test_modes_keep_their_weights():
    """Resampling kills and copies, yet the mean share of each mode is its own."""

    def two(x: Tensor) -> Tensor:
        left, right = -0.5 * (x + 6).square() + math.log(0.8), -0.5 * (x - 6).square() + math.log(0.2)
        return torch.logaddexp(left, right).sum(-1)

    runs = [
        Annealing(Hamiltonian(2), moves=1, resample=0.9).run(
            wide(scale=6.0), FromTorch(two), 1500, generator=generator(i)
        )
        for i in range(10)
    ]
    mass = torch.tensor([math.exp(r.log_z) * float(r.normalized @ (r.x[:, 0] > 0).double()) for r in runs])
    check_mean(mass, 0.2 * math.sqrt(2 * math.pi))


def test_a_bounded_support():
    def square(x: Tensor) -> Tensor:
        return torch.where((x.abs() < 0.5).all(-1), 0 * x.sum(-1), -INF)

    for resample in (0.0, 0.5):
        annealing = Annealing(Hamiltonian(3), resample=resample)
        runs = [annealing.run(wide(2), FromTorch(square), 500, generator=generator(i)) for i in range(10)]
        check_mean(torch.tensor([math.exp(r.log_z) for r in runs]), 1.0)
        for r in runs:
            alive = r.log_weights > -INF
            assert (r.x[alive].abs() < 0.5).all()
            assert bool(alive.all()) == (resample > 0)
        x = torch.cat([r.x[r.log_weights > -INF] for r in runs])
        assert (x.square().mean(0) - 1 / 12).abs().max() < 0.01  # evenly


# -- its way --------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.3, 0.8, 0.99])
def test_a_stage_goes_as_far_as_the_weights_allow(keep: float):
    target, told = gaussian(3.0, 0.3), []
    Annealing(keep=keep).run(wide(), target, 500, generator=generator(), on_stage=told.append)
    x = wide().sample(500, generator=generator())
    ratio = (target.log_prob(x) - wide().log_prob(x)).detach()
    w = (told[0] * ratio).exp()
    assert float(w.mean() ** 2 / w.square().mean()) == pytest.approx(keep, abs=0.01)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) > 1


def test_more_to_keep_is_more_stages():
    def stages(keep: float) -> int:
        told: list[float] = []
        Annealing(keep=keep).run(wide(), gaussian(3.0, 0.3), 300, generator=generator(), on_stage=told.append)
        return len(told)

    assert stages(0.3) < stages(0.8) < stages(0.97)


def test_a_good_flow_needs_one_stage():
    told: list[float] = []
    calls = Evaluator(gaussian(0.0, 1.0, 5.0))
    found = Annealing(Hamiltonian(1), moves=3).run(
        wide(), calls, 100, generator=generator(), on_stage=told.append
    )
    assert told == [1.0]
    assert calls.evaluations == 400
    assert found.log_z == pytest.approx(5.0, abs=1e-9)
    assert found.ess == pytest.approx(1.0)


@pytest.mark.parametrize("keep", [1e-6, 0.3, 0.9])
def test_without_moves_it_reweights_as_far_as_it_may(keep: float):
    calls = Evaluator(gaussian(4.0, 0.1))
    found = Annealing(Hamiltonian(), moves=0, keep=keep, resample=0.0).run(
        wide(), calls, 1000, generator=generator()
    )
    x = wide().sample(1000, generator=generator())
    assert torch.equal(found.x, x)
    ratio = (calls.target.log_prob(x) - wide().log_prob(x)).detach()
    power = float(found.log_weights @ ratio / ratio.square().sum())
    torch.testing.assert_close(found.log_weights, power * ratio)
    if keep == 1e-6:  # importance sampling
        assert power == pytest.approx(1.0)
    else:  # tempered
        assert 0 < power < 0.5
        assert found.ess == pytest.approx(keep, rel=0.01)
    assert (calls.evaluations, calls.gradients) == (1000, 0)


def test_weights_after_resampling_are_equal():
    found = Annealing(resample=1.0).run(wide(), gaussian(1.0, 0.5), 200, generator=generator())
    assert float(found.log_weights.std()) < 1e-12
    never = Annealing(resample=0.0).run(wide(), gaussian(1.0, 0.5), 200, generator=generator())
    assert float(never.log_weights.std()) > 0.01


def test_a_target_without_gradients():
    calls = Evaluator(FromNumPy(lambda x: -0.5 * (((x - 3) / 0.5) ** 2).sum(-1)))
    found = Annealing().run(wide(2), calls, 2000, generator=generator())
    assert calls.gradients <= 1  # to find out that there are none
    assert abs(found.log_z - math.log(2 * math.pi * 0.25)) < 0.15
    assert (found.mean() - 3).abs().max() < 0.08


def test_a_float32_flow_and_a_float64_target():
    seen = set()

    def target(x: Tensor) -> Tensor:
        seen.add(x.dtype)
        return -0.5 * (x - 1).square().sum(-1)

    flow = MAF(features=2, layers=2, hidden=(8,)).build().train()
    found = Annealing().run(flow, FromTorch(target), 500, generator=generator())
    assert found.x.dtype == found.log_weights.dtype == torch.float64
    assert seen == {torch.float64}
    assert flow.training
    assert all(p.grad is None and p.requires_grad for p in flow.parameters())
    assert not found.x.requires_grad
    assert abs(found.log_z - math.log(2 * math.pi)) < 0.15


def test_one_seed_is_one_run():
    def run(seed: int) -> Importance:
        torch.manual_seed(99 + len(seen))  # torch's own numbers have no part in it
        seen.append(seed)
        return Annealing().run(wide(), gaussian(2.0, 0.2), 100, generator=generator(seed))

    seen: list[int] = []
    first, again, other = run(1), run(1), run(2)
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.log_weights, again.log_weights)
    assert not torch.equal(first.x, other.x)


# -- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"keep": 0.0}, "keep must be in"),
        ({"keep": 1.0}, "keep must be in"),
        ({"keep": math.nan}, "keep must be in"),
        ({"resample": -0.1}, "resample must be in"),
        ({"resample": 1.1}, "resample must be in"),
        ({"end": 0.0}, "end must be in"),
        ({"end": math.inf}, "end must be in"),
        ({"moves": -1}, "moves must be at least 0"),
        ({"stages": 0}, "stages at least 1"),
    ],
)
def test_wrong_fields(fields: dict[str, float], says: str):
    with pytest.raises(ConfigError, match=says):
        Annealing(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-INF, math.nan])
def test_no_mass_where_it_starts(value: float):
    nowhere: Callable[[Tensor], Tensor] = lambda x: torch.full_like(x[:, 0], value)  # noqa: E731
    with pytest.raises(DataError, match="none of 50 starting points a finite density"):
        Annealing().run(wide(), FromTorch(nowhere), 50)


def test_a_way_without_end():
    with pytest.raises(DataError, match=r"after 3 stages the draws had come .+ of the way"):
        Annealing(stages=3).run(wide(), gaussian(1000.0, 0.01), 100, generator=generator())


def test_a_flow_with_context():
    with pytest.raises((ConfigError, ContextError), match="context"):
        Annealing().run(MAF(features=1, context=1).build(), gaussian(0.0, 1.0), 10)


# -- the spread of weighted rows ------------------------------------------------------------------


def test_spread_is_the_covariance():
    x = torch.randn(5000, 2, dtype=torch.float64, generator=generator())
    x = x @ torch.tensor([[1.0, 2.0], [0.0, 0.1]], dtype=torch.float64) + 1e3
    log_w = torch.randn(5000, dtype=torch.float64, generator=generator(1))
    share = log_w.softmax(0)
    centered = x - share @ x
    tril = spread(x, log_w)
    torch.testing.assert_close(tril @ tril.T, (share[:, None] * centered).T @ centered, rtol=1e-3, atol=1e-4)
    assert torch.equal(tril, tril.tril())


def test_spread_of_few_rows_can_be_used():
    """Fewer rows than columns, or one row of all the weight, or equal rows: still a factor."""
    few = torch.randn(3, 10, dtype=torch.float64, generator=generator())
    alone = torch.tensor([0.0, -INF, -INF], dtype=torch.float64)
    for x, log_w in ((few, torch.zeros(3).double()), (few, alone), (0 * few, torch.zeros(3).double())):
        tril = spread(x, log_w)
        assert tril.isfinite().all()
        assert (tril.diagonal() > 0).all()


def test_a_normal_base_needs_no_parameters():
    flow = Flow(Standardize((2,)), Normal((2,))).double()
    found = Annealing().run(flow, gaussian(0.0, 1.0, 1.0), 100, generator=generator())
    assert found.log_z == pytest.approx(2.0, abs=1e-9)
