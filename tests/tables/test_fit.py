"""``fit_table``: from files and tables of every make to samples that look like their rows."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import diffeo
from diffeo.contexts import Classes
from diffeo.encodings import Columns
from diffeo.errors import ConfigError, DataError
from diffeo.presets import MAF, Preset, Tabular
from diffeo.tables import Table
from diffeo.train import Progress, TensorRows

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
    quantiles = encoding_of(again).quantile(scores)
    assert 0 <= quantiles.min() < 0.3
    assert 0.7 < quantiles.max() <= 1


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


def test_weights_count_and_are_no_column_of_the_flow():
    rng = np.random.default_rng(0)
    left = np.arange(1000) % 2 == 0
    columns = {"x": np.where(left, -5, 5) + rng.normal(size=1000), "w": np.where(left, 9.0, 1.0)}
    preset = Tabular(1, layers=1, hidden=8, marginal=16)
    flow, _ = diffeo.fit_table(columns, weights="w", preset=preset, max_seconds=1)
    assert encoding_of(flow).names == ("x",)
    assert encoding_of(flow).weights == "w"
    assert abs((flow.sample(4000) < 0).double().mean() - 0.9) < 0.05


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
        ({"given": ["a", "b"]}, DataError, "no column varies"),
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


class Held:
    """Which rows a run trains on, by their first column."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.rows: list[list[float]] = []
        fit = diffeo.tables.fit.fit_rows

        def spy(flow: diffeo.Flow, train: TensorRows, *rest: Any):
            self.rows.append(train.x[:, 0].tolist())
            return fit(flow, train, *rest)

        monkeypatch.setattr("diffeo.tables.fit.fit_rows", spy)


def start_weights(flow: diffeo.Flow) -> Sequence[torch.Tensor]:
    return [p.detach().clone() for p in flow.parameters()]


def test_the_seed_decides_split_and_weights(monkeypatch: pytest.MonkeyPatch):
    held, built = Held(monkeypatch), []
    build = Tabular.build

    def spy(preset: Tabular, encoding: Any = None) -> diffeo.Flow:
        built.append(build(preset, encoding))
        built[-1] = torch.cat([p.detach().flatten().clone() for p in built[-1].parameters()])
        return build(preset, encoding)

    monkeypatch.setattr(Tabular, "build", spy)
    for seed, torch_seed in ((0, 0), (0, 1), (1, 0)):
        torch.manual_seed(torch_seed)
        fit_quickly(two_columns(), seed=seed, max_seconds=0.02)
    assert held.rows[0] == held.rows[1] != held.rows[2]
    assert torch.equal(built[0], built[1])
    assert not torch.equal(built[0], built[2])


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
