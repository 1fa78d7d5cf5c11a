"""Columns of every type: taken from whatever holds them, held as they are, written and read again."""

from __future__ import annotations

import datetime
from datetime import date, time, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from diffeo.errors import DataError
from diffeo.tables import Table
from diffeo.tables.codes import type_name

INSTANT = datetime.datetime(2021, 3, 4, 5, 6, 7, 89000)
THERE = datetime.datetime(2021, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
ZONED = pa.timestamp("us", tz="Europe/Berlin")
ARROW = {
    "text": pa.array(["x", None, 'ö, "q"\n']),
    "large": pa.array(["x", None, ""], pa.large_string()),
    "levels": pa.array(["b", None, "a"]).dictionary_encode(),
    "ordered": pa.DictionaryArray.from_arrays(pa.array([0, None, 1], pa.int8()), ["lo", "hi"], ordered=True),
    "whole": pa.array([2**60 + 1, None, -3]),
    "byte": pa.array([1, None, 255], pa.uint8()),
    "flag": pa.array([True, None, False]),
    "half": pa.array(np.array([0.5, 0, 2], np.float16), mask=np.array([False, True, False])),
    "single": pa.array([0.1, None, 2], pa.float32()),
    "price": pa.array([Decimal("1.50"), None, Decimal("-2.25")], pa.decimal128(10, 2)),
    "day": pa.array([date(2020, 1, 2), None, date(1600, 1, 1)]),
    "instant": pa.array([INSTANT, None, INSTANT], pa.timestamp("ms")),
    "zoned": pa.array([INSTANT, None, INSTANT], ZONED),
    "nanos": pa.array([1_600_000_000_123_456_789, None, 7], pa.timestamp("ns")),
    "clock": pa.array([time(1, 2, 3), None, time(23, 59)], pa.time32("s")),
    "finer": pa.array([time(1, 2, 3, 4), None, time(23, 59)], pa.time64("us")),
    "seconds": pa.array([datetime.datetime(2020, 1, 2), None, THERE.replace(tzinfo=None)], pa.timestamp("s")),
    "date64": pa.array([date(2020, 1, 2), None, date(1600, 1, 1)], pa.date64()),
    "codes": pa.array([3, None, 1]).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.int64())),
    "span": pa.array([timedelta(days=2), None, timedelta(seconds=-1)], pa.duration("ms")),
    "nothing": pa.nulls(3),
}
"""A column of each type, with a gap in row 2."""


def same(a: Table, b: Table) -> None:
    assert (a.names, a.dtypes) == (b.names, b.dtypes)
    for name in a.names:
        one, two = a.column(name), b.column(name)
        assert type(one) is type(two)
        assert one.equals(two) if isinstance(one, pa.Array) else np.array_equal(one, two)


@pytest.mark.parametrize("name", ARROW)
@pytest.mark.parametrize("chunks", [1, 3])
def test_arrow_columns_stay_as_they_are(name, chunks):
    column = ARROW[name]
    pieces = [column] if chunks == 1 else [column.slice(i, 1) for i in range(3)]
    table = Table.of(pa.table({name: pa.chunked_array(pieces), "n": [1, 2, 3]}))
    held = table.column(name)
    assert isinstance(held, pa.Array)
    assert held.type == column.type
    assert held.to_pylist() == column.to_pylist()
    assert table.dtypes == (type_name(column), "int64")
    assert repr(table) == f"Table(3 rows: {name} {type_name(column)}, n int64)"


@pytest.mark.parametrize("suffix", ["parquet", "feather", "arrow"])
def test_every_type_comes_back_from_a_file_as_it_was(tmp_path, suffix):
    table = Table.of(ARROW | {"n": np.arange(3, dtype=np.int16)})
    table.write(tmp_path / f"t.{suffix}")
    same(Table.read(tmp_path / f"t.{suffix}"), table)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt"])
def test_text_tables_keep_what_can_be_told_from_text(tmp_path, suffix):
    table = Table.of(ARROW)
    table.write(tmp_path / f"t.{suffix}")
    back = Table.read(tmp_path / f"t.{suffix}")
    assert back.names == table.names
    for name in ("text", "levels", "ordered", "whole", "flag", "day", "instant", "clock", "finer", "nanos"):
        assert back.column(name).to_pylist() == table.column(name).to_pylist(), name
    assert back.column("large").to_pylist() == ["x", None, None]  # an empty text is a gap
    assert back.column("price").to_pylist() == [1.5, None, -2.25]
    assert back.column("span").to_pylist() == [2 * 86_400_000, None, -1000]  # counts of its unit
    assert back.column("zoned").to_pylist() == table.column("zoned").to_pylist()
    assert back.column("nothing").null_count == 3


def test_files_of_arrays_hold_numbers_only(tmp_path):
    gaps = Table.of({"a": [1.5, None], "b": [1, 2]})
    gaps.write(tmp_path / "t.npz")
    same(Table.read(tmp_path / "t.npz"), gaps)
    for suffix in ("npy", "npz"):
        with pytest.raises(DataError, match=r"cannot hold .*column 'w' holds string\); write \.parquet"):
            Table.of({"w": ["x", "y"], "b": [1, 2]}).write(tmp_path / f"w.{suffix}")


@pytest.mark.parametrize(
    ("values", "dtype", "held"),
    [
        (["x", None], "string", ["x", None]),
        ([np.str_("x"), "y"], "string", ["x", "y"]),
        ([1, None], "int64", [1, None]),
        ([1.5, float("nan")], "float64", [1.5, None]),
        ([Decimal("1.5"), Decimal("nan")], "decimal128(2, 1)", [Decimal("1.5"), None]),
        ([True, None], "bool", [True, None]),
        ([None, None], "null", [None, None]),
        ([INSTANT, None], "timestamp[us]", [INSTANT, None]),
        ([date(2020, 1, 1), None], "date32[day]", [date(2020, 1, 1), None]),
        ([date(2020, 1, 1), INSTANT], "timestamp[us]", [datetime.datetime(2020, 1, 1), INSTANT]),
        ([INSTANT, THERE], "string", [str(INSTANT), str(THERE)]),
        ([time(1), None], "time64[us]", [time(1), None]),
        ([timedelta(1), None], "duration[us]", [timedelta(1), None]),
        ([1, "2", "?"], "float64", [1.0, 2.0, None]),
        ([1, "NA", None, "unknown"], "int64", [1, None, None, None]),
        ([1, "red", None], "string", ["1", "red", None]),
        ([1.5, True, None], "float64", [1.5, 1.0, None]),
        ([True, 2, None], "int64", [1, 2, None]),
        ([2**70, 1], "string", [str(2**70), "1"]),
        ([b"ab", "c"], "string", ["ab", "c"]),
        (["?", "a"], "string", ["?", "a"]),  # a word among words is a word
        (np.array(["x", "y"]), "string", ["x", "y"]),
        (np.array(["2020-01", "NaT"], "M8[M]"), "date32[day]", [date(2020, 1, 1), None]),
        (np.array(["2020-01-02"], "M8[D]"), "date32[day]", [date(2020, 1, 2)]),
        (np.array(["2020-01-02T03"], "M8[h]"), "timestamp[s]", [datetime.datetime(2020, 1, 2, 3)]),
        (np.array([1, 2], "m8[D]"), "duration[s]", [timedelta(1), timedelta(2)]),
        (np.ma.array([1, 2], mask=[True, False]), "int64", [None, 2]),
        (np.ma.array(["a", "b"], mask=[True, False]), "string", [None, "b"]),
        (np.ma.array([np.inf, 2], mask=[True, False]), "float64", [None, 2]),
        (np.array([1.5, np.nan], ">f4"), "float32", [1.5, None]),
    ],
)  # fmt: skip
def test_lists_and_arrays(values, dtype, held):
    column = Table.from_columns({"a": values}).column("a")
    assert isinstance(column, pa.Array)
    assert (type_name(column), column.to_pylist()) == (dtype, held)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([[1], [2]], r"has shape \(2, 1\)"),
        ([[1], [2, 3]], "holds list objects"),
        ([{"k": 1}, None], "holds dict objects"),
        ([1j, None], "holds complex objects"),
        ([b"\xff", None], "holds bytes that are not UTF-8 text; save it as UTF-8"),
        ([object(), "a"], "holds object objects"),
        (np.array([1, 2], "m8[Y]"), "whose unit has no length"),
        (np.zeros(2, [("x", "f8")]), "not real numbers"),
        ("abc", r"has shape \(\)"),
        ([float("inf"), None], "has an infinite value in row 1; leave it empty"),
        (pa.array([1], pa.timestamp("s", tz="Nowhere/City")), "a time zone that is not known"),
    ],
)
def test_what_no_table_holds(values, fault):
    with pytest.raises(DataError, match=f"column 'a' .*{fault}"):
        Table.from_columns({"a": values})


def test_complete_columns_of_nullable_types_are_arrays():
    table = Table.of(pa.table({"a": pa.array([1, 2], pa.uint16()), "b": [True, False], "c": [0.5, 1.5]}))
    assert table.dtypes == ("uint16", "bool", "float64")
    assert all(isinstance(table.column(name), np.ndarray) for name in table.names)


def test_levels_stand_once_and_none_is_a_gap():
    odd = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3, None], pa.int8()), ["a", None, "b", "a"])
    column = Table.of({"a": odd}).column("a")
    assert column.to_pylist() == ["a", None, "b", "a", None]
    assert column.dictionary.to_pylist() == ["a", "b"]
    assert column.type == odd.type
    assert column.null_count == 2
    empty = pa.DictionaryArray.from_arrays(pa.array([None], pa.int8()), pa.nulls(0))
    assert Table.of({"a": empty}).dtypes == ("null",)


def test_parts_of_a_table_with_gaps():
    table = Table.of({"w": ["x", None, "z"], "n": [1, 2, 3], "g": [None, 2, 3]})
    for rows in (slice(None, None, 2), [0, 2], np.array([True, False, True]), [-3, -1]):
        part = table.rows(rows)
        assert part.column("w").to_pylist() == ["x", "z"]
        assert part.column("g").to_pylist() == [None, 3]
        assert part.column("n").tolist() == [1, 3]
    assert table.rows([]).column("w").to_pylist() == []
    assert table.drop("n").beside(table.select("n")).names == ("w", "g", "n")
    with pytest.raises(DataError, match="different lengths"):
        table.beside(Table.of({"k": ["a"]}))


class Polars:
    """Turns itself into Arrow's, as tables and columns of polars do."""

    def __init__(self, made):
        self._made = made

    def to_arrow(self):
        return self._made


def test_polars():
    made = pa.table({"a": pa.array(["x", None], pa.large_string()), "b": [1, 2]})
    for data in (Polars(made), {"a": Polars(made["a"]), "b": Polars(made["b"])}):
        table = Table.of(data)
        assert table.dtypes == ("large_string", "int64")
        assert table.column("a").to_pylist() == ["x", None]
    viewed = Table.of({"v": pa.array(["x", None], pa.string_view())})
    assert viewed.dtypes == ("string",)


def test_a_table_is_apart_from_what_it_was_made_of():
    values = np.array([1.0, np.nan, 3.0])
    days = np.array(["2020-01-01", "NaT"], "M8[D]")
    tables = Table.of({"a": values}), Table.of({"a": days})
    values[0], days[0] = 9, "2030-01-01"
    assert tables[0].column("a").to_pylist() == [1.0, None, 3.0]
    assert tables[1].column("a").to_pylist() == [date(2020, 1, 1), None]


def test_columns_of_pandas_come_and_go_as_they_are():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "level": pandas.Categorical(["b", None, "a"], ["b", "a", "c"], ordered=True),
            "text": pandas.Series(["x", None, "y"], dtype="string"),
            "object": pandas.Series(["x", None, "y"], dtype=object),
            "mixed": pandas.Series([1, "?", None], dtype=object),
            "whole": pandas.Series([2**60 + 1, None, 3], dtype="Int64"),
            "byte": pandas.Series([1, None, 3], dtype="UInt8"),
            "real": pandas.Series([1.5, None, 3], dtype="Float64"),
            "flag": pandas.Series([True, None, False], dtype="boolean"),
            "there": pandas.Series([1, 2, 3], dtype="Int32"),
            "instant": pandas.to_datetime(["2020-01-01", None, "2021-01-01"]).tz_localize("Europe/Berlin"),
            "span": pandas.to_timedelta([1, None, 3], unit="s"),
            "range": pandas.cut(pandas.Series([1.0, np.nan, 5.0]), 2),
        }
    )
    table = Table.of(frame)
    assert dict(zip(table.names, table.dtypes, strict=True)) | {"text": "", "instant": "", "span": ""} == {
        "level": "dictionary<values=large_string, indices=int8, ordered=1>",
        "text": "",
        "object": "string",
        "mixed": "int64",
        "whole": "int64",
        "byte": "uint8",
        "real": "float64",
        "flag": "bool",
        "there": "int32",
        "instant": "",
        "span": "",
        "range": "dictionary<values=string, indices=int8, ordered=1>",
    }
    assert table.column("level").to_pylist() == ["b", None, "a"]
    assert table.column("level").dictionary.to_pylist() == ["b", "a", "c"]
    assert table.column("whole").to_pylist() == [2**60 + 1, None, 3]
    assert table.column("range").to_pylist() == ["(0.996, 3.0]", None, "(3.0, 5.0]"]
    assert str(table.column("instant").type).endswith(", tz=Europe/Berlin]")
    same(Table.of(table.to_pandas()).drop(["object", "range"]), table.drop(["object", "range"]))
    back = table.to_pandas()
    for name in ("level", "whole", "byte", "flag", "instant", "span"):
        assert back[name].dtype == frame[name].dtype
        pandas.testing.assert_series_equal(back[name], frame[name])
    frame.loc[0, "whole"] = 5
    assert table.column("whole")[0].as_py() == 2**60 + 1
    stamps = pandas.Series([pandas.Timestamp("2020-01-02 03:04"), date(2020, 1, 1), pandas.NaT], dtype=object)
    assert Table.of({"a": stamps}).column("a").to_pylist() == [stamps[0], datetime.datetime(2020, 1, 1), None]
    with pytest.raises(DataError, match=r"'a' holds extension<pandas.period.*; convert it to"):
        Table.of({"a": pandas.Series(pandas.period_range("2020", periods=2, freq="M"))})
    sparse = pandas.Series([1.0, 0.0], dtype="Sparse[float]")
    assert Table.of({"a": sparse}).column("a").tolist() == [1, 0]


def test_every_arrow_type_survives_pandas():
    pytest.importorskip("pandas")
    table = Table.of(ARROW)
    back = Table.of(table.to_pandas())
    alike = [n for n in table.names if n not in ("text", "large", "levels", "ordered", "half", "nothing")]
    same(back.select(alike), table.select(alike))
    for name in ("text", "large", "levels", "ordered"):
        assert back.column(name).to_pylist() == table.column(name).to_pylist()
    assert back.column("half").null_count == 1
