"""Columns as float64 and back: numbers, and dates and times as counts; and types by their names."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from diffeo.errors import ConfigError

_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}
"""What Arrow calls otherwise than NumPy."""
_SIMPLE = {
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{name: name for name in _FLOATS.values()},
    **_FLOATS,
    "bool": "bool_",
    "string": "string",
    "large_string": "large_string",
    "null": "null",
    "date32[day]": "date32",
    "date64[ms]": "date64",
}
"""Types without arguments, by their names in Arrow and in NumPy: pyarrow's functions."""
_TIMED = re.compile(r"(time32|time64|timestamp|duration)\[(s|ms|us|ns)(?:, tz=([\w+:/-]{1,64}))?\]")
_DECIMAL = re.compile(r"decimal(32|64|128|256)\((\d{1,2}), (-?\d{1,2})\)")
_LEVELS = re.compile(r"dictionary<values=(.+), indices=(u?int(?:8|16|32|64)), ordered=([01])>")


def type_name(column: Any) -> str:
    """What the type of a table's column is called: by NumPy, if it has it, else by Arrow.

    Example:
        >>> import pyarrow as pa
        >>> type_name(np.zeros(1)), type_name(pa.array([0.0, None])), type_name(pa.array(["a"]))
        ('float64', 'float64', 'string')
    """
    if isinstance(column, np.ndarray):
        return column.dtype.name
    return _FLOATS.get(str(column.type), str(column.type))


def arrow_type(name: str) -> Any:
    """The Arrow type that Arrow, or NumPy, calls so.

    Raises:
        ConfigError: for any other name.

    Example:
        >>> arrow_type("timestamp[us, tz=Europe/Berlin]").unit, arrow_type("decimal128(10, 2)").scale
        ('us', 2)
        >>> arrow_type("dictionary<values=string, indices=int8, ordered=1>").ordered
        True
    """
    import pyarrow as pa

    try:
        if name in _SIMPLE:
            return getattr(pa, _SIMPLE[name])()
        if found := _TIMED.fullmatch(name):
            kind, unit, zone = found.groups()
            if kind == "timestamp":
                return pa.timestamp(unit, zone)
            if zone is None:
                return {"time32": pa.time32, "time64": pa.time64, "duration": pa.duration}[kind](unit)
        if found := _DECIMAL.fullmatch(name):
            bits, digits, scale = found.groups()
            return getattr(pa, f"decimal{bits}")(int(digits), int(scale))
        found = _LEVELS.fullmatch(name)
        if found and not found[1].startswith("dictionary"):
            return pa.dictionary(arrow_type(found[2]), arrow_type(found[1]), found[3] == "1")
    except ValueError:  # a unit or a size that there is not
        pass
    raise ConfigError(f"there is no type {name!r} of columns; names are those of Arrow and NumPy.")


def is_number_like(column: Any) -> bool:
    """Whether a table's column is numbers, booleans, decimals, dates or times: what ``as_numbers`` takes.

    Example:
        >>> is_number_like(np.arange(3)), is_number_like(np.array(["a"]))
        (True, False)
    """
    if isinstance(column, np.ndarray):
        return column.dtype.kind in "biuf"
    from pyarrow import types

    kind = column.type
    return (
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_decimal(kind)
        or _is_time(kind)
    )


def as_numbers(column: Any, dtype: str = "") -> np.ndarray:
    """A column of ``is_number_like`` as float64, NaN where a value is missing.

    Dates and times are counts of their own unit, since 1970 (in UTC, where there is a zone) or midnight.
    Nanoseconds are counted as microseconds, or an instant of today would be beyond 2^53. Whole numbers
    beyond that are rounded.

    Args:
        column: as a table holds it.
        dtype: the type whose unit dates and times are counted in; none stands for the column's own.

    Example:
        >>> import pyarrow as pa
        >>> as_numbers(pa.array([5, None], pa.date32()))
        array([ 5., nan])
        >>> as_numbers(pa.array([5, None], pa.date32()), "timestamp[s]")
        array([432000.,     nan])
    """
    if isinstance(column, np.ndarray):
        return column.astype(np.float64)
    import pyarrow as pa
    from pyarrow import types

    kind = column.type
    missing = np.asarray(column.is_null())
    if _is_time(kind):
        counts = column.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).fill_null(0)
        numbers = _scaled(np.asarray(counts), kind)
        if dtype and _is_time(wanted := arrow_type(dtype)):
            own, other = _a_day(kind), _a_day(wanted)  # one of them divides the other
            numbers = numbers * (other // own) if other > own else numbers / (own // other)
    elif types.is_decimal(kind):
        numbers = np.array(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
    else:
        numbers = column.fill_null(False if types.is_boolean(kind) else 0).to_numpy(zero_copy_only=False)
        numbers = numbers.astype(np.float64)
    numbers[missing] = np.nan
    return numbers


def from_numbers(values: np.ndarray, dtype: str) -> Any:
    """What ``as_numbers`` makes these numbers of: a column of the type that is called so, null where NaN is.

    Dates, times and decimals are rounded to their unit and stay in their range. Numbers that a type of whole
    numbers or booleans cannot hold stay float64. Complete numbers and booleans are a NumPy array.

    Raises:
        ConfigError: for a type that is not number-like.

    Example:
        >>> from_numbers(np.array([1.0, 2.0]), "int8"), from_numbers(np.array([0.5]), "int8")
        (array([1, 2], dtype=int8), array([0.5]))
        >>> from_numbers(np.array([1.2, np.nan]), "date32[day]").to_pylist()
        [datetime.date(1970, 1, 2), None]
    """
    missing = np.isnan(values)
    if re.fullmatch(r"bool|float(16|32|64)|u?int(8|16|32|64)", dtype) and not missing.any():
        return _stored(values, dtype)
    import pyarrow as pa
    from pyarrow import types

    kind = arrow_type(dtype)
    if _is_time(kind):
        counts = _counts(np.where(missing, 0, values), kind)
        return pa.array(counts, mask=missing).cast(kind)
    if types.is_decimal(kind):
        return _decimals(values, missing, kind)
    if not (types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind)):
        raise ConfigError(f"a column of type {dtype!r} is not made of numbers.")
    stored = _stored(np.where(missing, 0, values), np.dtype(kind.to_pandas_dtype()).name)
    return pa.array(stored, mask=missing) if missing.any() else stored


def _is_time(kind: Any) -> bool:
    from pyarrow import types

    return types.is_date(kind) or types.is_time(kind) or types.is_timestamp(kind) or types.is_duration(kind)


def _is_nano(kind: Any) -> bool:
    from pyarrow import types

    return not types.is_date(kind) and kind.unit == "ns"


def _a_day(kind: Any) -> int:
    """How many counts a day has."""
    from pyarrow import types

    if types.is_date32(kind):
        return 1
    unit = "ms" if types.is_date64(kind) else kind.unit
    return 86_400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**6}[unit]


def _scaled(counts: np.ndarray, kind: Any) -> np.ndarray:
    if not _is_nano(kind):
        return counts.astype(np.float64)
    whole, part = np.divmod(counts.astype(np.int64), 1000)
    return whole + part / 1000


def _counts(values: np.ndarray, kind: Any) -> np.ndarray:
    """Numbers as counts of a type's own unit, within its range."""
    from pyarrow import types

    high = 2.0**31 - 1 if kind.bit_width == 32 else 2.0**63 - 2048
    low = -high
    if types.is_time(kind):
        low, high = 0.0, _a_day(kind) - 1.0
    if _is_nano(kind):
        low, high = (
            (low, high + 0.999) if types.is_time(kind) else (np.ceil(low / 1000), np.floor(high / 1000))
        )
        values = values.clip(low, high)
        whole = np.floor(values)
        return whole.astype(np.int64) * 1000 + np.round((values - whole) * 1000).astype(np.int64)
    counts = np.round(values).clip(low, high)
    if types.is_date64(kind):
        counts = np.round(counts / _a_day(kind)).clip(-1e11, 1e11) * _a_day(kind)
    return counts.astype(np.int32 if kind.bit_width == 32 else np.int64)


def _decimals(values: np.ndarray, missing: np.ndarray, kind: Any) -> Any:
    from decimal import Decimal, localcontext

    import pyarrow as pa

    with localcontext() as context:
        context.prec = 100
        most = (10**kind.precision - 1) * Decimal(1).scaleb(-kind.scale)
        step = Decimal(1).scaleb(-kind.scale)
        numbers = [Decimal(v).quantize(step) if np.isfinite(v) else Decimal(v) for v in values.tolist()]
        numbers = [
            None if gone else min(max(v, -most), most) for v, gone in zip(numbers, missing, strict=True)
        ]
    return pa.array(numbers, kind)


def _stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """The values in this type if it can hold them."""
    if dtype.startswith("float"):
        with np.errstate(over="ignore"):
            return values.astype(dtype)
    low, high = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    fits = np.isfinite(values) & (values == np.floor(values)) & (values >= low) & (values <= high)
    return values.astype(dtype) if fits.all() else values
