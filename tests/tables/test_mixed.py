"""Tables of any columns as a whole: what they are taken for, fitted, scored, drawn, and read again."""

from __future__ import annotations

import math
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import diffeo
from diffeo.encodings import Cells, Columns, Levels, Numbers
from diffeo.errors import ContextError, DataError
from diffeo.presets import Mixed
from diffeo.tables import Schema, Table, racing, sample_table, score_table

ROWS = 900


def people(rows: int = ROWS) -> dict[str, Any]:
    """Text, gaps, dates, spikes, a cap, a total, another unit, and what names the rows."""
    rng = np.random.default_rng(0)
    above, below = rng.integers(20, 60, rows), 10 * rng.integers(0, 9, rows)
    celsius = np.round(rng.normal(10, 3, rows), 1)
    pay = np.where(rng.random(rows) < 0.4, 0.0, rng.lognormal(3, 1, rows))
    start = date(2020, 1, 1)
    return {
        "id": [f"person {i}" for i in range(rows)],
        "sex": rng.choice(["F", "M"], rows).tolist(),
        "job": [None if r < 0.2 else ["clerk", "cook"][int(r > 0.6)] for r in rng.random(rows)],
        "above": above,
        "below": below,
        "total": above + below,
        "celsius": celsius,
        "fahrenheit": 1.8 * celsius + 32,
        "pay": pay,
        "born": [start + timedelta(days=int(d)) for d in rng.integers(0, 400, rows)],
        "score": [None if r < 0.1 else float(r) for r in rng.random(rows)],
        "member": rng.random(rows) < 0.3,
    }


@pytest.fixture(scope="module")
def fitted() -> tuple[diffeo.Flow, Any]:
    return diffeo.fit_table(people(), max_steps=60)


def test_what_columns_are_taken_for():
    schema = Schema.infer(Table.of(people()))
    kinds = {e.name: str(e.kind) for e in schema.entries}
    assert kinds == {
        "sex": "category",
        "job": "category",
        "above": "integer",
        "below": "lattice(10)",
        "total": "integer",
        "celsius": "lattice(0.1)",
        "fahrenheit": "lattice(0.18, 0.14)",
        "pay": "continuous",
        "born": "integer",
        "score": "continuous",
        "member": "category",
    }
    assert schema.mixed
    assert schema.left_out == ("column 'id' is left out: each row has its own text.",)
    gaps = {e.name: e.gaps for e in schema.entries if e.gaps}
    assert gaps == {name: sum(v is None for v in people()[name]) for name in ("job", "score")}
    assert next(e for e in schema.entries if e.name == "pay").atoms == (0.0,)


def test_columns_come_back_as_they_were(fitted):
    flow, report = fitted
    assert isinstance(flow.encoding, Cells)
    assert isinstance(flow.preset, Mixed)
    assert sorted(report.baselines) == ["flow", "independent"]
    table, drawn = Table.of(people()), sample_table(flow, 400, seed=1)
    assert drawn.names == table.names[1:]
    assert drawn.dtypes == table.dtypes[1:]
    np.testing.assert_array_equal(drawn.column("total"), drawn.column("above") + drawn.column("below"))
    np.testing.assert_allclose(drawn.column("fahrenheit"), 1.8 * drawn.column("celsius") + 32, rtol=1e-12)
    assert set(drawn.column("below").tolist()) <= set(range(0, 90, 10))
    pay, zeros = drawn.column("pay"), float(np.mean(people()["pay"] == 0))
    assert (pay >= 0).all()
    assert abs(np.mean(pay == 0) - zeros) < 0.1
    missing = drawn.column("job").null_count / 400
    assert abs(missing - 0.2) < 0.1


def test_a_file_gives_the_same_flow(fitted, tmp_path):
    flow, _ = fitted
    diffeo.save(flow, tmp_path / "m.safetensors")
    again = diffeo.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(score_table(again, people()).log_prob, score_table(flow, people()).log_prob)
    for a, b in zip(
        sample_table(again, 50, seed=3).to_pandas().values.tolist(),
        sample_table(flow, 50, seed=3).to_pandas().values.tolist(),
        strict=True,
    ):
        assert [str(v) for v in a] == [str(v) for v in b]


def test_scores_are_finite_and_unknown_levels_impossible(fitted):
    flow, _ = fitted
    table = people() | {"sex": ["X", *people()["sex"][1:]]}
    scores = score_table(flow, table).log_prob
    assert scores[0] == -math.inf
    assert np.isfinite(scores[1:]).all()
    gap = people() | {"sex": [None, *people()["sex"][1:]]}  # there was none: not known, so not asked
    assert np.isfinite(score_table(flow, gap).log_prob).all()


def test_any_columns_may_be_given(fitted):
    flow, _ = fitted
    drawn = sample_table(flow, 5, given={"sex": ["F", "M"], "above": [30, 40]}, seed=0)
    assert drawn.names[:2] == ("sex", "above")
    assert drawn.column("sex").to_pylist() == ["F"] * 5 + ["M"] * 5
    assert drawn.column("above").tolist() == [30] * 5 + [40] * 5
    with pytest.raises(DataError, match="this model has no column 'weight'"):
        sample_table(flow, 1, given={"weight": 3})
    with pytest.raises(DataError, match="'sex' cannot be what row 2 of the given values says"):
        sample_table(flow, 1, given={"sex": ["F", "X"]})


def test_columns_given_to_the_fit():
    flow, _ = diffeo.fit_table(people(), given=["sex"], max_steps=5)
    assert flow.encoding.given == ("sex",)
    with pytest.raises(ContextError, match="conditioned on sex"):
        sample_table(flow, 3)
    assert set(sample_table(flow, 3, given={"sex": "M"}).column("sex").to_pylist()) == {"M"}
    both = [score_table(flow, people() | {"sex": [s] * ROWS}).log_prob for s in ("F", "M")]
    assert np.isfinite(both).all()  # given, so it has no share in the likelihood


def test_rare_levels_share_a_cell():
    rng = np.random.default_rng(0)
    words = [*(["often"] * 300), *(f"rare {i}" for i in range(100)), *(f"rare {i}" for i in range(100))]
    table = {"word": rng.permutation(words).tolist(), "n": rng.normal(size=500)}
    schema = Schema.infer(Table.of(table))
    assert schema.entries[0].note == "100 rare levels share one cell"
    flow, _ = diffeo.fit_table(table, max_steps=5)
    word = flow.encoding.columns[0]
    assert isinstance(word, Levels)
    assert word.cells == 2
    drawn = sample_table(flow, 2000, seed=0).column("word").to_pylist()
    assert len(set(drawn)) > 50
    assert set(drawn) <= set(words)


def test_declared_codes_are_a_category():
    rng = np.random.default_rng(0)
    table = {"code": rng.choice([1, 5, 9], 300), "x": rng.normal(size=300)}
    flow, _ = diffeo.fit_table(table, columns={"code": "category"}, max_steps=3)
    assert isinstance(flow.encoding.columns[0], Levels)
    assert set(sample_table(flow, 200, seed=0).column("code").tolist()) <= {1, 5, 9}
    with pytest.raises(DataError, match="it is a category, not positive"):
        diffeo.fit_table({"w": ["a", "b"] * 50}, columns={"w": "positive"})


def test_tables_of_numbers_may_be_either():
    rng = np.random.default_rng(0)
    _, report = diffeo.fit_table(rng.normal(size=(400, 2)), max_steps=20)
    assert {"gaussian", "mixture"} < set(report.baselines)
    flow, _ = diffeo.fit_table(rng.normal(size=(400, 2)), preset=Mixed(2, hidden=8), max_steps=3)
    assert isinstance(flow.encoding, Cells)
    assert all(isinstance(c, Numbers) and not c.atoms for c in flow.encoding.columns)


def test_a_column_without_an_entry_and_one_that_counts():
    table = {"n": np.arange(50), "none": pa.nulls(50), "x": np.random.default_rng(0).normal(size=50)}
    schema = Schema.infer(Table.of(table))
    assert [e.name for e in schema.entries] == ["x"]
    assert "it counts the rows" in schema.left_out[0]
    assert "it holds nothing" in schema.left_out[1]
    flow, _ = diffeo.fit_table(table, max_steps=2)
    assert isinstance(flow.encoding, Cells | Columns)


@pytest.mark.parametrize(("of_mixed", "winner"), [(0.96, "Mixed"), (0.94, "Tabular")])
def test_answers_are_worth_a_twentieth_of_a_nat(of_mixed: float, winner: str, monkeypatch):
    scores = {"Tabular": 1.0, "Mixed": of_mixed}
    monkeypatch.setattr(racing, "mean_log_prob", lambda flow, rows: scores[type(flow.preset).__name__])
    flow, _ = diffeo.fit_table(np.random.default_rng(0).normal(size=(200, 2)), max_steps=10)
    assert type(flow.preset).__name__ == winner
