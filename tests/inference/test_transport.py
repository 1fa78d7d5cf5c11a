"""HMC through a flow: integrator, exactness, what makes it fast, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from diffeo import Flow
from diffeo.bases import Normal, Uniform
from diffeo.bijections import Autoregressive, Bijection, Chain, Inverse, Reverse, Sigmoid
from diffeo.elementwise import Affine
from diffeo.encodings.columns import Column, Columns
from diffeo.encodings.kinds import Positive
from diffeo.errors import ConfigError, DataError
from diffeo.inference import Chains, neural_transport
from diffeo.inference.importance import as_evaluator, working_copy
from diffeo.inference.transitions import ChainState, leapfrog
from diffeo.inference.transport import Latent
from diffeo.nets import MADE
from diffeo.presets import IAF, MAF, NSF, CouplingNSF, RealNVP
from diffeo.targets import Evaluator, FromNumPy, FromTorch
from diffeo.testing import randomize_

COVARIANCE = torch.tensor([[4.0, 1.2, 0.0], [1.2, 1.0, -0.3], [0.0, -0.3, 0.25]], dtype=torch.float64)
CENTER = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def correlated(x: Tensor) -> Tensor:
    off = x - CENTER
    return -0.5 * (off @ torch.linalg.inv(COVARIANCE) * off).sum(-1)


def funnel(x: Tensor) -> Tensor:
    """Neal's: v ~ N(0, 3^2), the others N(0, e^v)."""
    v, rest = x[:, 0], x[:, 1:]
    return -0.5 * (v / 3).square() - 0.5 * rest.square().sum(-1) * (-v).exp() - 0.5 * rest.shape[1] * v


class Unfunnel(Bijection):
    """The funnel to a standard normal, exactly."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        v, rest = x[..., :1], x[..., 1:]
        log_det = -math.log(3) - 0.5 * rest.shape[-1] * v.squeeze(-1)
        return torch.cat([v / 3, rest * (-0.5 * v).exp()], -1), log_det

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        v, rest = 3 * y[..., :1], y[..., 1:]
        log_det = math.log(3) + 0.5 * rest.shape[-1] * v.squeeze(-1)
        return torch.cat([v, rest * (0.5 * v).exp()], -1), log_det


class Undefined(Bijection):
    """Leaves the range of numbers where the first latent is above 1."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(x.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return torch.where(y[..., :1] > 1, math.nan * y, y), y.new_zeros(y.shape[:-1])


def plain(features: int) -> Flow:
    """The identity."""
    return Flow(Reverse(features), Normal((features,)))


def shaped(preset: RealNVP | MAF | IAF | CouplingNSF) -> Flow:
    return randomize_(preset.build(), scale=0.05)


def check_moments(found: Chains) -> None:
    """Mean and covariance within 4 standard errors, by the effective number of draws of each column."""
    assert found.max_rhat < 1.03
    off = found.flat() - CENTER
    scale = COVARIANCE.diagonal().sqrt()
    assert (off.mean(0).abs() < 4 * scale / found.ess.sqrt()).all()
    # of a product of two normals: var = c_ii c_jj + c_ij^2
    spread = (torch.outer(scale, scale).square() + COVARIANCE.square()).sqrt()
    least = torch.minimum(found.ess[:, None], found.ess[None, :]) / 2  # squares mix slower than values
    assert ((off.T @ off / len(off) - COVARIANCE).abs() < 4 * spread / least.sqrt()).all()


@pytest.mark.parametrize(
    "build",  # in the test, so that its weights are those of its seed
    [
        lambda: plain(3),
        lambda: shaped(RealNVP(features=3, layers=2, hidden=(8,))),
        lambda: shaped(MAF(features=3, layers=1, hidden=(8,))),
        lambda: shaped(IAF(features=3, layers=1, hidden=(8,))),
        lambda: shaped(CouplingNSF(features=3, layers=2, hidden=8, blocks=1, bins=4)),
        lambda: Flow(
            Chain([Reverse(3), Inverse(Autoregressive(MADE(3, 2, (8,)), Affine()))]),
            Normal((3,)),
        ),
    ],
    ids=["identity", "RealNVP", "MAF", "IAF", "CouplingNSF", "Inverse"],
)
def test_moments_are_the_targets_through_any_flow(build):
    flow, target = build(), Evaluator(FromTorch(correlated))
    found = neural_transport(flow, target, chains=16, warmup=100, num_draws=200, generator=generator())
    check_moments(found)
    torch.testing.assert_close(found.log_prob.flatten(), correlated(found.flat()), atol=1e-6, rtol=1e-6)
    assert found.evaluations == target.evaluations
    assert found.gradients == target.gradients > 16 * 200
    assert 0.6 < float(found.acceptance.mean()) < 0.95
    assert {p.dtype for p in flow.parameters()} <= {torch.float32}
    assert all(p.requires_grad for p in flow.parameters())


@pytest.mark.parametrize(
    "preset",
    [
        CouplingNSF(features=3, layers=2, hidden=8, blocks=1, bins=4),
        IAF(features=3, layers=2, hidden=(8,)),
        MAF(features=3, layers=2, hidden=(8,)),
        NSF(features=3, layers=2, hidden=8, blocks=1, bins=4),
    ],
)
def test_the_density_of_the_latent_space_and_its_gradient(preset):
    """Against ``log p(x) - log|det df/dx|`` with x found by the flow, and finite differences of it."""
    flow = working_copy(randomize_(preset.build()))
    latent = Latent(flow, as_evaluator(FromTorch(correlated)))
    assert latent.columnwise == isinstance(preset, MAF | NSF)
    z = torch.randn(5, 3, dtype=torch.float64, generator=generator())

    def direct(z: Tensor) -> Tensor:
        with torch.no_grad():
            x = flow.bijection.pull(z)
            return correlated(x) - flow.bijection(x)[1]

    (value,), (grad,) = latent(z)
    torch.testing.assert_close(value, direct(z))
    for d, e in enumerate(1e-5 * torch.eye(3, dtype=torch.float64)):
        torch.testing.assert_close(grad[:, d], (direct(z + e) - direct(z - e)) / 2e-5, rtol=1e-5, atol=1e-6)


def energies(step: float, leaps: int) -> Tensor:
    """How much the energy changes over a trajectory of each of 64 rows."""
    flow = Flow(Chain([Reverse(3), Unfunnel((3,))]), Normal((3,)))  # smooth, as nets of ReLU are not
    latent = Latent(working_copy(flow), as_evaluator(FromTorch(correlated)))
    points = ChainState.at(latent, torch.randn(64, 3, dtype=torch.float64, generator=generator()))
    p = torch.randn(64, 3, dtype=torch.float64, generator=generator(1))
    eye = torch.eye(3, dtype=torch.float64)
    new, momentum = leapfrog(latent, points, p, torch.tensor(step), leaps, eye)
    back, still = leapfrog(latent, new, -momentum, torch.tensor(step), leaps, eye)
    torch.testing.assert_close(back.x, points.x, atol=1e-9, rtol=0)
    torch.testing.assert_close(still, -p, atol=1e-9, rtol=0)
    return new.log_prob - points.log_prob - 0.5 * (momentum.square() - p.square()).sum(-1)


def test_leapfrog_is_reversible_and_of_second_order():
    """Half the step, a quarter of the error: twice, so that neither round-off nor the next order rules."""
    errors = [float(energies(0.01 / 2**k, 20 * 2**k).abs().median()) for k in range(3)]
    assert errors[0] > 1e-6
    assert 3.5 < errors[0] / errors[1] < 4.5
    assert 3.5 < errors[1] / errors[2] < 4.5


@pytest.mark.parametrize("features", [10, 100])
def test_through_an_exact_flow_the_funnel_is_easy(features):
    flow = Flow(Unfunnel((features,)), Normal((features,)))
    found = neural_transport(flow, FromTorch(funnel), generator=generator())
    assert found.doubts == ()
    assert found.min_ess > 2000
    v = found.flat()[:, 0]
    assert abs(v.mean()) < 4 * 3 / math.sqrt(found.ess[0])
    assert abs(v.square().mean() / 9 - 1) < 4 * math.sqrt(2 / (0.5 * float(found.ess[0])))


def test_without_a_flow_the_funnel_is_said_to_be_hard():
    flow = plain(10)
    found = neural_transport(flow, FromTorch(funnel), warmup=100, num_draws=100, generator=generator())
    assert found.doubts


def test_large_log_densities_keep_their_digits():
    """An offset of 1e8 nats, beside which a float32 sees no single nat, changes nothing."""

    def run(offset: float) -> Chains:
        target = FromTorch(lambda x: correlated(x) + offset)
        return neural_transport(plain(3), target, warmup=0, num_draws=20, generator=generator())

    torch.testing.assert_close(run(1e8).x, run(0.0).x, atol=1e-3, rtol=0)


def test_spreads_are_learned():
    """Scales of 1/20 and 20 side by side, through a flow that knows none."""
    scale = torch.tensor([0.05, 1.0, 20.0], dtype=torch.float64)
    target = FromTorch(lambda x: -0.5 * (x / scale).square().sum(-1))
    flow = plain(3)
    found = neural_transport(flow, target, warmup=150, num_draws=100, generator=generator())
    assert ((found.flat().std(0) / scale).log().abs() < 0.15).all()
    assert found.min_ess > 400
    assert found.leaps is not None
    assert found.leaps < 8
    unscaled = neural_transport(flow, target, warmup=30, num_draws=5, rescale=False, generator=generator())
    assert unscaled.leaps is not None
    assert unscaled.leaps > 15


def test_runs_repeat_and_chains_are_told_of():
    told: list[float] = []
    run = [
        neural_transport(
            plain(3),
            FromTorch(correlated),
            chains=3,
            warmup=10,
            num_draws=5,
            generator=generator(4),
            on_step=told.append,
        )
        for _ in range(2)
    ]
    assert torch.equal(run[0].x, run[1].x)
    assert told[:15] == [(i + 1) / 15 for i in range(15)]
    assert run[0].x.shape == (3, 5, 3)


def test_a_region_without_density_is_a_wall():
    """A half-normal: the target is -inf below 0."""
    target = FromTorch(lambda x: torch.where(x[:, 0] > 0, -0.5 * x.square().sum(-1), -math.inf))
    found = neural_transport(plain(2), target, warmup=30, num_draws=200, most_leaps=16, generator=generator())
    a = found.flat()[:, 0]
    assert a.min() > 0
    assert abs(a.mean() - math.sqrt(2 / math.pi)) < 4 * a.std() / math.sqrt(found.ess[0])
    assert found.divergences > 0


def test_where_the_flow_has_no_value_the_chains_do_not_go():
    calls: list[Tensor] = []

    def log_prob(x: Tensor) -> Tensor:
        calls.append(x.detach())
        return -0.5 * x.square().sum(-1)

    flow = Flow(Undefined((2,)), Normal((2,)))
    found = neural_transport(flow, FromTorch(log_prob), warmup=50, num_draws=50, generator=generator())
    assert found.flat()[:, 0].max() < 1
    assert all(x.isfinite().all() for x in calls)


def test_what_is_refused():
    flow, normal = plain(2), FromTorch(lambda x: -0.5 * x.square().sum(-1))
    with pytest.raises(ConfigError, match="independence_metropolis"):
        neural_transport(flow, FromNumPy(lambda x: -0.5 * (x**2).sum(-1)))
    with pytest.raises(ConfigError, match="base lives on"):
        neural_transport(Flow(Sigmoid((2,)), Uniform((2,))), normal)
    columns = Columns([Column("a", Positive()), Column("b", Positive())])
    with pytest.raises(ConfigError, match="without_encoding"):
        neural_transport(Flow(Reverse(2), Normal((2,)), columns), normal)
    with pytest.raises(DataError, match="no starting point"):
        neural_transport(flow, FromTorch(lambda x: x.sum(-1) * 0 - math.inf))
    wrongs: list[dict[str, Any]] = [
        {"chains": 0}, {"num_draws": 0}, {"warmup": -1}, {"starts": 0}, {"goal": 1.0}, {"length": 0.0}
    ]  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(ConfigError, match="must be"):
            neural_transport(flow, normal, **wrong)
