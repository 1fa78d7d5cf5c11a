"""``report``: what it says of a model, in Python and by its command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from typer.testing import CliRunner

import diffeo
from diffeo.cli.app import app
from diffeo.errors import ConfigError, DataError
from diffeo.tables import Report, Table, fit_table, report
from diffeo.tables.likelihoods import calibration, calibrations, gap, nats, ranks, rarest
from diffeo.tables.scores import Scores


class Normals:
    """What a model of independent normal columns expects of each."""

    def __init__(self, *names: str):
        self.names = names

    def pits(self, table: Table, seed: int) -> np.ndarray:
        return stats.norm.cdf(np.stack([table.column(name) for name in self.names], 1))


def rows_of(n: int, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return Table.of({"x": x, "count": rng.poisson(3, n), "y": x + rng.normal(size=n), "same": np.full(n, 7)})


@pytest.fixture(scope="module")
def fitted():
    table = rows_of(600)
    flow, result = fit_table(table, max_steps=40)
    return flow, result, table


@pytest.fixture(scope="module")
def found(fitted) -> Report:
    flow, _, table = fitted
    return report(flow, table, columns=Normals("x", "y"))


# -- its figures ------------------------------------------------------------------------------------


def test_the_held_out_rows_are_those_of_the_fit(fitted, found: Report):
    _, result, _ = fitted
    assert found.comparison.rows == {"real": 540, "synthetic": 540, "test": 60}
    model, gaussian, mixture = found.nats
    assert model.mean == pytest.approx(result.baselines["flow"], abs=1e-6)
    assert gaussian.mean == pytest.approx(result.baselines["gaussian"], abs=0.05)  # other draws of noise
    assert gaussian.gain == pytest.approx(model.mean - gaussian.mean)
    assert (gaussian.name, mixture.name) == ("a Gaussian", "a mixture of Gaussians")
    assert found.gap is not None
    assert found.gap.held_out == pytest.approx(model.mean)
    assert found.notes == ()


def test_of_another_table_all_rows_count_as_held_out(fitted):
    flow, *_ = fitted
    other = report(flow, rows_of(600, seed=1))  # as many rows, and none that the fit has seen
    assert other.gap is None
    assert other.comparison.rows == {"real": 600, "synthetic": 600}
    assert all(row.held_out for row in other.rare)
    assert any("not known" in note for note in other.notes)
    assert len(other.nats) == 3


def test_rows_held_out_may_be_given(fitted):
    flow, _, table = fitted
    told: list[str] = []
    given = report(flow, table, test=rows_of(200, seed=2), rows=300, target="y", told=told.append)
    assert given.comparison.rows == {"real": 300, "synthetic": 300, "test": 200}
    assert given.comparison.efficacy is not None
    assert given.comparison.efficacy.target == "y"
    assert given.gap is not None
    assert not any(row.held_out for row in given.rare)
    assert told[:2] == ["reading", "scoring"]


def test_a_model_given_columns_draws_at_the_rows_of_the_table():
    table = rows_of(300)
    flow, _ = fit_table(table.drop(["same"]), given=["x"], max_steps=10)
    found = report(flow, table)
    assert [column.name for column in found.comparison.columns] == ["x", "count", "y"]
    assert found.comparison.columns[0].distance == 0
    assert found.schema[1][:2] == ("x", "given")


def test_a_weighted_model_is_held_against_weighted_rows():
    table = rows_of(400)
    table = Table.of(
        {**{name: table.column(name) for name in ("x", "y")}, "w": (table.column("x") > 0) + 0.0}
    )
    flow, _ = fit_table(table, weights="w", max_steps=10)
    found = report(flow, table)
    [x, _] = found.comparison.columns
    assert x.bars[0] > 0  # rows without weight are not among the real ones


def test_the_rarest_rows_come_with_the_columns_that_make_them_rare(found: Report):
    scores = [row.log_prob for row in found.rare]
    assert scores == sorted(scores)
    assert len(found.rare) == 10
    assert {name for row in found.rare for name in (r.column for r in row.reasons)} <= {"x", "count", "y"}


def normal(table: Table) -> np.ndarray:
    return stats.norm.logpdf(np.stack([table.column(name) for name in ("x", "y")], 1)).sum(1)


def test_a_reason_is_what_other_values_in_its_place_gain():
    x, y = np.full(50, 0.1), np.full(50, -0.2)
    x[7], y[30] = 9.0, 5.0
    odd = Table.of({"x": x, "y": y})
    scores = Scores(normal(odd), None, None)
    first, second = rarest(normal, odd, scores, x > 1, np.arange(50) + 100, seed=0, most=2)
    assert (first.row, first.held_out, first.quantile) == (108, True, None)
    assert [(reason.column, reason.value) for reason in first.reasons] == [("x", "9")]
    assert first.reasons[0].nats == pytest.approx(
        (9**2 - 0.1**2) / 2, abs=0.1
    )  # but for what the odd rows gain
    assert (second.row, second.held_out) == (131, False)
    assert [(reason.column, reason.value) for reason in second.reasons] == [("y", "5")]


def test_what_is_impossible_has_reasons_and_what_no_column_explains_has_none():
    def score(table: Table) -> np.ndarray:
        level = np.array(table.column("level").to_pylist(), dtype=object)
        return np.where(level == "never", -np.inf, -1.0)

    levels = pa.array(["never", None, *["often"] * 30])
    table = Table({"level": levels, "x": np.arange(32.0)})
    first, second = rarest(
        score, table, Scores(score(table), None, None), np.zeros(32, bool), np.arange(32), seed=0, most=2
    )
    assert [(reason.column, reason.value, reason.nats) for reason in first.reasons] == [
        ("level", "never", math.inf)
    ]
    assert second.reasons == ()


def test_calibration_is_the_distance_of_pits_from_uniform():
    pits = np.random.default_rng(0).beta(1.3, 1, 400)
    found = calibration("x", pits)
    expected = stats.kstest(pits, "uniform")
    assert found.distance == pytest.approx(expected.statistic)
    assert found.distance > found.chance
    assert sum(found.shares) == pytest.approx(1)
    assert stats.kstwobign.sf(found.chance * 400**0.5) == pytest.approx(0.05, abs=0.001)
    bad, good = calibrations(Normals("x", "y"), Table.of({"x": rows_of(400).column("x"), "y": pits}), 0)
    assert (good.name, bad.name) == ("x", "y")
    assert good.distance < good.chance


def test_scores_are_ranked_among_those_of_draws():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=300), rng.normal(size=700)
    found = ranks(one, other)
    assert found.distance == pytest.approx(stats.ks_2samp(one, other).statistic)
    assert found.chance == pytest.approx(1.358 * math.sqrt(1 / 300 + 1 / 700), rel=1e-3)
    assert ranks(one - 3, other).shares[0] > 0.9


def test_nats_and_gap_are_means_with_their_errors():
    rng = np.random.default_rng(0)
    model = rng.normal(size=200)
    plain = model - 1 + 0.1 * rng.normal(size=200)
    lost = np.append(model, -np.inf)
    found = nats({"model": lost, "plain": np.append(plain, 0.0)})
    assert found[0].mean == pytest.approx(model.mean())
    assert found[0].error == pytest.approx(stats.sem(model))
    assert found[0].lost == 1
    assert found[1].gain == pytest.approx((model - plain).mean())
    assert found[1].gain_error == pytest.approx(stats.sem(model - plain))
    known = gap(model + 1, lost)
    assert known.gap == pytest.approx(1)
    assert known.error == pytest.approx(math.sqrt(2) * stats.sem(model))


def test_the_figures_are_written_as_json(found: Report, tmp_path: Path):
    found.write(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert found.comparison.detection is not None
    assert read["comparison"]["detection"]["score"] == found.comparison.detection.score
    assert read["nats"][0]["mean"] == found.nats[0].mean
    assert len(read["rare"]) == 10
    assert set(read) == set(found.to_json())


def test_what_is_not_finite_is_null_in_json(found: Report, tmp_path: Path):
    rare = replace(found.rare[0], log_prob=-math.inf)
    replace(found, rare=(rare,)).write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["rare"][0]["log_prob"] is None


def test_it_is_the_same_by_seed(fitted):
    flow, _, table = fitted
    torn = [report(flow, table, rows=200, seed=seed).to_json() for seed in (3, 3, 4)]
    assert torn[0] == torn[1] != torn[2]


def test_what_cannot_be_reported(fitted, tmp_path: Path):
    flow, _, table = fitted
    with pytest.raises(ConfigError, match="rows=0"):
        report(flow, table, rows=0)
    with pytest.raises(DataError, match="no column count in this table|'count'"):
        report(flow, table.drop(["count"]))
    with pytest.raises(DataError, match="no column 'nothing' in this table"):
        report(
            flow,
            table,
            target="nothing",
            told=lambda stage: pytest.fail(stage) if stage != "reading" else None,
        )
    with pytest.raises(ConfigError, match="not fitted to a table"):
        report(diffeo.presets.NSF(features=2).build(), table)


# -- the command ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["report.html", "report.json"])
def test_the_command_writes_what_python_does(fitted, found: Report, tmp_path: Path, name: str):
    flow, _, table = fitted
    diffeo.save(flow, tmp_path / "model.safetensors")
    table.write(tmp_path / "table.parquet")
    arguments = ["report", str(tmp_path / "model.safetensors"), str(tmp_path / "table.parquet")]
    result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / name), "--rows", "200", "--seed", "3"])
    assert result.exit_code == 0, result.output
    assert "C2ST" in result.output
    expected = report(flow, table, rows=200, seed=3)
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert text == expected.html() if name.endswith("html") else json.loads(text) == expected.to_json()


def test_the_command_refuses_before_it_works(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    result = CliRunner().invoke(app, ["report", "model", "table", "-o", str(tmp_path / "report.txt")])
    assert result.exit_code == 2
    assert "name it .html or .json" in result.output
    result = CliRunner().invoke(app, ["report", "model", "table", "-o", str(tmp_path / "no" / "report.html")])
    assert result.exit_code == 2
    assert "does not exist" in result.output
