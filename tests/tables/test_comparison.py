"""``compare``: its figures by hand and by other libraries, and what it makes of tables of every kind."""

from __future__ import annotations

import datetime
import json
import math
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from diffeo.errors import DataError
from diffeo.tables import Comparison, Table, compare
from diffeo.tables.boosting import _auc, _class_auc, _explained
from diffeo.tables.comparison import ColumnShape, PairTrend
from diffeo.tables.sides import sides


def mixed(rows: int, seed: int, shift: float = 0.0) -> Table:
    """A table with a column of every kind that goes with another."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    kind = np.array(["low", "middle", "high"])[np.digitize(x + rng.normal(size=rows) / 2, [-0.5, 0.5])]
    days = (rng.poisson(200, rows)).astype("datetime64[D]")
    return Table.of(
        {
            "x": x,
            "y": x + shift + rng.normal(size=rows),
            "kind": pa.array(kind.tolist()).dictionary_encode(),
            "gaps": pa.array(np.where(rng.random(rows) < 0.2, None, x**2).tolist(), pa.float64()),
            "day": pa.array(days),
            "flag": x > rng.normal(size=rows),
        }
    )


def shape(found: Comparison, name: str) -> ColumnShape:
    return next(column for column in found.columns if column.name == name)


def pair(found: Comparison, *names: str) -> PairTrend:
    return next(p for p in found.pairs if {p.first, p.second} == set(names))


def of(real: dict[str, Any], synthetic: dict[str, Any], **options: Any) -> Comparison:
    return compare(Table.of(real), Table.of(synthetic), **options)


# -- columns ----------------------------------------------------------------------------------------


def test_numbers_are_as_far_apart_as_their_distribution_functions():
    found = shape(of({"a": [1.5, 2.0, 3.0, 4.0, 10.0]}, {"a": [2.0, 2.5, 3.0, 30.0]}), "a")
    # at 10: 5 of 5 real entries are no higher, and 3 of 4 synthetic ones
    assert found.distance == pytest.approx(0.25)
    assert (found.kind, found.held_out) == ("number", None)


def test_categories_are_as_far_apart_as_half_their_shares_differ():
    real = {"a": ["x"] * 6 + ["y"] * 3 + ["z"]}
    found = shape(of(real, {"a": ["x"] * 2 + ["w"] * 2}, test={"a": ["x", "y"]}), "a")
    # .6, .3, .1, 0 beside .5, 0, 0, .5; and beside .5, .5, 0, 0
    assert found.distance == pytest.approx((0.1 + 0.3 + 0.1 + 0.5) / 2)
    assert found.held_out == pytest.approx((0.1 + 0.2 + 0.1) / 2)
    assert found.bars == ("x", "y", "z", "w")
    assert found.shares == pytest.approx((0.6, 0.3, 0.1, 0))


def test_missing_entries_are_counted_apart():
    real = {"a": pa.array([1.5, None, 2.5, None]), "b": pa.array(["u", None, "u", "v"])}
    other = {"a": pa.array([1.5, 2.5, None, None, None]), "b": pa.array(["u", "v", "u", "u", None])}
    found = of(real, other)
    a, b = found.columns
    assert (a.distance, a.missing, a.synthetic_missing) == pytest.approx((0, 0.5, 0.6))
    assert (b.distance, b.missing, b.synthetic_missing) == pytest.approx((3 / 4 - 2 / 3, 0.25, 0.2))


@pytest.mark.parametrize(
    "real, other, distance", [([None, None], [1.5, 2.5], 1), ([None] * 2, [None] * 3, 0), ([1.5], [None], 1)]
)
def test_a_column_without_entries(real: list[Any], other: list[Any], distance: float):
    columns = [
        {"a": pa.array(values, pa.float64()), "b": np.arange(len(values)) + 0.5} for values in (real, other)
    ]
    found = of(*columns)
    assert shape(found, "a").distance == distance
    json.dumps(found.to_json(), allow_nan=False)


def test_bars_hold_all_entries_and_a_heap_stands_apart():
    rng = np.random.default_rng(0)
    real, other = rng.lognormal(size=500), rng.lognormal(size=400)
    real[:200], other[:100] = 0, 0
    found = shape(of({"a": real}, {"a": other}), "a")
    assert (found.heap, found.heap_share, found.synthetic_heap_share) == ("0", 0.4, 0.25)
    assert sum(found.shares) + found.heap_share == pytest.approx(1)
    assert sum(found.synthetic_shares) + found.synthetic_heap_share == pytest.approx(1)
    assert len(found.bars) == len(found.shares) + 1


def test_bars_of_whole_numbers_have_as_many_numbers_each():
    ages = np.arange(17, 91).repeat(3)
    found = shape(of({"age": ages}, {"age": ages}), "age")
    widths = {high - low for low, high in pairwise(found.bars)}
    assert widths == {3}
    assert found.ends == ("17", "90")


# -- pairs ------------------------------------------------------------------------------------------


def test_numbers_go_together_as_their_correlations_do():
    rng = np.random.default_rng(1)
    tables = []
    for rows, slope in ((300, 1.0), (200, -0.3)):
        x = rng.normal(size=rows) + 1e6  # an offset that a sum of squares would drown in
        y = slope * x + rng.normal(size=rows)
        gone = rng.random((2, rows)) < 0.2
        tables.append([np.where(gone[0], np.nan, x), np.where(gone[1], np.nan, y)])
    (a, b), (c, d) = tables
    r, s = (np.corrcoef(u[k := ~np.isnan(u + v)], v[k])[0, 1] for u, v in ((a, b), (c, d)))
    found = of({"x": a, "y": b}, {"x": c, "y": d}).pairs[0]
    assert found.correlation == pytest.approx(r, abs=1e-9)
    assert found.synthetic_correlation == pytest.approx(s, abs=1e-9)
    assert found.similarity == pytest.approx(1 - abs(r - s) / 2, abs=1e-9)


def test_categories_go_together_as_their_table_of_counts_does():
    real = {"a": pa.array(["x", "x", "y", None]), "b": pa.array(["u", "v", "u", "u"])}
    other = {"a": pa.array(["x", "y", "y", "y", None]), "b": pa.array(["u", "u", "u", "w", "u"])}
    # cells xu, xv, yu, -u, yw: 1/4, 1/4, 1/4, 1/4, 0 beside 1/5, 0, 2/5, 1/5, 1/5
    found = of(real, other).pairs[0]
    assert found.similarity == pytest.approx(1 - (0.05 + 0.25 + 0.15 + 0.05 + 0.2) / 2)
    assert (found.correlation, found.held_out) == (None, None)


def test_a_number_beside_a_category_is_taken_in_ten_bins_of_the_real_range():
    real = {"n": np.array([0.0, 0.5, 9.5, 10.0]), "c": ["u", "u", "v", "v"]}
    other = {"n": np.array([-5.0, 0.99, 1.0, 40.0]), "c": ["u", "u", "u", "v"]}
    # bins 0, 0, 9, 9 beside 0, 0, 1, 9: cells 0u, 9v, 1u are 1/2, 1/2, 0 beside 1/2, 1/4, 1/4
    assert of(real, other).pairs[0].similarity == pytest.approx(0.75)


def test_what_does_not_vary_has_no_correlation():
    x = np.linspace(0.1, 1, 20)
    assert of({"x": x, "y": np.full(20, 0.5)}, {"x": x, "y": x}).pairs == ()
    lost = of({"x": x, "y": x}, {"x": x, "y": np.full(20, 0.5)}).pairs[0]
    assert (lost.correlation, lost.synthetic_correlation) == (pytest.approx(1), None)
    assert lost.similarity == pytest.approx(0.5)  # a trend of 1 is now none


def test_the_worst_pair_is_the_one_that_chance_explains_least():
    real, test = mixed(2000, 0), mixed(1000, 1)
    drawn = mixed(2000, 2).to_pandas()
    drawn["y"] = np.random.default_rng(0).permutation(drawn["y"])
    found = compare(real, drawn, test=test)
    assert "y" in (found.pairs[0].first, found.pairs[0].second)
    assert found.pairs[0].shortfall > 0.1
    # x and y goes from sqrt(1/2) to 0
    assert pair(found, "x", "y").similarity == pytest.approx(1 - math.sqrt(0.5) / 2, abs=0.03)
    assert found.trend == pytest.approx(np.mean([p.similarity for p in found.pairs]))


# -- told apart, and taught -------------------------------------------------------------------------


def test_rows_of_one_law_are_not_told_apart():
    found = compare(mixed(1500, 0), mixed(1500, 1)).detection
    assert found is not None
    assert abs(found.auc - 0.5) < 0.04
    assert found.score == pytest.approx(1 - (2 * max(found.auc, 0.5) - 1))
    assert 0 < found.error < 0.03


def test_the_column_that_gives_it_away_is_named():
    found = compare(mixed(800, 0), mixed(1000, 1, shift=1.5)).detection
    assert found is not None
    assert found.rows == 800
    assert found.auc > 0.75
    assert found.tells[0].name == "y"
    assert len(found.tells) == 6
    assert found.tells[0].loss > 5 * found.tells[0].error > 0


def test_what_gives_it_away_may_be_a_gap():
    real, drawn = mixed(600, 0), mixed(600, 1).to_pandas()
    drawn["gaps"] = drawn["gaps"].fillna(0.1)
    found = compare(real, drawn)
    assert found.detection is not None
    assert found.detection.tells[0].name == "gaps"
    assert shape(found, "gaps").synthetic_missing == 0


def test_text_that_hardly_repeats_does_not_tell():
    rng = np.random.default_rng(0)
    tables = [
        Table.of({"x": rng.normal(size=600), "title": [f"{i:x}" for i in rng.integers(10**6, size=600)]})
        for _ in range(2)
    ]
    found = compare(*tables)
    assert found.detection is not None
    assert abs(found.detection.auc - 0.5) < 0.06
    assert shape(found, "title").distance > 0.9


def test_a_column_of_gaps_and_one_entry_is_learned_from():
    """Of five folds, one has no entry to learn from."""
    entry = np.where(np.arange(40) == 3, 1.5, np.nan)
    tables = [
        Table.of({"x": np.random.default_rng(i).normal(size=40), "one": entry, "none": pa.nulls(40)})
        for i in range(2)
    ]
    found = compare(*tables, target="x")
    assert found.detection is not None
    assert found.efficacy is None  # of 40 rows 8 are too few to test
    assert {tell.name for tell in found.detection.tells} == {"x", "one", "none"}


def test_few_rows_tell_nothing():
    found = of({"a": [1.5, 2.5], "b": ["x", "y"]}, {"a": [1.5], "b": ["x"]})
    assert found.detection is None
    assert found.efficacy is None
    assert "C2ST" not in str(found)


def test_synthetic_rows_teach_as_much_as_they_hold():
    real, test = mixed(1000, 0), mixed(600, 1)
    good = compare(real, mixed(1000, 2), test=test, target="kind").efficacy
    shuffled = mixed(1000, 3).to_pandas()
    shuffled["kind"] = np.random.default_rng(0).permutation(shuffled["kind"].astype(str))
    bad = compare(real, shuffled, test=test, target="kind").efficacy
    assert good is not None
    assert bad is not None
    assert (good.measure, good.target, good.rows, good.tested) == ("AUC", "kind", 1000, 600)
    assert good.real == bad.real > 0.8
    assert abs(good.synthetic - good.real) < 4 * good.gap_error + 0.01
    assert abs(bad.synthetic - 0.5) < 0.06


def test_a_number_is_taught_too():
    found = compare(mixed(1000, 0), mixed(1000, 2), test=mixed(600, 1), target="y").efficacy
    assert found is not None
    assert found.measure == "R2"
    assert 0.2 < found.synthetic < 0.5  # x explains half of y at the most
    assert abs(found.synthetic - found.real) < 0.1


def test_the_target_is_the_last_category_and_the_test_rows_are_said():
    found = compare(mixed(200, 0), mixed(200, 1))
    assert found.efficacy is not None
    assert found.efficacy.target == "flag"
    assert "No test rows were given" in found.notes[0]
    numbers = Table.of({"a": np.arange(100) / 7, "b": np.arange(100) ** 2 / 3})
    found = compare(numbers, numbers, test=numbers)
    assert found.efficacy is not None
    assert found.efficacy.target == "b"
    assert found.notes == ()


def test_the_areas_are_those_of_scikit_learn():
    from sklearn.metrics import r2_score, roc_auc_score

    rng = np.random.default_rng(0)
    y = rng.integers(4, size=300)
    scores = np.zeros((300, 20))
    scores[:, :4] = rng.random((300, 4)).round(1) + 0.5 * np.eye(4)[y]
    scores[:, :4] /= scores[:, :4].sum(1, keepdims=True)
    expected = roc_auc_score(y, scores[:, :4], multi_class="ovr", average="weighted")
    assert _class_auc(scores, y) == pytest.approx(expected)
    assert _auc(scores[:, 1], y == 1) == pytest.approx(roc_auc_score(y == 1, scores[:, 1]))
    assert _explained(scores[:, 0], y) == pytest.approx(r2_score(y, scores[:, 0]))


# -- copies -----------------------------------------------------------------------------------------


def test_copies_are_rows_that_are_equal_in_every_column():
    real = {"a": [0.0, 1.5, np.nan, 2.5], "b": pa.array(["x", None, "y", "y"])}
    drawn = {"a": [-0.0, 1.5, np.nan, 2.5, 2.5], "b": pa.array(["x", None, "y", "x", None])}
    found = of(real, drawn, test={"a": [0.0, 9.5], "b": ["x", "x"]}).copies
    assert (found.rows, found.share, found.held_out) == (3, 0.6, 0.5)


# -- kinds ------------------------------------------------------------------------------------------


def test_one_value_may_be_stored_in_many_ways():
    real = {
        "level": pa.array(["u", "v", None, "u"]).dictionary_encode(),
        "code": np.array([1, 2, 2, 1], np.int8),
        "price": pa.array([Decimal("1.50"), None, Decimal("2.25"), Decimal("1.50")]),
        "when": pa.array([datetime.datetime(2020, 1, day) for day in (1, 2, 3, 4)], pa.timestamp("us")),
        "flag": np.array([True, False, True, True]),
    }
    other = {
        "level": pa.array(["u", "v", None, "u"]),
        "code": np.array([1.0, 2.0, 2.0, 1.0]),
        "price": np.array([1.5, np.nan, 2.25, 1.5]),
        "when": pa.array([datetime.date(2020, 1, day) for day in (1, 2, 3, 4)]),
        "flag": pa.array([True, False, True, True]),
    }
    found = of(real, other)
    assert [column.distance for column in found.columns] == [0] * 5
    assert found.copies.share == 1
    assert shape(found, "code").bars == ("1", "2")
    assert shape(found, "when").ends == ("2020-01-01 00:00:00", "2020-01-04 00:00:00")
    assert shape(found, "flag").bars == ("true", "false")


def test_numbers_of_few_values_are_categories_in_their_order():
    real = {"grade": np.array([3, 1, 3, 2, 3, 10, 1, 2, 3] * 12), "n": np.arange(108)}
    grade, n = sides(Table.of(real), Table.of({"grade": [1, 4], "n": [5, 7]}))
    assert grade.levels == ("1", "2", "3", "4", "10")
    assert n.levels is None


def test_text_beside_numbers_is_text():
    found = of({"a": pa.array(["1", "2", "1", "x"])}, {"a": np.array([1, 1, 2, 2])})
    assert found.columns[0].kind == "category"
    assert found.columns[0].distance == pytest.approx(0.25)


def test_columns_that_not_all_tables_have_are_named():
    x = np.arange(30) / 3
    found = of({"a": x, "id": x}, {"a": x, "extra": x})
    assert [column.name for column in found.columns] == ["a"]
    assert "'id', 'extra'" in found.notes[0]
    assert found.trend is None


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e6, 1e300])
def test_figures_do_not_depend_on_the_unit(scale: float):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 100)), rng.normal(size=(2, 90))
    x[1] += x[0]
    tables = [{"a": scale * t[0], "b": scale * t[1]} for t in (x, y)]
    plain = [{"a": t[0], "b": t[1]} for t in (x, y)]
    found, expected = of(*tables), of(*plain)
    assert found.shape == pytest.approx(expected.shape)
    assert found.trend == pytest.approx(expected.trend)


def test_draws_that_are_not_finite_have_figures():
    x = np.random.default_rng(0).normal(size=60)
    drawn = Table({"a": np.where(np.arange(60) % 5, x, np.inf), "b": x})
    found = compare(Table({"a": x, "b": x + x**2}), drawn)
    assert shape(found, "a").distance == pytest.approx(12 / 60, abs=0.05)
    assert sum(shape(found, "a").synthetic_shares) == pytest.approx(1)
    json.dumps(found.to_json(), allow_nan=False)


def test_a_seed_gives_the_same_figures():
    tables = mixed(300, 0), mixed(300, 1)
    first, again, other = (compare(*tables, seed=seed).to_json() for seed in (0, 0, 1))
    assert first == again
    assert first["detection"] != other["detection"]
    assert first["columns"] == other["columns"]
    text = json.dumps(first, allow_nan=False)
    assert json.loads(text)["detection"]["score"] == first["detection"]["score"]


def test_it_says_its_figures_in_a_few_lines():
    found = compare(mixed(300, 0), mixed(300, 1), test=mixed(100, 2))
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines] == ["columns", "pairs", "C2ST", "target", "copies"]
    assert "'flag'" in lines[3]


def test_one_column_and_one_row():
    found = of({"a": [1.5]}, {"a": [2.5]})
    assert found.columns[0].distance == 1
    assert (found.pairs, found.trend, found.efficacy) == ((), None, None)


@pytest.mark.parametrize(
    "real, other, options, words",
    [
        ({"a": [1.5]}, {"b": [1.5]}, {}, "no column in common"),
        ({"a": [1.5], "b": [1.5]}, {"a": [1.5]}, {"target": "b"}, "the target 'b' is not in every table"),
        ({"a": [1.5], "b": [1.5]}, {"a": [1.5]}, {"target": "c"}, "no column 'c' in this table"),
    ],
)
def test_what_cannot_be_compared(real: Any, other: Any, options: Any, words: str):
    with pytest.raises(DataError, match=words):
        of(real, other, **options)


def test_a_table_without_rows():
    with pytest.raises(DataError, match="without rows"):
        compare(Table({"a": np.ones(2)}), Table({"a": np.ones(0)}))
