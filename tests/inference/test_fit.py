"""``fit_target``: what it finds, doubts, costs and refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from torch import Tensor

import diffeo
from diffeo import Flow
from diffeo.bases import LearnedNormal, Normal
from diffeo.bijections import Chain, Logit, Pointwise, Standardize
from diffeo.elementwise import Affine
from diffeo.errors import ConfigError, ContextError, DataError, ShapeError
from diffeo.inference import (
    Annealed,
    Annealing,
    ForwardCheck,
    Importance,
    Population,
    ReplayLikelihood,
    ReverseKL,
    TargetReport,
)
from diffeo.objectives import Batch
from diffeo.presets import MAF, Tabular, TarFlow
from diffeo.targets import Constrained, FromNumPy, FromTorch, Positive
from diffeo.train import FitReport
from diffeo.train.schedule import Pace

INF = math.inf


def maf(features: int = 2, **fields: Any) -> Flow:
    torch.manual_seed(0)
    return MAF(features, **{"layers": 2, "hidden": (8,), **fields}).build()


def standard(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum(-1)


def two(x: Tensor) -> Tensor:
    """Modes at 8 and -8 in every column, of weights 3 and 1."""
    right, left = (
        math.log(0.75) - 0.5 * (x - 8).square().sum(-1),
        math.log(0.25) - 0.5 * (x + 8).square().sum(-1),
    )
    return torch.logaddexp(right, left)


class Recorder:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_progress(self, progress: Any) -> None:
        self.seen.append(progress)


# -- what it finds --------------------------------------------------------------------------------


def test_a_correlated_normal_off_center():
    precision = torch.tensor([[2.0, -1.2], [-1.2, 1.0]], dtype=torch.float64)

    def target(x: Tensor) -> Tensor:
        y = x - torch.tensor([3.0, -2.0]).to(x)
        return 5 - 0.5 * (y @ precision * y).sum(-1)

    flow = maf()
    report = diffeo.fit_target(flow, FromTorch(target), max_steps=400, seed=1)
    exact = 5 + math.log(2 * math.pi) - 0.5 * float(torch.linalg.slogdet(precision).logabsdet)
    assert abs(report.log_z - exact) < max(4 * report.log_z_error, 1e-3) < 0.05
    assert report.trusted
    assert report.doubts == ()
    assert report.ess > 0.9
    assert (report.pareto_k, report.missed, report.nans) == (report.weighted.pareto_k, 0.0, 0)
    error = 4 / math.sqrt(len(report.weighted) * report.ess)
    sd = torch.linalg.inv(precision).diagonal().sqrt()
    assert ((report.weighted.mean() - torch.tensor([3.0, -2.0])).abs() < error * sd).all()
    assert not flow.training
    assert report.training.steps == 400
    assert report.seconds.keys() == {"survey", "fit", "draws"}
    assert report.evaluations >= report.gradients > 10_000


def test_both_modes_by_weight():
    report = diffeo.fit_target(maf(hidden=(32,), layers=4), FromTorch(two), start=8.0, max_steps=300)
    share = float(report.weighted.normalized @ (report.weighted.x[:, 0] > 0).double())
    assert abs(share - 0.75) < 0.05
    assert abs(report.log_z - math.log(2 * math.pi)) < 4 * report.log_z_error < 0.3
    assert report.missed < 0.005


@pytest.mark.parametrize("preset", [MAF(1, layers=2, hidden=(8,)), Tabular(1, layers=2, hidden=8, blocks=1)])
def test_one_column(preset: Any):
    report = diffeo.fit_target(preset.build(), FromTorch(lambda x: standard(x - 4)), max_steps=60)
    assert abs(report.log_z - 0.5 * math.log(2 * math.pi)) < 0.05
    assert report.weighted.x.shape == (10_000, 1)
    assert abs(float(report.weighted.mean()) - 4) < 0.1


def test_a_float64_flow_and_no_gradients():
    flow = maf().double()
    report = diffeo.fit_target(
        flow, FromNumPy(lambda x: -0.5 * ((x / 3) ** 2).sum(-1)), max_steps=60, num_draws=2000
    )
    assert abs(report.log_z - math.log(18 * math.pi)) < 0.1
    assert {p.dtype for p in flow.parameters()} == {torch.float64}
    assert report.gradients <= 1
    assert len(report.weighted) == 2000


def test_one_seed_is_one_fit():
    others = iter(range(100, 200))

    def fit(seed: int) -> tuple[Tensor, TargetReport]:
        flow = maf()
        torch.manual_seed(next(others))  # the caller's random state has no part in it
        before = torch.get_rng_state()
        report = diffeo.fit_target(flow, FromTorch(standard), max_steps=12, num_draws=100, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        return torch.cat([p.detach().flatten() for p in flow.parameters()]), report

    (a, first), (b, again), (c, other) = fit(1), fit(1), fit(2)
    assert torch.equal(a, b)
    assert torch.equal(first.weighted.x, again.weighted.x)
    assert torch.equal(first.at_chains.log_target, again.at_chains.log_target)
    assert (first.log_z, first.evaluations) == (again.log_z, again.evaluations)
    assert not torch.equal(a, c)
    assert not torch.equal(first.weighted.x, other.weighted.x)


def test_a_start_of_one_s_own():
    """A narrow normal at 50 is not found from around 0 in so few draws; a flow knows the way."""
    start = Flow(Standardize((2,)), LearnedNormal((2,)))
    start.initialize(50 + torch.randn(100, 2))
    before = {k: v.clone() for k, v in start.state_dict().items()}
    report = diffeo.fit_target(
        maf(), FromTorch(lambda x: torch.where((x > 40).all(-1), standard(10 * (x - 50)), -INF)),
        start=start, max_steps=60,
    )  # fmt: skip
    assert abs(report.log_z - math.log(2 * math.pi / 100)) < 0.1
    assert all(torch.equal(v, before[k]) for k, v in start.state_dict().items())


# -- what it doubts -------------------------------------------------------------------------------


class Kept(Standardize):
    """Stays as it is when rows come."""

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        pass


def of_the_right(flow: Flow, batch: Batch) -> Tensor:
    """An objective that is told of one mode only."""
    return -flow(batch.x[batch.x[:, 0] > 0]).mean()


def test_a_dropped_mode_is_seen():
    """A normal that knows one mode: the weights of its own draws do not tell."""
    flow = Flow(Kept((2,)), LearnedNormal((2,)))
    with torch.no_grad():
        flow.base.loc.fill_(8.0)  # type: ignore[union-attr, operator]
    report = diffeo.fit_target(flow, FromTorch(two), start=8.0, objective=of_the_right, max_steps=200)
    assert report.ess > 0.9
    assert report.pareto_k < 0.7
    assert abs(report.log_z - math.log(0.75 * 2 * math.pi)) < 0.1  # a quarter is not there
    assert abs(report.missed - 0.25) < 0.1
    assert not report.trusted
    assert len(report.doubts) == 1
    assert "it has dropped a part of the target" in report.doubts[0]


def test_a_flow_too_small_for_its_target():
    """A normal for a banana: the weights' own doubts come through."""

    def banana(x: Tensor) -> Tensor:
        return -0.5 * (x[:, 0] / 3).square() - 0.5 * ((x[:, 1] - x[:, 0].square()) / 0.1).square()

    report = diffeo.fit_target(
        Flow(Standardize((2,)), LearnedNormal((2,))), FromTorch(banana), max_steps=50, num_draws=1000
    )
    assert not report.trusted
    assert report.ess < 0.1
    assert set(report.weighted.doubts) <= set(report.doubts)


def test_nans_are_counted_and_doubted():
    def half(x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, math.nan, standard(x))

    report = diffeo.fit_target(maf(), FromTorch(half), max_steps=30, num_draws=1000)
    assert report.nans > 0.05 * report.evaluations
    assert any(f"was NaN at {report.nans:,} of {report.evaluations:,} points" in d for d in report.doubts)
    assert (report.weighted.x[report.weighted.log_weights > -INF][:, 0] <= 0).all()
    assert abs(report.log_z - math.log(math.pi)) < 0.4


def test_a_few_errors_of_the_target_are_survived_and_named():
    def log_prob(x: np.ndarray) -> np.ndarray:
        if (x[:, 0] > 4).any():  # of a standard normal, 0.003%; walks come by more often
            raise FloatingPointError("the solver gave up")
        return -0.5 * (x**2).sum(-1)

    start = diffeo.presets.MAF(2).build()
    report = diffeo.fit_target(maf(), FromNumPy(log_prob), start=start, max_steps=60, num_draws=1000)
    assert abs(report.log_z - math.log(2 * math.pi)) < 0.02
    assert 0 < report.failed < 0.01 * report.evaluations
    assert "the solver gave up" in report.failure
    assert "the solver gave up" in report.notes()["failed"]
    assert report.doubts == ()


def report_of(log_w: Tensor, seen: ForwardCheck, nans: int = 0) -> TargetReport:
    draws = Importance(torch.zeros(len(log_w), 2), log_w)
    training = FitReport((), 0.0, 0, 0, 0.0, math.nan, 0, "")
    return TargetReport(draws, seen, 0.0, FromTorch(standard), 1000, 0, nans, 0, "", {}, training)


def test_what_counts_as_missed():
    """More than 5 nats of ``log target - log flow - log Z``, at more than half a percent of the points."""
    log_w = 3 + 0.1 * torch.randn(1000)
    flow = torch.zeros(1000)
    for far, share in ((4.5, 0.0), (5.5, 0.006)):
        target = torch.full((1000,), 3.0)
        target[:6] += far
        found = report_of(log_w, ForwardCheck(flow, target))
        assert found.missed == pytest.approx(share)
        assert found.trusted == (share == 0)
    target[2:] = 3.0
    found = report_of(log_w, ForwardCheck(flow, target))
    assert found.missed == pytest.approx(0.002)
    assert found.trusted
    assert report_of(log_w, ForwardCheck(flow, target), nans=10).trusted
    assert not report_of(log_w, ForwardCheck(flow, target), nans=11).trusted
    nowhere = report_of(torch.full((1000,), -INF), ForwardCheck(flow, target))
    assert nowhere.missed == 1.0
    assert not nowhere.trusted


# -- time and callbacks ---------------------------------------------------------------------------


class Slow:
    """A target and a flow with a clock that only their evaluations move."""

    def __init__(self, seconds_a_row: float):
        self.each, self.rows, self.now = seconds_a_row, 0, 0.0
        self.flow = maf()
        self.flow.register_forward_hook(self._step)

    def _step(self, *_: Any) -> None:
        self.now += 0.004

    def log_prob(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        self.now += self.each * len(x)
        return standard(x)

    def clock(self) -> float:
        return self.now


def test_a_slow_target_gets_fewer_chains_and_the_time_is_kept():
    slow = Slow(3e-5)
    report = diffeo.fit_target(slow.flow, slow, max_seconds=6, clock=slow.clock)
    assert 5.25 < slow.clock() < 6.3
    assert sum(report.seconds.values()) == pytest.approx(slow.clock(), rel=0.01)
    assert 0.2 * 6 < report.seconds["survey"] < 0.31 * 6  # as many chains as that time allows
    assert 200 < len(report.at_chains.log_flow) < 1200
    assert report.evaluations == slow.rows


def test_a_survey_that_takes_many_stages_keeps_to_its_time():
    """Scales from 0.001 to 1000: a chain takes several times the evaluations that one of a normal does."""
    slow = Slow(3e-5)
    widths = torch.logspace(-3, 3, 6, dtype=torch.float64)

    def log_prob(x: Tensor) -> Tensor:
        slow.now += slow.each * len(x)
        return standard(x / widths)

    flow = maf(6)
    flow.register_forward_hook(slow._step)
    report = diffeo.fit_target(flow, FromTorch(log_prob), max_seconds=40, max_steps=3, clock=slow.clock)
    assert report.seconds["survey"] < 0.35 * 40


def test_a_target_that_is_too_slow_for_the_time_is_refused():
    slow = Slow(5e-3)
    with pytest.raises(ConfigError, match=r"0.005 s a row.*max_seconds must be at least 192"):
        diffeo.fit_target(slow.flow, slow, max_seconds=10, clock=slow.clock)


def test_a_start_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"shape \(3,\), not \(2,\)"):
        diffeo.fit_target(maf(), FromTorch(standard), start=diffeo.presets.MAF(3).build())


@pytest.mark.parametrize("objective", [ReverseKL, lambda t: ReplayLikelihood(Annealed(t, num_draws=50))])
def test_the_count_includes_the_objective_s_own(objective: Any):
    calls = []

    def counted(x: Tensor) -> Tensor:
        calls.append(len(x))
        return standard(x)

    target = FromTorch(counted)
    report = diffeo.fit_target(maf(), target, objective=objective(target), max_steps=5, num_draws=50)
    assert report.evaluations == sum(calls)


def test_flows_that_cannot_be_a_target_s_are_refused():
    bounded = Flow(Chain([Logit((2,)), Standardize((2,)), Pointwise(Affine(), (2,))]), Normal((2,)))
    with pytest.raises(ConfigError, match="Constrained"):
        diffeo.fit_target(bounded, FromTorch(standard))
    with pytest.raises(ConfigError, match="no parameter"):
        diffeo.fit_target(Flow(Standardize((2,)), Normal((2,))), FromTorch(standard))


def test_callbacks_hear_of_survey_and_fit():
    recorder = Recorder()
    diffeo.fit_target(maf(), FromTorch(standard), max_steps=40, num_draws=100, callbacks=[recorder])
    stages = [p.stage for p in recorder.seen]
    assert stages == sorted(stages, reverse=True)
    assert set(stages) == {"survey", "fit"}
    survey = [p for p in recorder.seen if p.stage == "survey"]
    assert [p.step for p in survey] == sorted(p.step for p in survey)
    assert (survey[-1].step, survey[-1].steps) == (1000, 1000)
    assert recorder.seen[-1].step == 40


def test_the_limits_of_a_run():
    assert diffeo.fit_target(maf(), FromTorch(standard), max_steps=3, num_draws=50).training.steps == 3
    both = diffeo.fit_target(maf(), FromTorch(standard), max_steps=3, max_seconds=60, num_draws=50)
    assert both.training.steps == 3


@pytest.mark.parametrize("heavy", [4, 3])
def test_a_plan_counts_the_steps_that_cost_more(heavy: int):
    """Every fourth step costs more, as where a source is asked; a hiccup is not counted at all."""
    timings = [9.0] * 4 + [0.01 * (heavy if i % 4 == 0 else 1) for i in range(40)]
    mean = 0.01 * (3 + heavy) / 4
    for last in (timings[-1], 5.0):
        pace = Pace(100.0, 2**31)
        for seconds in [*timings[:-1], last]:
            pace.stepped(seconds)
        plan = pace.plan(44, 50.0, None)
        assert plan is not None
        assert plan.steps == pytest.approx(44 + 50 / mean, rel=0.02)


# -- the report -----------------------------------------------------------------------------------


def test_objectives_of_one_s_own():
    target = FromTorch(lambda x: standard(x - 1))
    report = diffeo.fit_target(maf(), target, objective=ReverseKL(target), max_steps=60, num_draws=1000)
    assert abs(report.log_z - math.log(2 * math.pi)) < 0.05
    called = []

    def counting(flow: Flow, batch: Batch) -> Tensor:
        called.append(len(batch.rows))
        return -flow(batch.x).mean()

    diffeo.fit_target(maf(), target, objective=counting, max_steps=7, batch_size=33, num_draws=100)
    assert called == [33] * 7


def test_the_survey_s_weights_count(monkeypatch: pytest.MonkeyPatch):
    """Where one row has all the weight, chains start there and the flow is set up there."""

    def run(self: Annealing, *_: Any, **__: Any) -> Importance:
        return Importance(torch.arange(8.0).double().reshape(4, 2), torch.tensor([-INF, 0.0, -INF, -INF]))

    def check(flow: Flow, batch: Batch) -> Tensor:
        assert (batch.x == torch.tensor([2.0, 3.0])).all()
        return -flow(batch.x + 0.1 * torch.randn_like(batch.x)).mean()

    monkeypatch.setattr(Annealing, "run", run)
    diffeo.fit_target(maf(), FromTorch(standard), objective=check, max_steps=2, num_draws=100)


def test_draws_on_the_target_s_own_scale(tmp_path: Path):
    """A gamma density of shape 3 on the positive half-line: mean 3, variance 3."""

    class Gamma:
        def log_prob(self, x: Tensor) -> Tensor:
            return (2 * x.log() - x).sum(-1)

    target = Constrained(Gamma(), {"rate": Positive()})
    report = diffeo.fit_target(maf(1), target, max_steps=150, num_draws=4000)
    assert abs(report.log_z - math.log(2)) < 0.05
    weighted = report.to_datatree()
    values = np.asarray(weighted["posterior"]["rate"]).ravel()
    assert values.shape == (4000,)
    assert (values > 0).all()
    assert abs(values.mean() - 3) < 4 * math.sqrt(3 / 4000) + 0.01
    share = np.asarray(report.weighted.normalized)
    assert abs(share @ np.asarray(weighted["proposal"]["rate"])[0] - values.mean()) < 0.05
    report.save_netcdf(tmp_path / "draws.nc")
    with xarray.open_datatree(tmp_path / "draws.nc") as back:
        rate = np.asarray(back["posterior"]["rate"])
    assert np.array_equal(rate, np.asarray(weighted["posterior"]["rate"]))


# -- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow", "options", "error", "says"),
    [
        (lambda: maf(context=1), {}, ConfigError, "without context"),
        (
            lambda: TarFlow((1, 2, 2), patch=1, hidden=8, heads=2, blocks=1, layers=1).build(),
            {},
            ConfigError,
            "density of vectors",
        ),
        (maf, {"start": 0.0}, ConfigError, "start must be a positive standard deviation or a flow, not 0"),
        (maf, {"start": -1.0}, ConfigError, "start must be"),
        (maf, {"start": math.nan}, ConfigError, "start must be"),
        (maf, {"start": INF}, ConfigError, "start must be"),
        (maf, {"start": maf(3)}, (ConfigError, ShapeError), "3"),
        (maf, {"start": maf(context=1)}, (ConfigError, ContextError), "context"),
        (maf, {"num_draws": 1}, ConfigError, "num_draws must be at least 2"),
        (maf, {"batch_size": 0}, ConfigError, "batch_size must be at least 1"),
        (maf, {"max_seconds": -1.0}, ConfigError, "max_seconds must be positive and finite"),
        (maf, {"max_seconds": math.nan}, ConfigError, "max_seconds must be positive and finite"),
        (maf, {"max_seconds": INF}, ConfigError, "max_seconds must be positive and finite"),
        (maf, {"max_steps": 0}, ConfigError, "max_steps must be positive"),
    ],
)
def test_what_does_not_go(flow: Any, options: dict[str, Any], error: Any, says: str):
    with pytest.raises(error, match=says):
        diffeo.fit_target(flow(), FromTorch(standard), **options)


def test_a_flow_for_data_is_refused():
    table = diffeo.Table.of({"a": np.arange(60.0), "b": np.arange(60.0) % 7})
    flow, _ = diffeo.fit_table(table, preset=MAF(2, layers=1, hidden=(4,)), max_seconds=0.2)
    with pytest.raises(ConfigError, match="encoding is for data"):
        diffeo.fit_target(flow, FromTorch(standard))


def test_a_target_that_is_none():
    with pytest.raises(ConfigError, match="FromTorch"):
        diffeo.fit_target(maf(), standard)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="none of 2048 starting points a finite density"):
        diffeo.fit_target(maf(), FromTorch(lambda x: torch.where(x[:, 0] > 99, 0 * x[:, 0], -INF)))
    with pytest.raises(DataError, match=r"\+inf"):
        diffeo.fit_target(maf(), FromTorch(lambda x: x[:, 0] * 0 + INF))


def test_chains_stay_apart_from_what_they_came_from():
    """The rows that the buffer starts from are not those that the chains walk on."""
    x = torch.zeros(5, 2, dtype=torch.float64)
    chains = Population(FromTorch(standard), x)
    chains.draw(maf())
    assert (x == 0).all()
