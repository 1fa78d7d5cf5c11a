"""The training loop: what it refuses, what it shows the objective, when it ends, what it keeps and learns."""

from __future__ import annotations

import json
import math
import time
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import diffeo
from diffeo.bases import Normal
from diffeo.bijections import Chain, Logit, Pointwise, Standardize
from diffeo.bijections.base import Bijection
from diffeo.contexts import Classes
from diffeo.contracts import Initializable, Projectable
from diffeo.elementwise import Affine
from diffeo.errors import ConfigError, ContextError, DataError, ShapeError, TrainingError
from diffeo.objectives import Batch, Likelihood
from diffeo.presets import MAF, NSF
from diffeo.train import FitReport, OptimizerSettings, Progress
from diffeo.train.loop import BAD_STEPS, default_batch_size
from diffeo.train.rows import Epochs, rows_for


def small(features: int = 2, **fields: Any) -> diffeo.Flow:
    torch.manual_seed(0)
    return NSF(features, **{"layers": 1, "hidden": 8, "blocks": 1, "bins": 4} | fields).build()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weights_of(flow: diffeo.Flow) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in flow.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


class Recording:
    """Maximum likelihood that remembers the batches of training steps and of measurements apart."""

    def __init__(self):
        self.steps: list[Batch] = []
        self.measured: list[Batch] = []

    def __call__(self, flow: diffeo.Flow, batch: Batch) -> Tensor:
        (self.steps if flow.training else self.measured).append(batch)
        return Likelihood()(flow, batch)


def numbers(batches: list[Batch]) -> list[int]:
    return torch.cat([b.rows for b in batches]).tolist()


# -- what it refuses ------------------------------------------------------------------------------


def spoiled(value: float, row: int, column: int) -> Tensor:
    x = normal(10, 2)
    x[row, column] = value
    return x


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_named_by_row_and_column(value: float):
    with pytest.raises(DataError, match=rf"x has 1 values .* row 3, column 1: {value}"):
        diffeo.fit(small(), spoiled(value, 3, 1), max_steps=1)
    with pytest.raises(DataError, match=rf"context has 1 values .* row 4, column 0: {value}"):
        diffeo.fit(small(context=2), normal(10, 2), spoiled(value, 4, 0), max_steps=1)
    with pytest.raises(DataError, match=rf"weights has 1 values .* row 5: {value}"):
        diffeo.fit(small(), normal(10, 2), weights=spoiled(value, 5, 0)[:, 0], max_steps=1)


@pytest.mark.parametrize(
    ("x", "context", "weights", "says"),
    [
        (normal(10, 3), None, None, r"x has shape \(10, 3\); this flow needs \(rows, 2\)"),
        (normal(10), None, None, r"x has shape \(10,\)"),
        (normal(2, 5, 2), None, None, r"x has shape \(2, 5, 2\)"),
        (normal(10, 2), normal(10, 2), None, r"context has shape \(10, 2\); this flow needs \(rows, 1\)"),
        (normal(10, 2), normal(9, 1), None, "x has 10 rows but context has 9"),
        (normal(10, 2), None, torch.ones(9), "x has 10 rows but weights has 9"),
        (normal(10, 2), None, torch.ones(10, 1), r"weights has shape \(10, 1\); this flow needs \(rows\)"),
    ],
)
def test_wrong_shapes(x: Tensor, context: Tensor | None, weights: Tensor | None, says: str):
    with pytest.raises(ShapeError, match=says):
        diffeo.fit(small(context=None if context is None else 1), x, context, weights, max_steps=1)


def test_a_context_that_is_missing_or_not_wanted():
    with pytest.raises(ContextError, match="needs a context"):
        diffeo.fit(small(context=1), normal(10, 2), max_steps=1)
    with pytest.raises(ContextError, match="takes none"):
        diffeo.fit(small(), normal(10, 2), normal(10, 1), max_steps=1)


@pytest.mark.parametrize("weights", [torch.tensor([1.0, -1e-9, 1.0]), torch.zeros(3)])
def test_weights_that_cannot_be(weights: Tensor):
    with pytest.raises(DataError, match="non-negative and not all zero"):
        diffeo.fit(small(), normal(3, 2), weights=weights, max_steps=1)


def masked(shape: tuple[int, ...], row: int) -> Any:
    values = np.ma.array(normal(*shape).numpy())
    values[row, ...] = np.ma.masked
    return values


def test_what_a_mask_hides_is_missing():
    with pytest.raises(DataError, match="x has 2 values that are not finite, the first in row 3, column 0"):
        diffeo.fit(small(), masked((10, 2), 3), max_steps=1)
    with pytest.raises(DataError, match="context has 2 values .* row 4, column 0: nan"):
        diffeo.fit(small(context=2), normal(10, 2), masked((10, 2), 4), max_steps=1)
    with pytest.raises(DataError, match="weights has 1 values .* row 5: nan"):
        diffeo.fit(small(), normal(10, 2), weights=masked((10,), 5), max_steps=1)
    assert diffeo.fit(small(), np.ma.array(normal(10, 2).numpy()), max_steps=1).steps == 1  # nothing hidden


@pytest.mark.parametrize("offset", [1e7, -1e8, 1.7e9])
def test_an_offset_that_the_flow_s_precision_cannot_hold_is_refused(offset: float):
    x = normal(2000, 2).double()
    x[:, 1] += offset
    x[7, 1] = 0  # an outlier makes the deviation look large
    with pytest.raises(DataError, match=r"float32, .* cannot hold x: .* column 1 .* Subtract .* flow.double"):
        diffeo.fit(small(), x, max_steps=1)
    flow = small().double()
    diffeo.fit(flow, x[8:], max_steps=200)
    drawn = flow.sample(2000)
    assert drawn[:, 1].median() == pytest.approx(offset, abs=0.2)
    assert drawn[:, 1].quantile(0.84) - drawn[:, 1].quantile(0.16) == pytest.approx(2, rel=0.2)


def test_offsets_within_the_precision_are_taken():
    whole = torch.arange(2000).double().remainder(7)[:, None] + 1e7  # float32 has these exactly
    heavy = normal(2000, 1).double().mul(5).exp()  # far rows are rounded by more than the spread of most
    for x in (whole, heavy, normal(2000, 1).double() + 1e5, torch.full((5, 1), 1e9 + 0.1).double()):
        assert diffeo.fit(small(1), x, max_steps=1, validation=0).steps == 1


@pytest.mark.parametrize("x", [[["a", "b"], ["c", "d"]], [[1.0, None], [2.0, 3.0]], [[1.0, 2.0], [3.0]]])
def test_what_is_no_array_of_numbers(x: Any):
    with pytest.raises(DataError, match="x is not an array of numbers"):
        diffeo.fit(small(), x, max_steps=1)


@pytest.mark.parametrize(
    "options",
    [
        {"validation": 1.0},
        {"validation": -0.1},
        {"validation": math.nan},
        {"max_steps": 0},
        {"max_seconds": -1.0},
        {"max_seconds": math.nan},
        {"max_epochs": math.inf},
        {"batch_size": 0},
        {"batch_size": -5},
    ],
    ids=str,
)
def test_options_that_cannot_be(options: dict[str, Any]):
    with pytest.raises(ConfigError, match=next(iter(options))):
        diffeo.fit(small(), normal(10, 2), **({"max_steps": 1} | options))


def test_no_rows_one_row_and_nothing_to_train():
    with pytest.raises(DataError, match="x has no rows"):
        diffeo.fit(small(), torch.empty(0, 2), max_steps=1)
    with pytest.raises(DataError, match="validation=0"):
        diffeo.fit(small(), normal(1, 2), max_steps=1)
    with pytest.raises(ConfigError, match="no parameter to train"):
        diffeo.fit(diffeo.Flow(Standardize((2,)), Normal((2,))), normal(9, 2), max_steps=1)


def test_arrays_of_every_make_give_the_same_flow():
    x = normal(20, 2).double().numpy().round(3)
    read_only = x.copy()
    read_only.setflags(write=False)
    makes = [
        torch.tensor(x),
        x,
        read_only,
        x[::-1].copy()[::-1],
        x.tolist(),
        torch.tensor(x, requires_grad=True),
    ]
    results = []
    for make in makes:
        flow = small()
        diffeo.fit(flow, make, max_steps=2)
        results.append(weights_of(flow))
    assert all(same(results[0], other) for other in results[1:])


# -- no traces, same bits -------------------------------------------------------------------------


def test_one_seed_gives_the_same_bits_and_another_seed_others():
    results = []
    for seed, torch_seed in ((4, 0), (4, 1), (5, 0)):
        flow = small(dropout=0.3)
        torch.manual_seed(torch_seed)
        report = diffeo.fit(flow, normal(60, 2), max_steps=20, seed=seed)
        results.append((weights_of(flow), report.valid, report.train))
    assert same(results[0][0], results[1][0])
    assert results[0][1:] == results[1][1:]
    assert not same(results[0][0], results[2][0])


def test_a_fit_leaves_no_trace_outside_the_flow():
    x, context, weights = normal(40, 2), normal(40, 1), normal(40).abs()
    before = x.clone(), context.clone(), weights.clone()
    flow = small(context=1, dropout=0.3)
    state = torch.get_rng_state()
    diffeo.fit(flow, x, context, weights, max_steps=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, (x, context, weights), before))
    with pytest.raises(ZeroDivisionError):
        diffeo.fit(flow, x, context, weights, max_steps=5, objective=lambda flow, batch: 1 / 0)
    assert torch.equal(torch.get_rng_state(), state)


# -- batches and the split ------------------------------------------------------------------------


def test_every_epoch_sees_every_training_row_once_in_a_new_order():
    seen = Recording()
    diffeo.fit(small(), normal(25, 2), validation=0, batch_size=10, max_epochs=3, objective=seen)
    assert [len(b.rows) for b in seen.steps] == [10, 10, 5] * 3
    epochs = [numbers(seen.steps[i : i + 3]) for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(25)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_batch_is_a_function_of_seed_and_step():
    rows = rows_for(small(), normal(25, 2), None, None)
    in_turn = Epochs(rows, 10, seed=7)
    expected = [in_turn[step].rows.tolist() for step in range(12)]
    for step in (11, 3, 8, 0):
        assert Epochs(rows, 10, seed=7)[step].rows.tolist() == expected[step]
        assert in_turn[step].rows.tolist() == expected[step]
    assert Epochs(rows, 10, seed=8)[0].rows.tolist() != expected[0]


def test_a_batch_holds_what_belongs_to_its_rows():
    x, context, weights = normal(30, 2), normal(30, 1), 0.1 + normal(30).abs()
    seen = Recording()
    diffeo.fit(small(context=1), x, context, weights, max_epochs=1, batch_size=7, objective=seen)
    for batch in seen.steps + seen.measured:
        assert batch.context is not None
        assert batch.weights is not None
        assert torch.equal(batch.x, x[batch.rows])
        assert torch.equal(batch.context, context[batch.rows])
        torch.testing.assert_close(batch.weights, (weights / weights.max())[batch.rows])


class Spy(Bijection, Initializable):
    """The identity, but for one learned shift; remembers what it was set from."""

    seen: Tensor
    context: Tensor | None

    def __init__(self):
        super().__init__((2,))
        self.shift = nn.Parameter(torch.zeros(2))
        self.calls = 0

    def forward(self, x, context=None):
        return x + self.shift, x.new_zeros(x.shape[:-1])

    def inverse(self, y, context=None):
        return y - self.shift, y.new_zeros(y.shape[:-1])

    def initialize(self, x, context=None):
        self.seen, self.context, self.calls = x.clone(), context, self.calls + 1


def test_held_out_rows_reach_neither_gradient_nor_standardization():
    x = normal(50, 2)
    seen, spy, standardize = Recording(), Spy(), Standardize((2,))
    diffeo.fit(
        diffeo.Flow(Chain([spy, standardize]), Normal((2,))), x, validation=0.2, max_epochs=2, objective=seen
    )
    trained, held = set(numbers(seen.steps)), set(numbers(seen.measured))
    assert len(held) == 10
    assert trained | held == set(range(50))
    assert not trained & held
    expected = x[sorted(trained)]
    assert torch.equal(spy.seen[spy.seen[:, 0].argsort()], expected[expected[:, 0].argsort()])
    torch.testing.assert_close(standardize.loc, expected.mean(0))
    torch.testing.assert_close(standardize.log_scale, expected.std(0, unbiased=False).log())
    assert spy.calls == 1


def test_the_split_depends_on_the_seed_alone():
    def held(x: Tensor, seed: int) -> set[int]:
        seen = Recording()
        diffeo.fit(small(), x, max_steps=1, seed=seed, objective=seen)
        return set(numbers(seen.measured))

    assert held(normal(50, 2), 1) == held(normal(50, 2, seed=9), 1)
    assert held(normal(50, 2), 1) != held(normal(50, 2), 2)


def test_contexts_are_standardized_by_training_rows_at_full_precision():
    stamps = 1.7e9 + 100 * normal(60, 1).double()
    seen = Recording()
    flow = small(context=1)
    diffeo.fit(flow, normal(60, 2), stamps, max_steps=1, batch_size=60, validation=0, objective=seen)
    assert flow.context_encoding is not None
    given = seen.steps[0].context
    assert given is not None
    assert given.dtype == torch.float64
    encoded = flow.context_encoding(given)
    assert encoded.dtype == torch.float32
    assert abs(encoded.mean()) < 1e-5
    assert abs(encoded.std(unbiased=False) - 1) < 1e-5


# -- weights --------------------------------------------------------------------------------------


def test_a_weight_of_two_is_a_row_given_twice():
    flow = small().eval()
    x, weights = normal(6, 2), torch.tensor([1.0, 2.0, 1.0, 3.0, 1.0, 1.0])
    rows = torch.arange(6)
    twice = rows.repeat_interleave(weights.long())
    weighted = Likelihood()(flow, Batch(x, None, weights, rows))
    torch.testing.assert_close(weighted, Likelihood()(flow, Batch(x[twice], None, None, twice)))
    torch.testing.assert_close(weighted, Likelihood()(flow, Batch(x, None, 7 * weights, rows)))


@pytest.mark.parametrize("unit", [1e-320, 1e-45, 1e40, 8e307])
def test_only_the_ratios_of_weights_count(unit: float):
    x, weights = normal(60, 2), torch.arange(60).double() / 30
    flows = small(), small()
    for flow, factor in zip(flows, (1.0, unit), strict=True):
        diffeo.fit(flow, x, weights=factor * weights, max_steps=20)
    for one, other in zip(*(weights_of(flow).values() for flow in flows), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)  # 1e-320 has a few bits only


def test_rows_of_weight_zero_are_as_good_as_absent():
    x = normal(60, 2)
    spoilt = torch.cat([x[:30], 1e6 * normal(40, 2), x[30:]])
    weights = torch.ones(100)
    weights[30:70] = 0
    flows = small(), small()
    reports = [
        diffeo.fit(flows[0], x, weights=torch.ones(60), max_steps=30, batch_size=8),
        diffeo.fit(flows[1], spoilt, weights=weights, max_steps=30, batch_size=8),
    ]
    assert same(weights_of(flows[0]), weights_of(flows[1]))
    assert reports[0].valid == reports[1].valid
    assert reports[1].skipped == 0


def test_what_is_set_from_data_is_set_by_weight():
    x = torch.tensor([[0.0, 1.0], [4.0, 1.0], [8.0, 5.0]])
    for weights, mean, error in (([3.0, 3.0, 3.0], [4.0, 7 / 3], 1e-5), ([1e-4, 1.0, 1.0], [6.0, 3.0], 0.3)):
        flow, given = small(), torch.tensor(weights).repeat(40)
        diffeo.fit(flow, x.repeat(40, 1), weights=given, max_steps=1, validation=0)
        torch.testing.assert_close(flow.bijection.parts[0].loc, torch.tensor(mean), rtol=0, atol=error)


def test_rows_keep_their_numbers_when_others_weigh_nothing():
    seen = Recording()
    weights = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0])
    diffeo.fit(small(), normal(5, 2), weights=weights, validation=0, max_epochs=1, objective=seen)
    assert sorted(numbers(seen.steps)) == [1, 3, 4]


# -- its length -----------------------------------------------------------------------------------

FOREVER = OptimizerSettings(patience=1.0)


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"max_steps": 7}, 7),
        ({"max_epochs": 2}, 8),
        ({"max_epochs": 0.3}, 2),
        ({"max_epochs": 2, "max_steps": 5}, 5),
        ({"max_epochs": 1, "max_steps": 50}, 4),
        ({"max_steps": 3, "max_seconds": 1000.0}, 3),
        ({"max_steps": 60, "max_seconds": 1000.0}, 60),
    ],
    ids=str,
)
def test_the_shortest_limit_holds(limits: dict[str, Any], steps: int):
    report = diffeo.fit(small(), normal(40, 2), batch_size=10, validation=0, **limits)
    assert report.steps == steps
    assert report.stopped == f"all {steps} steps done"
    assert report.curves[-1].step == steps


@pytest.mark.parametrize("seconds", [1e-6, 0.05, 1.0])
def test_time_budgets_end_in_time(seconds: float):
    started = time.monotonic()
    report = diffeo.fit(small(), normal(40, 2), max_seconds=seconds, optimizer=FOREVER)
    taken = time.monotonic() - started
    assert report.steps >= 1
    assert report.curves[-1].step == report.steps
    assert abs(report.seconds - taken) < 0.2 + 0.2 * taken
    assert taken < seconds + 2.0  # a step and two measurements of a busy machine
    if seconds == 1.0:
        assert report.steps > 1
        assert taken > 0.3


@pytest.mark.parametrize(
    ("rows", "validation", "batch_size"),
    [(5, 0.2, 1000), (2, 0.1, None), (2, 0.9, None), (1, 0, None), (30, 0, 7)],
)
def test_few_rows(rows: int, validation: float, batch_size: int | None):
    flow, options = small(), {"validation": validation, "batch_size": batch_size}
    report = diffeo.fit(flow, normal(rows, 2), max_steps=5, optimizer=FOREVER, **options)
    assert report.steps == 5
    assert math.isnan(report.valid) == (validation == 0)
    assert bool(flow.log_prob(normal(3, 2)).isfinite().all())


def test_the_default_batch_size():
    assert [default_batch_size(rows) for rows in (1, 300, 2_000, 10**6)] == [32, 32, 128, 512]


class Listener:
    def __init__(self, told: list[Progress]):
        self.told = told

    def on_progress(self, progress: Progress) -> None:
        self.told.append(progress)


def test_callbacks_are_told_and_may_stop_the_run():
    class Enough(Exception):
        pass

    class Stop(Listener):
        def on_progress(self, progress: Progress) -> None:
            super().on_progress(progress)
            if progress.step >= 10:
                raise Enough

    told: list[Progress] = []
    with pytest.raises(Enough):
        diffeo.fit(small(), normal(40, 2), max_steps=600, callbacks=[Stop(told)])
    assert [p.step for p in told] == [0, 10]
    assert {p.steps for p in told} == {600}
    assert {p.stage for p in told} == {"fit"}
    assert all(math.isfinite(p.train) and math.isfinite(p.valid) for p in told)
    assert 0 < told[0].seconds < told[1].seconds


# -- what it keeps and reports --------------------------------------------------------------------


@pytest.fixture(scope="module")
def memorized() -> tuple[diffeo.Flow, Tensor, FitReport, Recording]:
    """A flow large enough to learn forty rows of noise by heart."""
    torch.manual_seed(0)
    flow, x, seen = NSF(3, layers=2, hidden=48).build(), normal(40, 3), Recording()
    settings = OptimizerSettings(learning_rate=1e-2, ema=0.9)
    report = diffeo.fit(
        flow, x, validation=0.3, max_steps=600, batch_size=28, optimizer=settings, objective=seen
    )
    return flow, x, report, seen


def test_a_run_that_only_memorizes_stops_early(memorized: Any):
    _, _, report, _ = memorized
    assert report.steps < 300
    assert report.best_step == 0
    assert report.stopped == "no better validation score than at the start"
    assert report.train > report.valid


def test_a_run_that_learns_and_then_memorizes_says_since_when():
    x = normal(100, 2)
    x[:, 1] += 2 * x[:, 0]
    settings = OptimizerSettings(learning_rate=1e-2, ema=0.9)
    report = diffeo.fit(small(hidden=16), x, validation=0.3, max_steps=600, optimizer=settings)
    assert 0 < report.best_step < report.steps < 600
    assert report.stopped == f"no better validation score since step {report.best_step}"


def test_no_run_stops_early_while_its_learning_rate_still_rises():
    for seed in range(3):
        x = normal(20, 2, seed=seed)
        assert (
            diffeo.fit(
                small(), x, max_steps=40, validation=0.3, optimizer=OptimizerSettings(patience=0.01)
            ).steps
            == 40
        )


def test_the_best_weights_are_kept(memorized: Any):
    flow, x, report, seen = memorized
    held = sorted(set(numbers(seen.measured)))
    assert not flow.training
    with torch.no_grad():
        again = flow.log_prob(x[held]).mean()
    assert abs(again - report.valid) < 1e-4 * max(1, abs(report.valid))
    assert report.valid == max(p.valid for p in report.curves)
    assert report.valid == next(p.valid for p in report.curves if p.step == report.best_step)


def test_the_report(memorized: Any):
    report = memorized[2]
    steps = [p.step for p in report.curves]
    assert steps[0] == 0
    assert steps[-1] == report.steps
    assert steps == sorted(set(steps))
    assert [p.seconds for p in report.curves] == sorted(p.seconds for p in report.curves)
    assert report.curves[-1].seconds <= report.seconds
    assert report.train == report.curves[-1].train
    assert report.seed == 0
    assert report.skipped == 0
    assert set(report.versions) == {"diffeo", "torch", "numpy", "python"}
    with pytest.raises(FrozenInstanceError):
        report.steps = 0
    assert json.loads(json.dumps(report.to_json()))["curves"][0]["step"] == 0


def test_without_validation_the_last_weights_are_kept():
    report = diffeo.fit(
        small(), normal(40, 2), max_steps=200, validation=0, optimizer=OptimizerSettings(patience=0.01)
    )
    assert report.best_step == report.steps == 200
    assert math.isnan(report.valid)


def test_validation_rows_outside_the_support_do_not_freeze_the_run():
    """No weights give them a finite score; training goes on and its last weights are kept."""
    flow = diffeo.Flow(Chain([Logit((1,)), Pointwise(Affine(), (1,))]), Normal((1,)))
    x = torch.rand(40, 1, generator=torch.Generator().manual_seed(0)) * 0.5
    train = rows_for(flow, x, None, None)
    outside = rows_for(flow, x + 2.0, None, None)
    report = diffeo.fit(
        flow, train.x, validation=outside, max_steps=150, optimizer=OptimizerSettings(learning_rate=0.1)
    )
    assert report.steps == report.best_step == 150
    assert report.valid == -math.inf
    assert flow.log_prob(x).mean() > 0.4  # log 2 at best


def test_double_precision_stays_double():
    flow = small().double()
    diffeo.fit(flow, normal(40, 2), max_steps=3)
    assert {p.dtype for p in flow.parameters()} == {torch.float64}
    assert flow.sample(3).dtype == torch.float64


def test_a_second_fit_goes_on_from_the_first():
    flow, x = small(), normal(40, 2)
    diffeo.fit(flow, x, max_steps=3)
    loc = flow.bijection.parts[0].loc.clone()
    report = diffeo.fit(flow, x + 1, max_steps=3)
    assert torch.equal(flow.bijection.parts[0].loc, loc)
    assert report.steps == 3


# -- steps that fail ------------------------------------------------------------------------------


class NanAt:
    """Maximum likelihood, but NaN at some steps; keeps the weights it saw at every step."""

    def __init__(self, *steps: int):
        self.bad, self.weights = steps, []

    def __call__(self, flow: diffeo.Flow, batch: Batch) -> Tensor:
        loss = Likelihood()(flow, batch)
        if flow.training:
            self.weights.append(torch.cat([p.detach().flatten().clone() for p in flow.parameters()]))
            if len(self.weights) - 1 in self.bad:
                return loss * math.nan
        return loss


def test_a_step_that_is_not_finite_is_skipped_and_counted():
    flow, objective = small(), NanAt(3, 5)
    report = diffeo.fit(flow, normal(40, 2), max_steps=10, objective=objective, optimizer=FOREVER)
    assert report.skipped == 2
    assert report.steps == 10
    moved = [not torch.equal(a, b) for a, b in zip(objective.weights, objective.weights[1:], strict=False)]
    assert moved == [True, True, True, False, True, False, True, True, True]
    assert math.isfinite(report.train)
    assert all(bool(p.isfinite().all()) for p in flow.parameters())


def test_failures_that_do_not_follow_each_other_end_nothing():
    objective = NanAt(*(i for i in range(60) if i % 10))
    report = diffeo.fit(small(), normal(40, 2), max_steps=60, objective=objective, optimizer=FOREVER)
    assert (report.skipped, report.steps) == (54, 60)


def test_failure_after_failure_ends_the_run_and_names_the_batch():
    objective = NanAt(*range(2, 100))
    with pytest.raises(TrainingError, match=rf"{BAD_STEPS} steps in a row.* rows \[.*made the batch"):
        diffeo.fit(small(), normal(40, 2), max_steps=100, objective=objective)
    assert len(objective.weights) == 2 + BAD_STEPS


def test_rows_without_density_are_named():
    flow = diffeo.Flow(Chain([Logit((1,)), Pointwise(Affine(), (1,))]), Normal((1,)))
    x = torch.linspace(0.1, 0.9, 20)[:, None].clone()
    x[[4, 13]] = 1.5
    with pytest.raises(TrainingError, match=r"rows \[(4, 13|13, 4)\] have no finite log-density"):
        diffeo.fit(flow, x, validation=0, max_steps=100)


# -- constraints kept by projection ---------------------------------------------------------------


class UnitRotation(Bijection, Projectable):
    """A rotation as a point of the unit circle; its volume change is 0 only on the circle."""

    def __init__(self):
        super().__init__((2,))
        self.point = nn.Parameter(torch.tensor([1.0, 0.0]))
        self.scale = nn.Parameter(torch.zeros(2))
        self.calls = 0

    def _matrix(self) -> Tensor:
        a, b = self.point
        return torch.stack([torch.stack([a, -b]), torch.stack([b, a])])

    def forward(self, x, context=None):
        return x @ self._matrix().T * self.scale.exp(), self.scale.sum().expand(x.shape[:-1])

    def inverse(self, y, context=None):
        return (y * torch.exp(-self.scale)) @ self._matrix(), -self.scale.sum().expand(y.shape[:-1])

    def project_(self):
        self.point /= self.point.norm()
        self.calls += self.training


@pytest.mark.parametrize("validation", [0.1, 0.0])
def test_projection_follows_every_step_and_holds_for_the_weights_kept(validation: float):
    rotation = UnitRotation()
    x = normal(300, 2) * torch.tensor([3.0, 0.3]) @ torch.tensor([[0.8, 0.6], [-0.6, 0.8]])
    settings = OptimizerSettings(learning_rate=0.05)
    flow = diffeo.Flow(rotation, Normal((2,)))
    report = diffeo.fit(flow, x, max_steps=150, optimizer=settings, validation=validation)
    assert rotation.calls == report.steps
    assert abs(rotation.point.detach().norm() - 1) < 1e-6
    assert abs(rotation.point[1]) > 0.1


# -- what it learns -------------------------------------------------------------------------------


EAGER = OptimizerSettings(learning_rate=2e-2, ema=0.98)


def mixture(x: Tensor, share: float) -> Tensor:
    """The density of N(-2, 0.5) with weight ``share`` and N(1, 1)."""
    left = torch.distributions.Normal(-2.0, 0.5).log_prob(x).exp()
    return share * left + (1 - share) * torch.distributions.Normal(1.0, 1.0).log_prob(x).exp()


def from_mixture(rows: int) -> tuple[Tensor, Tensor]:
    """Rows of which half are of the left component, and which these are."""
    left = torch.arange(rows) < rows // 2
    return torch.where(left[:, None], -2 + 0.5 * normal(rows, 1), 1 + normal(rows, 1, seed=1)), left


def density_on_grid(flow: diffeo.Flow) -> tuple[Tensor, Tensor, float]:
    grid = torch.linspace(-12, 12, 4001)[:, None]
    with torch.no_grad():
        return grid[:, 0], flow.log_prob(grid), 24 / 4000


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_density_is_learned_weighted_or_not(share: float):
    x, left = from_mixture(3000)
    weights = None if share == 0.5 else torch.where(left, 4.0, 1.0)
    flow = small(1, hidden=16, bins=8)
    diffeo.fit(flow, x, weights=weights, max_steps=350, batch_size=256, optimizer=EAGER)
    grid, log_q, step = density_on_grid(flow)
    p = mixture(grid, share)
    assert abs(log_q.exp().sum() * step - 1) < 1e-3
    divergence = ((p * (p.log() - log_q)).nan_to_num().sum() * step).item()
    assert -1e-3 < divergence < 0.03
    assert abs(log_q.exp()[grid < -0.6].sum() * step - p[grid < -0.6].sum() * step) < 0.03


def test_a_shift_by_the_context_is_learned():
    context = 10 + 5 * normal(2000, 1, seed=1)
    torch.manual_seed(0)
    flow = MAF(1, 1, layers=1, hidden=(16,)).build()
    diffeo.fit(flow, 2 * context + 0.5 * normal(2000, 1), context, max_steps=700, optimizer=EAGER)
    for value in (5.0, 10.0, 15.0):
        x = flow.sample(2000, torch.tensor([value]), generator=torch.Generator().manual_seed(0))
        assert abs(x.mean() - 2 * value) < 0.15
        assert abs(x.std() - 0.5) < 0.15


def test_classes_are_learned():
    classes = np.arange(1200) % 3
    x = torch.from_numpy(10.0 * classes)[:, None] + normal(1200, 1)
    torch.manual_seed(0)
    flow = MAF(1, Classes(3), layers=1, hidden=(16,)).build()
    diffeo.fit(flow, x, classes, max_steps=200, optimizer=EAGER)
    means = [flow.sample(1000, torch.tensor(c)).mean().item() for c in range(3)]
    assert all(abs(mean - 10 * c) < 1.0 for c, mean in enumerate(means))


def test_a_run_that_fails_leaves_the_flow_in_evaluation_mode():
    class Breaks(Likelihood):
        def __call__(self, flow, batch):
            raise RuntimeError("the target broke")

    flow = diffeo.presets.MAF(2, layers=1, hidden=(4,)).build().train()
    with pytest.raises(RuntimeError, match="the target broke"):
        diffeo.fit(flow, torch.randn(64, 2), objective=Breaks(), max_steps=3)
    assert not flow.training
