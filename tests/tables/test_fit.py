"""``fit_table``: from files and tables of every make to samples that look like their rows."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import diffeo
from diffeo.contexts import Classes
from diffeo.encodings import Columns
from diffeo.errors import ConfigError, DataError
from diffeo.presets import MAF, FlowMatching, Preset, Tabular
from diffeo.tables import Schema, Table, TableReport, score_table
from diffeo.train import Checkpoint, OptimizerSettings, Progress

ROWS = 400


def mixed_rows() -> Table:
    """A column of each kind that may occur."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=ROWS)
    return Table.from_columns(
        {
            "x": x,
            "price": np.exp(x + 0.1 * rng.normal(size=ROWS)),
            "count": rng.poisson(3, ROWS),
            "grade": rng.integers(2, 9, ROWS) / 2,
            "angle": rng.vonmises(0.5, 1.0, ROWS) % (2 * math.pi),
            "share": rng.beta(2, 2, ROWS).astype(np.float32),
            "unit": np.full(ROWS, 7),
        }
    )


DECLARED = {"price": "positive", "angle": f"circular(0, {2 * math.pi!r})", "share": "bounded(0, 1)"}


def tiny(features: int, context: Any = None) -> Preset:
    return Tabular(features, context, layers=1, hidden=8, blocks=1)


def fit_quickly(table: Any, *, features: int = 2, context: Any = None, **options: Any):
    options = {"preset": tiny(features, context), "max_seconds": 0.2} | options
    return diffeo.fit_table(table, **options)


def encoding_of(flow: diffeo.Flow) -> Columns:
    assert isinstance(flow.encoding, Columns)
    return flow.encoding


# -- the main job ---------------------------------------------------------------------------------


class Stages:
    def __init__(self):
        self.names: list[str] = []

    def on_progress(self, progress: Progress) -> None:
        if progress.stage not in self.names:
            self.names.append(progress.stage)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A CSV file fitted with nothing chosen but the declared columns."""
    path, stages = tmp_path_factory.mktemp("table") / "mixed.csv", Stages()
    mixed_rows().write(path)
    started = time.monotonic()
    flow, report = diffeo.fit_table(path, columns=DECLARED, max_seconds=3, callbacks=[stages])
    return flow, report, stages.names, time.monotonic() - started


@pytest.fixture(scope="module")
def samples(fitted: Any) -> dict[str, torch.Tensor]:
    flow = fitted[0]
    drawn = flow.sample(10_000, generator=torch.Generator().manual_seed(0))
    return dict(zip(encoding_of(flow).names, drawn.unbind(-1), strict=True))


def test_a_race_then_the_fit_within_the_time(fitted: Any):
    _, report, stages, taken = fitted
    assert stages == ["race 1/2", "race 2/2", "fit"]
    assert abs(report.seconds - taken) < 0.5
    assert taken < 3 + 12  # the baselines and a busy machine come on top


def test_the_report_has_baselines_on_the_same_scale(fitted: Any):
    _, report, _, _ = fitted
    assert sorted(report.baselines) == ["flow", "gaussian", "mixture"]
    assert report.baselines["flow"] == report.training.valid
    assert report.training.valid > report.baselines["gaussian"] - 0.5
    assert all(math.isfinite(value) for value in report.baselines.values())
    assert len(report.training.curves) > 1
    assert report.held_out == ROWS // 10
    assert "curves" not in repr(report)
    assert len(repr(report)) < 1000


def test_a_flow_that_can_be_saved_and_scores_what_it_knows(fitted: Any, tmp_path: Path):
    flow, _, _, _ = fitted
    diffeo.save(flow, tmp_path / "model")
    again = diffeo.load(tmp_path / "model")
    x = torch.from_numpy(mixed_rows().values[:50])
    with torch.no_grad():
        scores = again.log_prob(x)
        assert torch.equal(scores, flow.log_prob(x))
    quantiles = score_table(again, mixed_rows().rows(slice(50))).quantile
    assert quantiles is not None
    assert 0 <= quantiles.min() < 0.3
    assert 0.7 < quantiles.max() <= 1


def test_the_notes_say_what_is_to_be_known_of_the_model(fitted: Any):
    flow, report, _, _ = fitted
    notes = flow.notes
    assert notes == report.notes()
    assert (notes["rows"], notes["seed"], notes["steps"]) == (ROWS, 0, report.training.steps)
    assert notes["held out"] == {name: round(nats, 3) for name, nats in report.baselines.items()}
    assert notes["held-out scores"]["rows"] == len(notes["held-out scores"]["values"]) == ROWS // 10
    assert len(json.dumps(notes)) < 20_000
    assert report.to_json()["held_out_scores"] == notes["held-out scores"]


def test_samples_stay_in_their_supports(samples: dict[str, torch.Tensor]):
    assert (samples["unit"] == 7).all()
    assert (samples["price"] > 0).all()
    assert ((samples["share"] > 0) & (samples["share"] < 1)).all()
    assert ((samples["angle"] >= 0) & (samples["angle"] < 2 * math.pi)).all()
    assert torch.equal(samples["count"], samples["count"].round())
    assert torch.equal(2 * samples["grade"], (2 * samples["grade"]).round())
    assert all(bool(column.isfinite().all()) for column in samples.values())


def test_samples_look_like_the_rows(samples: dict[str, torch.Tensor]):
    table = mixed_rows()
    for name in ("x", "count", "grade", "share"):
        column = table.column(name)
        assert abs(samples[name].mean() - column.mean()) < 0.3 * column.std(), name
        assert 0.6 < samples[name].std() / column.std() < 1.6, name
    logs = samples["price"].log()
    assert torch.corrcoef(torch.stack([samples["x"], logs]))[0, 1] > 0.8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("price", 0.0),
        ("price", -1.0),
        ("share", 0.0),
        ("share", 1.5),
        ("angle", 7.0),
        ("grade", 1.25),
        ("count", 0.5),
        ("unit", 8.0),
    ],
)
def test_rows_outside_a_support_have_no_density(fitted: Any, name: str, value: float):
    flow, table = fitted[0], mixed_rows()
    row = torch.from_numpy(table.values[:2].copy())
    row[1, table.names.index(name)] = value
    inside, outside = flow.log_prob(row).tolist()
    assert math.isfinite(inside)
    assert outside == -math.inf


# -- what it takes --------------------------------------------------------------------------------


class Frame:
    """As little of a DataFrame as is needed."""

    def __init__(self, columns: dict[str, np.ndarray]):
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name]


def two_columns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {"a": rng.normal(size=80), "b": rng.normal(3, 2, 80)}


@pytest.mark.parametrize("make", [dict, Frame, Table.from_columns], ids=["mapping", "frame", "table"])
def test_tables_of_every_make(make: Any):
    flow, _ = fit_quickly(make(two_columns()))
    assert encoding_of(flow).names == ("a", "b")
    assert abs(flow.sample(2000)[:, 1].mean() - 3) < 1


@pytest.mark.parametrize("make", [np.asarray, torch.tensor], ids=["array", "tensor"])
def test_arrays_get_names(make: Any):
    flow, _ = fit_quickly(make(np.stack(list(two_columns().values()), 1)))
    assert encoding_of(flow).names == ("x0", "x1")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_files(suffix: str, tmp_path: Path):
    path = tmp_path / f"rows{suffix}"
    Table.from_columns(two_columns()).write(path)
    for given in (path, str(path)):
        flow, _ = fit_quickly(given, max_seconds=0.05)
        assert encoding_of(flow).names == ("a", "b")


@pytest.mark.parametrize("make", [dict, Frame, Table.from_columns], ids=["mapping", "frame", "table"])
def test_columns_are_left_out(make: Any):
    junk: Any = np.arange(80) if make == Table.from_columns else np.array(["x"] * 80)
    flow, _ = fit_quickly(make({"id": junk, **two_columns()}), drop=["id"], max_seconds=0.05)
    assert encoding_of(flow).names == ("a", "b")


def test_a_preset_is_what_is_built_without_a_race():
    stages = Stages()
    preset = MAF(2, layers=1, hidden=(8,))
    flow, _ = fit_quickly(two_columns(), preset=preset, callbacks=[stages])
    assert flow.preset == preset
    assert stages.names == ["fit"]


def test_columns_that_never_vary_take_no_part_in_the_flow():
    flow, _ = fit_quickly(two_columns() | {"c": np.full(80, 2.5)}, features=2)
    assert flow.bijection.event_shape == (2,)
    assert flow.event_shape == (3,)
    assert (flow.sample(50)[:, 2] == 2.5).all()


def test_a_single_column():
    flow, report = fit_quickly({"a": two_columns()["a"]}, features=1)
    assert flow.sample(3).shape == (3, 1)
    assert sorted(report.baselines) == ["flow", "gaussian", "mixture"]


# -- a schema that is ready -----------------------------------------------------------------------


def same_fits(one: tuple[diffeo.Flow, TableReport], other: tuple[diffeo.Flow, TableReport]) -> bool:
    return (
        encoding_of(one[0]).to_json() == encoding_of(other[0]).to_json()
        and torch.equal(weights_of(one[0]), weights_of(other[0]))
        and one[1].baselines == other[1].baselines
    )


def test_a_schema_gives_the_fit_of_the_kinds_it_was_inferred_with():
    table = mixed_rows()
    options = {"given": ["x"], "drop": ["unit"], "features": 5, "context": 1, "max_steps": 5}
    options["preset"] = Tabular(5, 1, layers=1, hidden=8, blocks=1, circular=(3,))
    schema = Schema.infer(table.drop(["x", "unit"]), DECLARED)
    by_kinds = fit_quickly(table, columns=DECLARED, **options)
    assert same_fits(fit_quickly(table, columns=schema, **options), by_kinds)
    assert not same_fits(fit_quickly(table, columns={**DECLARED, "price": "continuous"}, **options), by_kinds)


def test_a_schema_says_which_columns_are_modeled():
    columns = two_columns() | {"id": np.array(["x"] * 80), "w": np.ones(80)}
    schema = Schema.infer(Table.of(two_columns()))
    flow, _ = fit_quickly(columns, columns=schema, weights="w", max_steps=2)
    assert encoding_of(flow).names == ("a", "b")
    with pytest.raises(ConfigError, match="'a' is given or weights the rows"):
        fit_quickly(columns, columns=schema, given=["a"])
    with pytest.raises(DataError, match="no column 'b' in this table; it has a"):
        fit_quickly({"a": columns["a"]}, columns=schema)


def test_a_schema_is_held_against_all_rows():
    table = {"n": np.arange(80) % 7, "a": two_columns()["a"]}
    schema = Schema.infer(Table.of(table))
    for row in (3, 60):  # of which one is held out and one not, or not
        values = table["n"].astype(float)
        values[row] = 0.5
        with pytest.raises(DataError, match=f"column 'n' is integer, but row {row + 1} holds 0.5"):
            fit_quickly(table | {"n": values}, columns=schema)


# -- training options -----------------------------------------------------------------------------


class Steps:
    """The last step of each part of a job."""

    def __init__(self):
        self.last: dict[str, int] = {}

    def on_progress(self, progress: Progress) -> None:
        self.last[progress.stage] = progress.step


def test_limits_hold_for_race_and_training_together():
    steps = Steps()
    _, report = fit_quickly(two_columns(), preset=None, max_seconds=None, max_steps=40, callbacks=[steps])
    assert steps.last == {"race 1/2": 6, "race 2/2": 6, "fit": 28}
    assert report.training.steps == 28
    _, report = fit_quickly(
        two_columns(), preset=None, max_seconds=None, max_epochs=10, batch_size=24, callbacks=[steps]
    )
    assert steps.last == {"race 1/2": 5, "race 2/2": 5, "fit": 21}  # of three steps an epoch


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_steps": 7}, 7),
        ({"max_epochs": 4, "batch_size": 36}, 8),
        ({"max_epochs": 4, "batch_size": 24}, 12),
    ],
)
def test_a_preset_has_the_whole_length(options: dict[str, Any], steps: int):
    assert fit_quickly(two_columns(), max_seconds=None, **options)[1].training.steps == steps


def test_the_optimizer_is_set():
    _, still = fit_quickly(two_columns(), max_steps=5, optimizer=OptimizerSettings(learning_rate=1e-30))
    _, moved = fit_quickly(two_columns(), max_steps=5)
    first, *_, last = still.training.curves
    assert last.valid == pytest.approx(first.valid, abs=1e-6)
    assert moved.training.curves[-1].valid != pytest.approx(first.valid, abs=1e-4)


class Stop(Exception):
    """Ends a run as a kill would."""


@dataclass
class StopAt:
    step: int

    def on_progress(self, progress: Progress) -> None:
        if progress.stage == "fit" and progress.step >= self.step:
            raise Stop


@pytest.mark.parametrize("preset", [tiny(2), None], ids=["preset", "race"])
def test_a_run_that_was_stopped_goes_on_from_its_checkpoint(preset: Preset | None, tmp_path: Path):
    path = tmp_path / "run"
    options = {"preset": preset, "max_seconds": None, "max_steps": 60}
    whole = fit_quickly(two_columns(), **options)
    with pytest.raises(Stop):
        fit_quickly(two_columns(), checkpoint=Checkpoint(path, 0.0), callbacks=[StopAt(30)], **options)
    with pytest.raises(ConfigError, match="belongs to another run"):
        fit_quickly(two_columns(), checkpoint=path, **(options | {"max_steps": 61}))
    steps = Stages()
    resumed = fit_quickly(two_columns(), checkpoint=path, callbacks=[steps], **options)
    assert steps.names == ["fit"]  # the race is over
    assert same_fits(whole, resumed)
    steps.names.clear()
    again = fit_quickly(two_columns(), checkpoint=path, callbacks=[steps], **options)
    assert steps.names == []  # it has ended
    assert same_fits(whole, again)
    assert again[0].notes["held-out scores"] == whole[0].notes["held-out scores"]
    assert again[1].baselines == whole[1].baselines


class Ticks:
    """A clock that a thousand looks take a second further."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def test_the_clock_is_the_one_given():
    fits = []
    for _ in range(2):
        clock = Ticks()
        fits.append(fit_quickly(two_columns(), preset=None, max_seconds=1.0, clock=clock))
        assert fits[-1][1].seconds == pytest.approx(clock.now, abs=0.01)
        assert 0.5 < fits[-1][1].training.seconds + 0.3 < 1.3
    assert same_fits(*fits)  # time is a matter of steps alone
    assert fits[0][1].training.steps == fits[1][1].training.steps > 50


def test_a_flow_trained_otherwise_is_measured_by_its_likelihood():
    rows = 1e3 * np.random.default_rng(0).normal(size=(300, 2))
    preset = FlowMatching(2, layers=1, hidden=16)
    flow, report = diffeo.fit_table(rows, preset=preset, max_steps=30)
    assert report.training.valid == report.baselines["flow"]
    assert abs(report.training.valid - score_table(flow, rows).log_prob.mean()) < 1


# -- given columns and weights --------------------------------------------------------------------


def test_given_columns_are_conditioned_on():
    rng = np.random.default_rng(0)
    stamp = 1.7e9 + 100 * rng.normal(size=600)
    columns = {"y": (stamp - 1.7e9) / 50 + 0.2 * rng.normal(size=600), "stamp": stamp}
    preset = MAF(1, 1, layers=1, hidden=(16,))
    flow, _ = diffeo.fit_table(columns, given=["stamp"], preset=preset, max_seconds=2)
    assert encoding_of(flow).names == ("y",)
    assert encoding_of(flow).given == ("stamp",)
    low, high = torch.tensor([[1.7e9 - 100], [1.7e9 + 100]], dtype=torch.float64)
    assert flow.sample(1000, high).mean() - flow.sample(1000, low).mean() > 1  # 4 in the rows


def test_given_columns_keep_their_order():
    columns = two_columns() | {"c": np.arange(80.0)}
    flow, _ = fit_quickly(columns, features=1, context=2, given=["c", "a"])
    assert encoding_of(flow).given == ("c", "a")
    assert flow.context_shape == (2,)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ([1.0, None], r"column 'w' has a missing value in row 2 \(50 such rows\)"),
        (["x", "y"], "column 'w' holds text"),
    ],
)
def test_weights_are_complete_numbers(weights: list, says: str):
    columns = {"a": np.random.default_rng(0).normal(size=100), "w": weights * 50}
    with pytest.raises(DataError, match=says):
        diffeo.fit_table(columns, weights="w", max_seconds=1)


def test_weights_count_and_are_no_column_of_the_flow():
    rng = np.random.default_rng(0)
    left = np.arange(1000) % 2 == 0
    columns = {"x": np.where(left, -5, 5) + rng.normal(size=1000), "w": np.where(left, 9.0, 1.0)}
    preset = Tabular(1, layers=1, hidden=8, marginal=16)
    flow, _ = diffeo.fit_table(columns, weights="w", preset=preset, max_seconds=1)
    assert encoding_of(flow).names == ("x",)
    assert encoding_of(flow).weights == "w"
    assert abs((flow.sample(4000) < 0).double().mean() - 0.9) < 0.05


@pytest.mark.parametrize("unit", [1e-45, 1e40, 1e308])
def test_only_the_ratios_of_weights_count(unit: float):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=300), rng.random(300)
    reports = [
        fit_quickly({"x": x, "y": x**2, "w": factor * w}, weights="w", max_seconds=None, max_steps=20)[1]
        for factor in (1.0, unit)
    ]
    assert reports[0].baselines == pytest.approx(reports[1].baselines, abs=1e-3)
    assert reports[1].rows == 300


def test_rows_of_weight_zero_are_as_good_as_absent():
    columns = two_columns() | {"w": np.ones(80)}
    more = {name: np.concatenate([column, 1e9 * np.ones(20)]) for name, column in columns.items()}
    more["w"][80:] = 0
    flows = [fit_quickly(c, weights="w", max_seconds=0.05)[0] for c in (columns, more)]
    columns_of = [encoding_of(flow).to_json()["columns"] for flow in flows]
    assert columns_of[0] == columns_of[1]
    parts = [dict(flow.bijection.named_buffers()) for flow in flows]
    assert all(torch.equal(value, parts[1][name]) for name, value in parts[0].items())


# -- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"preset": tiny(3)}, ConfigError, "features=3 .* 2 columns of this table vary and 0 are given"),
        ({"preset": tiny(2, 1)}, ConfigError, "context=.* 0 are given"),
        ({"preset": tiny(1, 2), "given": ["a"]}, ConfigError, "1 are given"),
        ({"preset": tiny(1, Classes(2)), "given": ["a"]}, ConfigError, "1 are given"),
        ({"given": ["z"]}, DataError, "no column 'z'"),
        ({"weights": "z"}, DataError, "no column 'z'"),
        ({"given": ["a", "b"]}, DataError, "no column is left to model"),
        ({"columns": {"z": "positive"}}, DataError, "no column 'z'"),
        ({"columns": {"a": "positive"}}, DataError, "column 'a' is positive, but row"),
        ({"columns": {"a": "cubic"}}, ConfigError, "cubic"),
        ({"weights": "a"}, DataError, "column 'a' holds a negative weight in row"),
        ({"drop": ["z"]}, DataError, "no column 'z' in this table; it has a, b"),
        ({"drop": ["a", "b"]}, DataError, "every column is dropped"),
        ({"drop": ["a"], "given": ["a"]}, ConfigError, "'a' is dropped; leave it out of given"),
        ({"drop": ["a"], "weights": "a"}, ConfigError, "'a' is dropped"),
        ({"drop": ["a"], "columns": {"a": "positive"}}, ConfigError, "'a' is dropped"),
        ({"validation": 0}, DataError, "validation=0"),
        ({"validation": 1}, DataError, "validation=1"),
        ({"validation": 0.001}, DataError, "80 rows are too few"),
        ({"validation": 0.999}, DataError, "80 rows are too few"),
        ({"max_seconds": 0}, ConfigError, "max_seconds"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        diffeo.fit_table(two_columns(), **({"max_seconds": 5} | options))


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (np.array([1.0, math.nan] * 40), "'b'.*row 2"),
        (np.array([1.0, math.inf] * 40), "'b'.*row 2"),
        (np.array(["x", "y"] * 40), "'b'"),
    ],
)
def test_columns_that_hold_no_numbers(column: np.ndarray, says: str):
    with pytest.raises(DataError, match=says):
        diffeo.fit_table(two_columns() | {"b": column})


def test_weights_that_are_all_zero():
    with pytest.raises(DataError, match="the weights in column 'w' are all 0"):
        diffeo.fit_table(two_columns() | {"w": np.zeros(80)}, weights="w")


@pytest.mark.parametrize("rows", [2, 4])
def test_too_few_rows_are_refused_before_training(rows: int):
    with pytest.raises(DataError, match=f"{rows} rows are too few"):
        diffeo.fit_table(np.arange(2.0 * rows).reshape(-1, 2) ** 2)


# -- seeds ----------------------------------------------------------------------------------------


def weights_of(flow: diffeo.Flow) -> torch.Tensor:
    return torch.cat([value.double().flatten() for value in flow.state_dict().values()])


def test_the_seed_decides_split_and_weights():
    fits = []
    for seed, torch_seed in ((0, 0), (0, 1), (1, 0)):
        torch.manual_seed(torch_seed)
        fits.append(fit_quickly(two_columns(), seed=seed, max_steps=3)[0])
    moments = [encoding_of(flow).to_json()["columns"] for flow in fits]
    assert moments[0] == moments[1] != moments[2]  # those of the training rows
    assert torch.equal(weights_of(fits[0]), weights_of(fits[1]))
    assert not torch.equal(weights_of(fits[0]), weights_of(fits[2]))


@pytest.mark.parametrize("preset", [tiny(2), None], ids=["preset", "race"])
def test_the_random_state_and_the_rows_are_left_alone(preset: Preset | None):
    columns = two_columns() | {"b": np.arange(80) % 5}
    table = Table.from_columns(columns)
    before, state = table.values.copy(), torch.get_rng_state()
    _, report = fit_quickly(table, preset=preset, max_seconds=0.1)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(table.values, before)
    gaussian = fit_quickly(table, max_seconds=0.02)[1].baselines["gaussian"]
    assert report.baselines["gaussian"] == gaussian
