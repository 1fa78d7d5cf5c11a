"""From whatever holds a column to a table's: NumPy's numbers where they are complete, else Arrow's."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any, Protocol, runtime_checkable

import numpy as np

from diffeo.tables.checks import ColumnError
from diffeo.tables.csv_values import is_gap

_FLOATS = "torch.float16", "torch.float32", "torch.float64"
"""Those that NumPy has too."""
_UNITS = {"Y": "D", "M": "D", "W": "D", "D": "D", "h": "s", "m": "s", "s": "s", "ms": "ms", "us": "us"}
"""NumPy's units of time, in those that Arrow has; the finer ones become nanoseconds."""
_DROP = "; convert or drop it."


@runtime_checkable
class ArrowColumn(Protocol):
    """A column of pyarrow, which tells more kinds of values apart than NumPy does."""

    type: Any
    null_count: int

    def to_pylist(self) -> list[Any]: ...


@runtime_checkable
class Convertible(Protocol):
    """What turns itself into Arrow's: a table or a column of polars."""

    def to_arrow(self) -> Any: ...


@runtime_checkable
class TensorColumn(Protocol):
    """A tensor, known by what it can do: who reads a file does not wait for torch."""

    dtype: Any

    def is_floating_point(self) -> bool: ...
    def float(self) -> TensorColumn: ...
    def detach(self) -> TensorColumn: ...
    def cpu(self) -> TensorColumn: ...
    def numpy(self) -> np.ndarray: ...


@runtime_checkable
class Series(Protocol):
    """A column of pandas."""

    dtype: Any

    def to_numpy(self) -> np.ndarray: ...
    def copy(self) -> Any: ...


@runtime_checkable
class Categories(Protocol):
    """The type of a pandas column of categories."""

    categories: Any
    ordered: Any


def as_raw(column: Any) -> Any:
    """A list, tensor, Series or array as NumPy's or Arrow's."""
    if isinstance(column, ArrowColumn | np.ndarray):
        return column
    if isinstance(column, TensorColumn):
        foreign = column.is_floating_point() and str(column.dtype) not in _FLOATS  # bfloat16, say
        return (column.float() if foreign else column).detach().cpu().numpy()
    if isinstance(column, Convertible):
        return column.to_arrow()
    if isinstance(column, Series):
        return column.to_numpy() if isinstance(column.dtype, np.dtype) else _of_pandas(column)
    try:
        array = np.asarray(column)
    except ValueError:  # items of several lengths
        array = None
    if array is None or (
        array.dtype.kind == "U" and array.ndim == 1
    ):  # NumPy makes text of numbers among words
        array = np.empty(len(column), object)
        array[:] = list(column)
    return array


def _of_pandas(series: Any) -> Any:
    """A column of one of pandas' own types."""
    import pyarrow as pa

    try:
        found = pa.array(series.copy(), from_pandas=True)  # else Arrow's would share its memory
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return np.asarray(series)
    if isinstance(series.dtype, Categories) and not _is_scalar(found.type.value_type):  # intervals
        labels = pa.array([str(label) for label in series.dtype.categories])
        return pa.DictionaryArray.from_arrays(found.indices, labels, ordered=bool(series.dtype.ordered))
    return found


def held(name: str, column: Any) -> Any:
    """A raw column as a table holds it: a copy, or what cannot be changed.

    Complete real numbers and booleans are a NumPy array in the type they came in. All else is an Arrow array,
    where what is missing (also NaN, and what a mask hides) is null.

    Raises:
        ColumnError: for what a table cannot hold: infinite numbers, columns in columns, bytes.
    """
    return _of_numpy(name, column) if isinstance(column, np.ndarray) else _of_arrow(name, column)


def _of_numpy(name: str, column: np.ndarray) -> Any:
    if column.ndim != 1:
        raise ColumnError(name, f"has shape {column.shape}", "; a column is one-dimensional.")
    hidden = np.array(np.ma.getmaskarray(column))
    column = np.asarray(np.ma.getdata(column))
    kind = column.dtype.kind
    if kind in "OUST":
        return _of_objects(
            name, [None if gone else v for v, gone in zip(column.tolist(), hidden, strict=True)]
        )
    if kind in "mM":
        return _of_times(name, column, hidden)
    if kind not in "biuf":
        raise ColumnError(name, f"holds {column.dtype}, not real numbers", _DROP)
    # no float is wider than the float64 that a flow's rows are
    values = column.astype(column.dtype.newbyteorder("=") if column.dtype.itemsize <= 8 else np.float64)
    if kind == "f":
        hidden |= np.isnan(values)
        infinite = np.isinf(values) & ~hidden
        if infinite.any():
            such = f" ({infinite.sum()} such rows)" if infinite.sum() > 1 else ""
            fault = f"has an infinite value in row {infinite.argmax() + 1}{such}"
            raise ColumnError(name, fault, "; leave it empty, or drop row or column.")
    if not hidden.any():
        return values
    import pyarrow as pa

    return pa.array(values, mask=hidden)


def _of_times(name: str, column: np.ndarray, hidden: np.ndarray) -> Any:
    import pyarrow as pa

    kind, (unit, _) = column.dtype.kind, np.datetime_data(column.dtype)
    if kind == "m" and unit in ("generic", "Y", "M"):
        raise ColumnError(name, f"holds {column.dtype}, whose unit has no length", _DROP)
    unit = _UNITS.get(unit, "ns")
    unit = "s" if (kind, unit) == ("m", "D") else unit
    return pa.array(column.astype(f"{kind}8[{unit}]"), mask=hidden | np.isnat(column))


def _of_arrow(name: str, column: Any) -> Any:
    """An Arrow column in one piece, as a table holds it."""
    import pyarrow as pa
    from pyarrow import types

    kind = column.type
    if types.is_string_view(kind):  # which too little of Arrow can compute with
        return _of_arrow(name, column.cast(pa.string()))
    if isinstance(kind, pa.BaseExtensionType):
        raise ColumnError(name, f"holds {kind}", "; convert it to numbers, text or timestamps, or drop it.")
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        raise ColumnError(name, "holds bytes", "; convert them to text, or drop the column.")
    if not _is_scalar(kind.value_type if types.is_dictionary(kind) else kind):
        raise ColumnError(name, f"holds {kind}, not one value a row", _DROP)
    if not _is_known_zone(kind.value_type if types.is_dictionary(kind) else kind):
        raise ColumnError(name, f"holds {kind}, in a time zone that is not known", _DROP)
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks()
    if types.is_dictionary(kind):
        return _levels(column)
    if types.is_floating(kind):
        return _of_numpy(name, column.to_numpy(zero_copy_only=False))
    if not column.null_count and (types.is_integer(kind) or types.is_boolean(kind)):
        return np.array(column.to_numpy(zero_copy_only=False))
    return column


def _is_scalar(kind: Any) -> bool:
    """Whether a column of this type has one value a row that a table knows what to do with."""
    from pyarrow import types

    return (
        types.is_null(kind)
        or types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_date(kind)
        or types.is_time(kind)
        or types.is_timestamp(kind)
        or types.is_duration(kind)
    )


def _is_known_zone(kind: Any) -> bool:
    import pyarrow as pa
    from pyarrow import types

    try:
        return not types.is_timestamp(kind) or kind.tz is None or bool(pa.scalar(0, kind).as_py())
    except (pa.ArrowException, ValueError, KeyError, OSError):
        return False


def _levels(column: Any) -> Any:
    """A dictionary column, each of whose levels stands once, and none of them for what is missing."""
    import pyarrow as pa
    from pyarrow import types

    levels = column.dictionary
    if types.is_null(levels.type):
        return pa.nulls(len(column))
    if types.is_string_view(levels.type):
        levels = levels.cast(pa.string())
    unique = levels.dictionary_encode()
    if unique.null_count or len(unique.dictionary) < len(levels) or levels is not column.dictionary:
        indices = unique.indices.take(column.indices).cast(column.type.index_type)
        return pa.DictionaryArray.from_arrays(indices, unique.dictionary, ordered=column.type.ordered)
    return column


def _of_objects(name: str, values: list[Any]) -> Any:
    """Python's objects as a column of what all of them are, else of text."""
    import pyarrow as pa

    values = [_plain(name, value) for value in values]
    words = {isinstance(v, str) for v in values if v is not None}
    if len(words) > 1:  # words among numbers, say
        values = _numbers_but_for_gaps(values)
    kinds = {type(v) for v in values if v is not None}
    if (kinds and kinds <= {bool, int, float} and float in kinds) or kinds == {bool, int}:
        values = [None if v is None else float(v) if float in kinds else int(v) for v in values]
    if datetime.date in kinds and any(issubclass(kind, datetime.datetime) for kind in kinds):
        midnight = datetime.time()
        values = [datetime.datetime.combine(v, midnight) if type(v) is datetime.date else v for v in values]
    zones = {v.tzinfo is None for v in values if isinstance(v, datetime.datetime)}
    try:
        if len(zones) == 2:
            raise TypeError("instants with and without a zone")
        column = pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):  # of several kinds
        column = pa.array([None if v is None else str(v) for v in values])
    return _of_arrow(name, column)


def _plain(name: str, value: Any) -> Any:
    """An object as Arrow knows it; None where it is missing."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        value = value.astype(f"{value.dtype.kind}8[us]")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ColumnError(name, "holds bytes that are not UTF-8 text", "; save it as UTF-8.") from None
    if value is None or isinstance(value, str):
        return None if value is None else str(value)
    if str(value) in ("nan", "NaN", "NaT", "<NA>"):  # of floats, of Decimal and of pandas
        return None
    if not isinstance(
        value, bool | int | float | Decimal | datetime.date | datetime.time | datetime.timedelta
    ):
        raise ColumnError(name, f"holds {type(value).__name__} objects", _DROP)
    return value


def _numbers_but_for_gaps(values: list[Any]) -> list[Any]:
    """Numbers and words as numbers, if the other words only mark gaps; else all as they are."""
    found = []
    for value in values:
        if not isinstance(value, str):
            if not isinstance(value, int | float | None):
                return values
            found.append(value)
        elif is_gap(value):
            found.append(None)
        else:
            try:
                found.append(float(value))
            except ValueError:
                return values
    return found
