"""Columns that others decide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diffeo.tables import Schema, Table, fit_table
from diffeo.tables.relations import relations

RNG = np.random.default_rng(5)
A, B, C = RNG.normal(size=(3, 400))


def found(**columns: np.ndarray) -> dict[str, str]:
    table = Table.from_columns(columns)
    eps = np.array([2.2e-16 if d == "float64" else 1.2e-7 for d in table.dtypes])
    return {r.column: str(r) for r in relations(table.names, table.values, eps)}


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"a": A, "b": A}, {"b": "'a'"}),
        ({"a": A, "b": 2 * A + 1}, {"b": "2 'a' + 1"}),
        ({"a": A, "b": -A}, {"b": "-'a'"}),
        ({"a": A, "b": B, "c": A + B}, {"c": "'a' + 'b'"}),
        ({"c": A + B, "a": A, "b": B}, {"b": "'c' - 'a'"}),
        ({"a": A, "b": A, "c": 3 - A}, {"b": "'a'", "c": "-'a' + 3"}),
        ({"a": 1e6 + A, "b": 1e-6 * (1e6 + A)}, {"b": "1e-06 'a'"}),
        ({"a": A, "b": A.astype(np.float32)}, {"b": "'a'"}),
        ({"a": (1e4 + A).astype(np.float32), "b": (2e4 + 2 * A).astype(np.float32)}, {"b": "2 'a'"}),
        ({"a": A, "one": np.ones(400), "b": B}, {}),
        ({"a": A, "b": A + 1e-4 * B}, {}),
        ({"a": A, "b": A**3}, {}),
        ({"a": A, "b": np.where(np.arange(400) == 7, B, A)}, {}),  # in all rows but one
    ],
)
def test_what_is_decided(columns, says):
    assert found(**columns) == says


def test_one_row_that_disobeys_is_seen_among_many():
    a = RNG.normal(size=100_000)
    b = 2 * a
    assert found(a=a, b=b) == {"b": "2 'a'"}
    b[77_777] += 1
    assert found(a=a, b=b) == {}


def test_indicators_sum_to_one():
    kind = RNG.integers(0, 3, 400)
    columns = {f"k{i}": (kind == i).astype(int) for i in range(3)}
    assert found(**columns) == {"k2": "-'k0' - 'k1' + 1"}


def test_long_sums_are_cut():
    x = RNG.normal(size=(400, 20))
    said = found(**{f"x{i}": x[:, i] for i in range(20)}, total=x.sum(1))["total"]
    assert said == " + ".join(f"'x{i}'" for i in range(8)) + " + 12 more terms"


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_few_rows_decide_nothing(rows):
    assert relations(["a", "b", "c"], RNG.normal(size=(rows, 3))) == []
    assert relations([], np.empty((rows, 0))) == []


def test_the_schema_says_so_and_knows_what_is_given():
    table = Table.from_columns(
        {"a": A, "b": B, "c": A + B, "n": np.arange(400) % 7, "m": np.arange(400) % 7 * 2}
    )
    doubts = {e.name: e.doubt for e in Schema.infer(table).entries}
    assert doubts["c"] == (
        "is 'a' + 'b' in every row: there is no density, and its nats say nothing; leave one out"
    )
    assert doubts["m"] == "is 2 'n' in every row: draws only come near that; leave one out"
    assert doubts["a"] == doubts["b"] == doubts["n"] == ""
    given = Schema.infer(table.select(["b", "a"]), given=["a"])
    assert given.names == ("b",)
    assert given.doubts(300) == []
    doubled = Table.from_columns({"b": 2 * A, "a": A})
    assert "is 2 'a' in every row" in Schema.infer(doubled, given=["a"]).doubts(300)[0]


def test_a_fit_to_a_plane_is_doubted():
    _, report = fit_table(Table.from_columns({"a": A, "b": 2 * A + 1}), validation=0.2, max_steps=60)
    assert report.doubts[0].startswith("column 'b': is 2 'a' + 1 in every row: there is no density")
    ahead = replace(report, baselines={"flow": 1.0, "gaussian": 0.0}, held_out=80)
    assert (
        ahead.verdict == "The flow beats the better of the two by 1.000 nats per row, but there are doubts."
    )
    assert replace(ahead, doubts=()).verdict.endswith("by 1.000 nats per row.")


def test_fewer_rows_than_columns_have_no_density():
    few = Schema.infer(Table.of(RNG.normal(size=(60, 50))))
    assert few.doubts(54) == []
    assert few.doubts(50) == [
        "50 training rows lie on a plane within 50 columns: so few have no density; leave columns out."
    ]
