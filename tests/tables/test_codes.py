"""Columns as numbers and back, and types by their names."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from diffeo.errors import ConfigError
from diffeo.tables.codes import arrow_type, as_numbers, from_numbers, is_number_like

NOON = datetime.datetime(2021, 3, 4, 12)
EPOCH = datetime.datetime(1970, 1, 1)
SECONDS = (NOON - EPOCH) / datetime.timedelta(seconds=1)
DAYS = (NOON.date() - EPOCH.date()).days
COLUMNS = {
    "int": (pa.array([1, None, -3], pa.int8()), [1, math.nan, -3]),
    "flag": (pa.array([True, None, False]), [1, math.nan, 0]),
    "real": (pa.array([0.5, None], pa.float32()), [0.5, math.nan]),
    "half": (pa.array(np.array([0.5, 1], np.float16), mask=np.array([False, True])), [0.5, math.nan]),
    "decimal": (pa.array([Decimal("1.25"), None], pa.decimal128(10, 2)), [1.25, math.nan]),
    "day": (pa.array([NOON.date(), None]), [DAYS, math.nan]),
    "date64": (pa.array([NOON.date(), None], pa.date64()), [DAYS * 86.4e6, math.nan]),
    "seconds": (pa.array([NOON, None], pa.timestamp("s")), [SECONDS, math.nan]),
    "micros": (pa.array([NOON, None], pa.timestamp("us")), [1e6 * SECONDS, math.nan]),
    "nanos": (pa.array([NOON, None], pa.timestamp("ns")), [1e6 * SECONDS, math.nan]),
    "before": (pa.array([-1_500, None], pa.timestamp("ns")), [-1.5, math.nan]),
    "zoned": (pa.array([NOON, None], pa.timestamp("ms", tz="Asia/Tokyo")), [1e3 * SECONDS, math.nan]),
    "clock": (pa.array([datetime.time(1, 2, 3), None], pa.time32("s")), [3723, math.nan]),
    "finest": (pa.array([datetime.time(1, 2, 3), None], pa.time64("ns")), [3723e6, math.nan]),
    "span": (pa.array([datetime.timedelta(days=-1), None], pa.duration("ms")), [-86.4e6, math.nan]),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_there_and_back(name):
    column, numbers = COLUMNS[name]
    assert is_number_like(column)
    assert as_numbers(column).dtype == np.float64
    np.testing.assert_array_equal(as_numbers(column), numbers)
    back = from_numbers(as_numbers(column), str(column.type))
    assert back.type == column.type
    assert back.equals(column)
    assert as_numbers(column[:0]).shape == (0,)
    assert len(from_numbers(np.empty(0), str(column.type))) == 0


@pytest.mark.parametrize(
    "unit", ["date32[day]", "date64[ms]", *(f"timestamp[{u}]" for u in ("s", "ms", "us", "ns"))]
)
@pytest.mark.parametrize(
    "own", [pa.date32(), pa.date64(), *(pa.timestamp(u) for u in ("s", "ms", "us", "ns"))]
)
def test_instants_are_counted_in_the_unit_that_is_asked_for(own, unit):
    column = pa.array([datetime.datetime(2021, 3, 4), None]).cast(own)
    expected = as_numbers(column.cast(arrow_type(unit)))
    np.testing.assert_array_equal(as_numbers(column, unit), expected)
    halves = as_numbers(pa.array([NOON], pa.timestamp("us")), "date32[day]")
    assert halves.tolist() == [DAYS + 0.5]
    assert as_numbers(np.array([3]), unit).tolist() == [3]


def test_complete_numbers_are_arrays():
    for dtype in ("int16", "uint8", "bool", "float32", "float64", "float16", "double", "float"):
        back = from_numbers(np.array([1.0, 0.0]), dtype)
        assert isinstance(back, np.ndarray)
        assert back.tolist() == [1, 0]
    assert from_numbers(np.array([0.5, np.nan]), "int8").equals(pa.array([0.5, None]))  # no whole number
    assert from_numbers(np.array([0.5]), "bool").dtype == np.float64


def test_draws_stay_within_their_type():
    far = np.array([-1e30, 1e30, np.inf, 0.6])
    day = 86_400
    assert from_numbers(far, "time32[s]").cast(pa.int32()).to_pylist() == [0, day - 1, day - 1, 1]
    assert from_numbers(far, "time64[ns]").cast(pa.int64()).to_pylist() == [
        0,
        day * 10**9 - 1,
        day * 10**9 - 1,
        600,
    ]
    assert from_numbers(far, "date32[day]").cast(pa.int32()).to_pylist() == [
        1 - 2**31,
        2**31 - 1,
        2**31 - 1,
        1,
    ]
    for dtype in ("timestamp[us]", "timestamp[ns]", "duration[s]"):
        low, high, top, _ = from_numbers(far, dtype).cast(pa.int64()).to_pylist()
        assert (low, high) == (-top, top)
        assert 2**63 - 2**21 <= high < 2**63
    price = from_numbers(np.array([1.005, -1e9, 2.5, np.inf]), "decimal128(5, 2)").to_pylist()
    assert price == [Decimal(f"{v}") for v in ("1.00", "-999.99", "2.50", "999.99")]


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.null()),
        *(pa.string(), pa.large_string(), pa.date32(), pa.date64(), pa.time32("ms"), pa.time64("ns")),
        *(pa.timestamp("s"), pa.timestamp("us", tz="Europe/Berlin"), pa.timestamp("ns", tz="+01:00")),
        *(pa.timestamp("ns", tz="America/Argentina/Buenos_Aires"), pa.duration("us")),
        *(pa.decimal128(10, 2), pa.decimal128(38, -3), pa.decimal256(76, 0), pa.decimal32(9, 1)),
        *(pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.uint8(), pa.large_string(), True)),
        pa.dictionary(pa.int8(), pa.timestamp("us", tz="UTC")),
    ],
    ids=str,
)
def test_types_are_found_by_their_names(kind):
    assert arrow_type(str(kind)) == kind


@pytest.mark.parametrize(
    "name",
    [
        *("", "object", "list<item: int64>", "struct<a: int64>", "binary", "int128", "__class__", "int64 "),
        *("timestamp[us, tz=]", "timestamp[us, tz=a b]", "timestamp[D]", "time32[s, tz=UTC]"),
        *("time32[us]", "time64[s]", "decimal128(99, 2)", "decimal128(0, 0)"),
        "dictionary<values=list<item: int64>, indices=int32, ordered=0>",
        "dictionary<values=dictionary<values=string, indices=int8, ordered=0>, indices=int8, ordered=0>",
    ],
)  # fmt: skip
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match="there is no type"):
        arrow_type(name)


def test_what_is_not_made_of_numbers():
    for column in (pa.array(["a"]), pa.array(["a"]).dictionary_encode(), pa.nulls(2), np.array(["a"])):
        assert not is_number_like(column)
    with pytest.raises(ConfigError, match="'string' is not made of numbers"):
        from_numbers(np.zeros(1), "string")
