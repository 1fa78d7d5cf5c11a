"""Columns of mixed rows to numbers and back: every type comes back as it was."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
import torch

from diffeo.encodings import Cells
from diffeo.encodings.cell_kinds import CellKind, Levels, Numbers
from diffeo.encodings.kinds import Continuous
from diffeo.errors import DataError
from diffeo.tables import Table
from diffeo.tables.cell_columns import as_cells
from diffeo.tables.tensors import to_rows, to_table

LINE = ((-1e9, 1e9), (-3.0, 3.0))
DAY = datetime.date(2020, 1, 2)
NOON = datetime.datetime(2020, 1, 2, 12)


def levels(name: str, dtype: str, *of: str | int | float | bool) -> Levels:
    return Levels(name, dtype, True, of)


def numbers(name: str, dtype: str, gaps: bool = True) -> Numbers:
    return Numbers(name, dtype, gaps, Continuous(), (), LINE)


COLUMNS: list[tuple[CellKind, pa.Array, list[float]]] = [
    (levels("a", "string", "F", "M"), pa.array(["M", None, "F"]), [1, np.nan, 0]),
    (levels("a", "large_string", "F", "M"), pa.array(["M", "M", "F"], pa.large_string()), [1, 1, 0]),
    (
        levels("a", "dictionary<values=string, indices=int8, ordered=1>", "low", "high"),
        pa.DictionaryArray.from_arrays(
            pa.array([1, None, 0], pa.int8()), pa.array(["low", "high"]), ordered=True
        ),
        [1, np.nan, 0],
    ),
    (
        levels("a", "dictionary<values=int64, indices=int32, ordered=0>", 10, 20),
        pa.array([20, None, 10]).dictionary_encode(),
        [1, np.nan, 0],
    ),
    (levels("a", "int64", 10, 20), pa.array([20, None, 10]), [1, np.nan, 0]),
    (levels("a", "bool", False, True), pa.array([True, None, False]), [1, np.nan, 0]),
    (levels("a", "date32[day]", 18263, 18264), pa.array([None, DAY, DAY]), [np.nan, 0, 0]),
    (numbers("a", "double"), pa.array([1.5, None, -2.0]), [1.5, np.nan, -2]),
    (numbers("a", "int16"), pa.array([1, None, -2], pa.int16()), [1, np.nan, -2]),
    (numbers("a", "date32[day]"), pa.array([DAY, None, DAY]), [18263, np.nan, 18263]),
    (
        numbers("a", "timestamp[ms, tz=Europe/Berlin]"),
        pa.array([NOON, None, NOON], pa.timestamp("ms", "Europe/Berlin")),
        [1577966400000, np.nan, 1577966400000],
    ),
    (
        numbers("a", "decimal128(5, 2)"),
        pa.array([Decimal("1.25"), None, Decimal("2.00")], pa.decimal128(5, 2)),
        [1.25, np.nan, 2],
    ),
]


@pytest.mark.parametrize(("kind", "column", "wanted"), COLUMNS, ids=[c[0].dtype for c in COLUMNS])
def test_a_column_comes_back_as_it_was(kind: CellKind, column: pa.Array, wanted: list[float]):
    encoding, table = Cells([kind]), Table.from_columns({"a": column})
    rows = to_rows(encoding, table)
    assert rows.dtype == torch.float64
    assert as_cells(kind, Table.from_columns({"a": column.drop_null()}).column("a")).dtype == np.float64
    np.testing.assert_array_equal(rows[:, 0].numpy(), wanted)
    back = to_table(encoding, rows).column("a")
    assert back.type == column.type
    assert back.to_pylist() == column.to_pylist()


@pytest.mark.parametrize("dtype", ["int8", "float32", "bool", "uint64"])
@pytest.mark.parametrize("category", [True, False])
def test_complete_numbers_come_back_in_numpys_type(dtype: str, category: bool):
    column = np.array([1, 0, 1]).astype(dtype)
    kind = levels("a", dtype, 0, 1) if category else numbers("a", dtype)
    back = to_table(Cells([kind]), to_rows(Cells([kind]), Table({"a": column}))).column("a")
    assert isinstance(back, np.ndarray)
    assert back.dtype == dtype
    assert back.tolist() == column.tolist()


def test_a_number_and_its_text_are_one_level():
    words, whole, truth = (
        levels("a", "string", "1", "2", "A"),
        levels("a", "int64", 1, 2),
        levels("a", "bool", False, True),
    )
    for kind, column, wanted in (
        (words, [1, 2, 3], [0, 1, -1]),
        (words, pa.array([1.0, None]), [0, np.nan]),
        (words, ["01", "A"], [-1, 2]),
        (whole, ["1", "2.0", "A"], [0, 1, -1]),
        (truth, ["true", "False", "no"], [1, 0, -1]),
        (whole, pa.array([2, 1]).cast(pa.decimal128(20, 0)), [1, 0]),
    ):
        found = to_rows(Cells([kind]), Table.from_columns({"a": column}))[:, 0].numpy()
        np.testing.assert_array_equal(found, wanted)


def test_a_column_without_any_value_is_all_gaps():
    for kind in (levels("a", "string", "F", "M"), numbers("a", "double"), numbers("a", "date32[day]")):
        table = Table.from_columns({"a": pa.nulls(2), "b": [1, 2]})
        assert to_rows(Cells([kind]), table).isnan().all()


def test_times_are_counted_in_the_models_unit():
    kind = Cells([numbers("a", "timestamp[us]")])
    for column in (
        pa.array([DAY]),
        pa.array([DAY]).cast(pa.timestamp("s")),
        pa.array(["2020-01-02"]),
        pa.array(["2020-01-02 00:00"]).dictionary_encode(),
    ):
        table = Table.from_columns({"a": column})
        assert to_rows(kind, table).tolist() == [[18263 * 86400e6]]


@pytest.mark.parametrize(
    "column", [pa.array(["abc"]), pa.array(["abc"]).dictionary_encode(), pa.array([DAY])]
)
def test_another_sort_of_values_is_refused(column: pa.Array):
    table = Table.from_columns({"a": column})
    if not pa.types.is_date(column.type):
        with pytest.raises(DataError, match=r"'a' holds .*\('abc', say\), where the model learned double"):
            to_rows(Cells([numbers("a", "double")]), table)
        with pytest.raises(DataError, match="where the model learned timestamp"):
            to_rows(Cells([numbers("a", "timestamp[us]")]), table)
    else:
        with pytest.raises(DataError, match="holds int64"):
            to_rows(Cells([numbers("a", "date32[day]")]), Table.from_columns({"a": [1]}))
        with pytest.raises(DataError, match="holds date32"):
            to_rows(Cells([numbers("a", "double")]), table)


def test_columns_are_found_by_name():
    encoding = Cells([numbers("a", "double"), levels("b", "string", "x", "y")])
    table = Table.from_columns({"other": ["q", "r"], "b": ["y", "z"], " a": [1.0, 2.0]})
    assert to_rows(encoding, table).tolist() == [[1.0, 1.0], [2.0, -1.0]]
    with pytest.raises(DataError, match="no column 'b'"):
        to_rows(encoding, table.drop("b"))
