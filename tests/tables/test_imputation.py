"""Gaps filled with draws: what is there stays, and what is drawn has the law given the rest."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from law import P_YES, law_columns, law_rows

from diffeo.encodings import Cells
from diffeo.encodings.cell_kinds import Levels, Numbers
from diffeo.encodings.cells import Decided
from diffeo.encodings.kinds import Continuous
from diffeo.errors import ConfigError, DataError
from diffeo.presets import Mixed
from diffeo.tables import Table, impute, query
from diffeo.tables.tensors import to_rows, to_table


def holed(rows: int, share: float, seed: int = 0) -> tuple[Table, torch.Tensor]:
    """Rows of the law with entries taken out at random, and which."""
    values = law_rows(rows, seed)
    gone = torch.rand(values.shape, generator=torch.Generator().manual_seed(seed)) < share
    return to_table(law_columns(), torch.where(gone, torch.nan, values)), gone | values.isnan()


def test_what_is_there_stays_to_the_bit(law_flow):
    table, gone = holed(300, 0.3)
    table = table.beside(Table.from_columns({"id": [f"r{i}" for i in range(300)], "none": [None] * 300}))
    filled = impute(law_flow, table, 2, seed=0)
    assert len(filled) == 2
    for found in filled:
        assert found.names == table.names
        assert found.column("id") is table.column("id")
        assert found.column("none").null_count == 300
        values = to_rows(law_columns(), found).numpy()
        assert not np.isnan(values).any()
        before = to_rows(law_columns(), table).numpy()
        np.testing.assert_array_equal(values[~gone.numpy()], before[~gone.numpy()])
        assert found.dtypes == ("string", "bool", "int64", "float64", table.dtypes[4], "string", "null")
    first, second = (to_rows(law_columns(), found) for found in filled)
    assert not torch.equal(first, second)


def test_a_complete_table_comes_back_as_it_is(law_flow):
    table = to_table(law_columns(), law_rows(20, 1).nan_to_num(0.0))
    (found,) = impute(law_flow, table, seed=0)
    assert all(found.column(name) is table.column(name) for name in table.names)


def test_draws_have_the_law_given_the_rest(law_flow):
    rows = law_rows(9_000, 2)
    rows[:, 1] = torch.nan
    rows[:, 2:] = torch.nan
    (found,) = impute(law_flow, to_table(law_columns(), rows), seed=0)
    values = to_rows(law_columns(), found)
    for sort in range(3):
        some = values[rows[:, 0] == sort]
        assert abs(float(some[:, 1].mean()) - P_YES[sort]) < 0.06
    for flag in (0, 1):
        some = values[values[:, 1] == flag]
        numbers = some[some[:, 3] != 0, 3]
        assert abs(float(numbers.mean()) - 2 * flag) < 0.2
        assert abs(float((some[:, 4] == 1).double().mean()) - 0.25) < 0.05  # there is no gap among them


def test_rows_repeat_by_seed_and_patterns_do_not_matter(law_flow):
    table, _ = holed(50, 0.5)

    def drawn(seed: int) -> torch.Tensor:
        return to_rows(law_columns(), impute(law_flow, table, seed=seed)[0])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    few = to_rows(law_columns(), impute(law_flow, table, seed=1, batch_size=7)[0])
    assert not few.isnan().any()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None, 3], pa.int8()),
        pa.array([1.5, None, 3]).cast(pa.float32()),
        pa.array([1, None, 3]).cast(pa.decimal128(22, 2)),
        pa.array([1, None, 3], pa.date32()),
        pa.array([1, None, 3], pa.timestamp("s", "UTC")),
        pa.array([1, None, 3]).dictionary_encode(),
    ],
)
def test_columns_keep_their_types(column: pa.Array):
    for dtype in (str(column.type), "double"):
        timed = pa.types.is_temporal(column.type)
        if timed and dtype == "double":
            continue
        kind = Numbers("a", dtype, True, Continuous(), (), ((-5.0, 5.0), (-1.0, 1.0)), float(timed))
        flow = Mixed(1, hidden=8).build(Cells([kind]))
        table = Table.from_columns({"a": column})
        found = impute(flow, table, seed=3)[0].column("a")
        again = pa.array(found) if isinstance(found, np.ndarray) else found
        assert again.type == column.type
        assert again.null_count == 0
        assert again.to_pylist()[::2] == column.to_pylist()[::2]


def test_words_keep_their_levels_and_order():
    dtype = "dictionary<values=string, indices=int8, ordered=1>"
    kind = Levels("a", dtype, True, ("low", "high", "top"))
    column = pa.DictionaryArray.from_arrays(
        pa.array([1, None, 0] + [None] * 40, pa.int8()), pa.array(["own", "low"]), ordered=True
    )
    flow = Mixed(1, hidden=8).build(Cells([kind]))
    found = impute(flow, Table.from_columns({"a": column}), seed=0)[0].column("a")
    assert str(found.type) == dtype
    assert found[0].as_py() == "low"
    assert found[2].as_py() == "own"
    assert found.dictionary.to_pylist()[:2] == ["own", "low"]
    assert set(found.to_pylist()) == {"own", "low", "high", "top"}
    plain = impute(flow, Table.from_columns({"a": ["low", None]}), seed=0)[0].column("a")
    assert str(plain.type) == "string"


def test_errors_say_what_to_do(law_flow):
    with pytest.raises(ConfigError, match="ask for at least 1"):
        impute(law_flow, {"sort": [None]}, 0)
    with pytest.raises(DataError, match="no column 'sort'"):
        impute(law_flow, {"other": [1]})
    columns = Cells([Levels(n, "string", False, ("x", "y")) for n in ("a", "b")], given=["a"])
    flow = Mixed(2, hidden=8).build(columns)
    with pytest.raises(DataError, match="column 'a' is missing in row 2"):
        impute(flow, {"a": ["x", None], "b": [None, "x"]})
    with pytest.raises(DataError, match="no column 'a'"):
        impute(flow, {"b": [None, "x"]})
    assert impute(flow, {"a": ["x"], "b": [None]}, seed=0)[0].column("b").null_count == 0


def test_a_column_that_others_decide_is_computed():
    kinds = [Numbers(n, "double", True, Continuous(), (), ((-5.0, 5.0), (-1.0, 1.0))) for n in ("a", "b")]
    total = Decided("total", "double", 1, 1.0, {"a": 2.0, "b": 1.0})
    flow = Mixed(2, hidden=8).build(Cells(kinds, decided=[total]))
    table = Table.from_columns({"b": [0.1, None, 3.3], "total": [None, 4.0, None], "a": [0.3, 1.0, None]})
    (found,) = impute(flow, table, seed=0)
    assert found.column("total")[1] == 4.0
    assert found.column("total")[0] == pytest.approx(2 * 0.3 + 0.1 + 1, rel=1e-15)
    assert found.column("total")[2] == pytest.approx(2 * found.column("a")[2] + 3.3 + 1, rel=1e-15)
    answer = query(flow, given={"a": 2.0}, n=50, seed=0)
    assert answer.rows.names == ("total", "b")
    np.testing.assert_allclose(answer.rows.column("total"), answer.rows.column("b") + 5, rtol=1e-12)
    assert answer.mean("total").value == pytest.approx(answer.mean("b").value + 5)
    with pytest.raises(DataError, match="'total' is computed from a, b"):
        query(flow, given="total>3")


def test_a_value_that_the_model_cannot_hold_stays(law_flow):
    table = Table.from_columns({"sort": ["never seen", "x"], "flag": [None, None], "count": [9, 1]})
    (found,) = impute(law_flow, table, seed=0)
    assert found.column("sort").to_pylist() == ["never seen", "x"]
    assert found.column("count").tolist() == [9, 1]
    assert found.column("flag").dtype == bool
