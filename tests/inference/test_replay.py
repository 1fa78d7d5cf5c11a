"""Replay: the gradient it follows, what its buffer holds, and what it leaves alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffeo import Flow
from diffeo.bases import DiagonalNormal
from diffeo.bijections import Standardize
from diffeo.errors import ConfigError, DataError
from diffeo.inference import Annealed, Annealing, Importance, ReplayLikelihood, Source
from diffeo.objectives import Batch
from diffeo.presets import MAF
from diffeo.targets import FromTorch

INF = math.inf


class FreeNormal(DiagonalNormal):
    """Location and log scale as they are: the gradients of both are known."""

    def __init__(self, features: int):
        super().__init__((features,))
        self.loc = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))

    def loc_and_log_scale(self, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.loc, self.log_scale


class Seen(Flow):
    """A normal that remembers where its density was asked for."""

    def __init__(self, loc: float = 0.0, scale: float = 1.0, features: int = 1):
        super().__init__(Standardize((features,)), FreeNormal(features))
        self.double()
        self.asked: list[Tensor] = []
        self.put(loc, scale)

    def put(self, loc: float, scale: float) -> None:
        with torch.no_grad():
            self.base.loc.fill_(loc)  # type: ignore[union-attr, operator]
            self.base.log_scale.fill_(math.log(scale))  # type: ignore[union-attr, operator]

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.asked.append(x.detach())
        return super().log_prob(x, context)


class Numbered(Source):
    """Draws numbered by call, with given log-weights."""

    def __init__(self, *log_weights: float, end: float = 1.0):
        self.log_weights, self.end, self.calls = torch.tensor(log_weights, dtype=torch.float64), end, 0

    def draw(self, flow: Flow) -> Importance:
        self.calls += 1
        rows = torch.arange(len(self.log_weights), dtype=torch.float64)
        return Importance((self.calls + rows / 10)[:, None], self.log_weights)


def batch(rows: int, features: int = 1, dtype: torch.dtype = torch.float64) -> Batch:
    return Batch(torch.full((rows, features), math.nan, dtype=dtype), None, None, torch.arange(rows))


def rows_of(objective: ReplayLikelihood, flow: Seen, rows: int = 2000) -> dict[float, float]:
    """What the buffer gives, with its shares."""
    objective(flow, batch(rows))
    values, counts = flow.asked[-1][:, 0].unique(return_counts=True)
    assert len(flow.asked[-1]) == rows
    return {round(v, 3): c / rows for v, c in zip(values.tolist(), counts.tolist(), strict=True)}


# -- gradients ------------------------------------------------------------------------------------


def gradient(objective: ReplayLikelihood, flow: Flow, rows: int) -> Tensor:
    flow.zero_grad()
    loss = objective(flow, batch(rows))
    loss.backward()
    parts = [p.grad for p in flow.base.parameters()]
    return torch.cat([p.reshape(1) for p in parts if p is not None])


def cross_entropy_gradient(loc: float, scale: float, mean: float, sd: float) -> Tensor:
    """Of ``-E log N(loc, scale)`` under ``N(mean, sd)``, by loc and log scale."""
    return torch.tensor([-(mean - loc) / scale**2, 1 - (sd**2 + (mean - loc) ** 2) / scale**2]).double()


def check(found: list[Tensor], exact: Tensor) -> None:
    grads = torch.stack(found)
    error = grads.std(0) / math.sqrt(len(grads))
    assert (error < 0.1 * exact.abs()).all()
    assert ((grads.mean(0) - exact).abs() < 4 * error).all()


@pytest.mark.parametrize("resample", [0.0, 1.0])
def test_its_gradient_is_that_of_forward_kl(resample: float):
    target = FromTorch(lambda x: 7 - 0.5 * ((x - 0.8) / 0.7).square().sum(-1))
    annealing, found = Annealing(moves=0, keep=1e-6, resample=resample), []
    for _ in range(20):
        flow = Seen(0.2, 1.3)
        objective = ReplayLikelihood(Annealed(target, 4000, annealing))
        found.append(gradient(objective, flow, 4000))
    check(found, cross_entropy_gradient(0.2, 1.3, 0.8, 0.7))


@pytest.mark.parametrize("moves", [1, 2])
def test_beyond_the_target_it_follows_a_flow_that_has_changed(moves: int):
    """Draws of ``p^2 / q`` for the old q stand for those for the new q."""
    loc, scale, old, wider = 0.5, 0.8, 0.2, 1.2
    target = FromTorch(lambda x: -0.5 * ((x - loc) / scale).square().sum(-1))

    def squared_over(mean: float, sd: float) -> tuple[float, float, float]:
        """Mean and deviation of ``p^2 / q``, and the logarithm of its integral but for constants."""
        a, b = 2 / scale**2 - 1 / sd**2, 2 * loc / scale**2 - mean / sd**2
        log_z = math.log(sd) + 0.5 * (mean / sd) ** 2 + 0.5 * b**2 / a - 0.5 * math.log(a)
        return b / a, a**-0.5, log_z

    annealing, found = Annealing(moves=moves, end=2.0, resample=0.0), []
    for _ in range(20):
        flow = Seen(old, wider)
        objective = ReplayLikelihood(Annealed(target, 6000, annealing), every=2)
        objective(flow, batch(1))
        flow.put(0.0, 1.4)
        found.append(gradient(objective, flow, 4000))
    mean, sd, log_z = squared_over(0.0, 1.4)
    ratio = math.exp(log_z - squared_over(old, wider)[2])
    exact = ratio * cross_entropy_gradient(0.0, 1.4, mean, sd)
    uncorrected = cross_entropy_gradient(0.0, 1.4, *squared_over(old, wider)[:2])
    check(found, exact)
    error = torch.stack(found).std(0) / math.sqrt(len(found))
    assert ((uncorrected - exact).abs() > 8 * error).any()  # so the correction shows


def test_the_correction_is_cut_off():
    flow, losses = Seen(), {}
    for clip in (2.0, 5.0):
        flow.put(1.0, 0.1)
        objective = ReplayLikelihood(Numbered(0.0, end=2.0), every=9, clip=clip)
        first = objective(flow, batch(4))
        flow.put(40.0, 1.0)  # hundreds of nats away: the ratio would be infinite
        losses[clip] = float(objective(flow, batch(4)).detach())
        plain = 0.5 * 39**2 + 0.5 * math.log(2 * math.pi)
        assert losses[clip] == pytest.approx(clip * plain)
        assert float(first.detach()) == pytest.approx(-math.log(10) + 0.5 * math.log(2 * math.pi))
    flow.put(1.0, 1.0)
    drawn = ReplayLikelihood(Numbered(0.0), every=9)
    drawn(flow, batch(4))
    flow.put(40.0, 1.0)
    assert float(drawn(flow, batch(4)).detach()) == pytest.approx(plain)  # at end = 1 there is none


# -- the buffer -----------------------------------------------------------------------------------


def test_the_oldest_leave_first():
    objective, flow = ReplayLikelihood(Numbered(0.0, 0.0), capacity=5), Seen()
    seen = [set(rows_of(objective, flow)) for _ in range(4)]
    assert seen == [
        {1.0, 1.1},
        {1.0, 1.1, 2.0, 2.1},
        {1.1, 2.0, 2.1, 3.0, 3.1},
        {2.1, 3.0, 3.1, 4.0, 4.1},
    ]


def test_more_draws_than_it_holds():
    objective, flow = ReplayLikelihood(Numbered(0.0, 0.0, 0.0), capacity=2), Seen()
    assert [set(rows_of(objective, flow)) for _ in range(2)] == [{1.1, 1.2}, {2.1, 2.2}]


def test_rows_come_by_weight():
    shares = rows_of(ReplayLikelihood(Numbered(*(math.log(w) for w in (1, 3, 2, 2)))), Seen(), 8000)
    for value, weight in ((1.0, 1), (1.1, 3), (1.2, 2), (1.3, 2)):
        assert abs(shares[value] - weight / 8) < 4 * math.sqrt(0.25 / 8000)
    assert set(rows_of(ReplayLikelihood(Numbered(-INF, 2.0, -INF)), Seen())) == {1.1}


def test_each_call_of_the_source_counts_alike():
    """Its log-weights have an arbitrary size, and another one each time."""

    class Growing(Numbered):
        def draw(self, flow: Flow) -> Importance:
            found = super().draw(flow)
            return Importance(found.x, found.log_weights + 1000 * self.calls)

    objective, flow = ReplayLikelihood(Growing(0.0, 0.0)), Seen()
    objective(flow, batch(1))
    shares = rows_of(objective, flow, 8000)
    assert all(abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 8000) for share in shares.values())
    assert len(shares) == 4


def test_one_draw_counts_for_no_more_than_the_root_of_the_rows():
    """16 rows, one with almost all the weight: it counts for 4, so that its share is 4 / (4 + 15 / 16)."""
    weights = [0.0] * 15 + [100.0]
    shares = rows_of(ReplayLikelihood(Numbered(*weights)), Seen(), 1000)
    assert set(shares) == {2.5}
    objective, flow = ReplayLikelihood(Numbered(*weights)), Seen()
    rows_of(objective, flow)
    objective.source = Numbered(*([0.0] * 16))  # whose 16 rows count for one each
    objective.source.calls = 10
    shares = rows_of(objective, flow, 8000)
    assert abs(shares[2.5] - 4 / 20) < 4 * math.sqrt(0.2 * 0.8 / 8000)


def test_draws_every_so_many_steps():
    source = Numbered(0.0)
    objective, flow = ReplayLikelihood(source, every=3), Seen()
    counts = []
    for _ in range(7):
        objective(flow, batch(2))
        counts.append(source.calls)
    assert counts == [1, 1, 1, 2, 2, 2, 3]


def test_a_start_comes_before_the_source():
    source = Numbered(0.0)
    start = Importance(torch.tensor([[50.0], [60.0]]).double(), torch.tensor([0.0, -INF]))
    objective, flow = ReplayLikelihood(source, start=start), Seen()
    assert set(rows_of(objective, flow)) == {50.0}
    assert source.calls == 0
    assert set(rows_of(objective, flow)) == {50.0, 1.0}


# -- modes, dtypes, what is frozen ----------------------------------------------------------------


def test_evaluation_draws_nothing_new():
    source = Numbered(0.0)
    objective, flow = ReplayLikelihood(source), Seen()
    objective(flow.eval(), batch(2))  # there is nothing to measure on yet
    assert source.calls == 1
    for _ in range(3):
        objective(flow, batch(2))
    assert source.calls == 1
    objective(flow.train(), batch(2))
    assert source.calls == 2


@pytest.mark.parametrize("end", [1.0, 2.0])
def test_what_is_frozen_gets_no_gradient(end: float):
    flow = MAF(features=2, layers=2, hidden=(8,)).build()
    frozen = next(iter(flow.parameters()))
    frozen.requires_grad_(False)
    target = FromTorch(lambda x: -0.5 * x.square().sum(-1))
    objective = ReplayLikelihood(Annealed(target, 50, Annealing(end=end)))
    loss = objective(flow, batch(20, 2, torch.float32))
    assert loss.dtype == torch.float32
    loss.backward()
    assert frozen.grad is None
    assert not frozen.requires_grad
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in flow.parameters())
    assert flow.training


@pytest.mark.parametrize("sizes", [{"every": 0}, {"capacity": 0}, {"every": -1}])
def test_wrong_sizes(sizes: dict[str, Any]):
    with pytest.raises(ConfigError, match="every and capacity must be at least 1"):
        ReplayLikelihood(Numbered(0.0), **sizes)


def test_evaluation_uses_the_same_rows_each_time():
    flow = Seen(0.2, 1.3)
    objective = ReplayLikelihood(Annealed(FromTorch(lambda x: -x.square().sum(-1)), 200))
    objective(flow.train(), batch(1))
    flow.eval()
    assert objective(flow, batch(20)) == objective(flow, batch(20))


def test_draws_without_any_weight_are_refused():
    class Nothing(Source):
        def draw(self, flow: Flow) -> Importance:
            return Importance(torch.zeros(3, 1), torch.full((3,), -math.inf))

    with pytest.raises(DataError, match="positive density"):
        ReplayLikelihood(Nothing())(Seen(0.2, 1.3), batch(1))
