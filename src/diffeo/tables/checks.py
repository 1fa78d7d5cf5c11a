"""From raw columns to arrays of numbers, or an error that names column, row and cure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from diffeo._arrays import unmasked
from diffeo.errors import ConfigError, Cure, DataError

LARGEST_INTEGER = 2**53
_FLOATS = "torch.float16", "torch.float32", "torch.float64"
"""Those that NumPy has too."""
_DATE = re.compile(r"\s*(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}|\d{1,2}:\d\d)\b")
"""How a date or a time begins that Arrow leaves as text, for its zone or its order."""
_LISTED = 20
"""Most columns that one error names."""


@runtime_checkable
class ArrowColumn(Protocol):
    """A column of pyarrow, which tells more kinds of values apart than NumPy does."""

    type: Any
    null_count: int

    def to_pylist(self) -> list[Any]: ...


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
    """A column of pandas, polars or the like."""

    def to_numpy(self) -> np.ndarray: ...


class ColumnError(DataError):
    """A column that cannot be used: what is wrong with it, and the cure."""

    def __init__(self, name: str, fault: str, cure: str):
        super().__init__(f"column {name!r} {fault}{cure}")
        self.name, self.fault = name, fault


def refusal(errors: Sequence[ColumnError], columns: int) -> DataError:
    """One error for all those of so many columns that cannot be used, which says how to leave them out."""
    names = [error.name for error in errors[:_LISTED]]
    faults = "; ".join(f"{error.name!r} {error.fault}" for error in errors[:_LISTED])
    faults += f"; and {len(errors) - _LISTED} more" if len(errors) > _LISTED else ""
    if len(errors) == columns:  # without them nothing would be left
        mend = "Mend them, or code as numbers what is to be modeled."
        return DataError(f"no column can be used: {faults}. {mend}" if columns > 1 else str(errors[0]))
    cure = Cure("drop", names)
    if len(errors) == 1:
        return DataError(f"{errors[0]} To leave it out: drop={names}.", cure=cure)
    return DataError(
        f"{len(errors)} columns cannot be used: {faults}. Mend them, or leave them out: drop={names}.",
        cure=cure,
    )


def check_names(names: Sequence[str]) -> None:
    """Refuse a table without columns, or with a nameless or repeated one."""
    if not names:
        raise DataError("the table has no columns.")
    seen: set[str] = set()
    for i, name in enumerate(names):
        if not name:
            raise DataError(
                f"column {i + 1} has no name, like an index that R or pandas saved; name it, or leave it "
                "out: drop=[''].",
                cure=Cure("drop", [""]),
            )
        if name in seen:
            raise DataError(f"two columns are named {name!r}; rename one.")
        seen.add(name)


def check_columns(
    given: Sequence[str], weights: str | None, drop: Sequence[str], declared: Iterable[str]
) -> list[str]:
    """The columns read but not modeled: given and weights. Each column has one role, or it is an error."""
    apart = [*given, *([] if weights is None else [weights])]
    roles = [str(name).strip() for name in apart]
    modeled = {str(name).strip() for name in declared}
    for i, name in enumerate(apart):
        if roles[i] in roles[:i]:
            raise ConfigError(f"column {name!r} stands twice among given and weights; leave one out.")
        if roles[i] in modeled:
            raise ConfigError(f"column {name!r} is given or weights the rows; declare modeled columns only.")
    for name in drop:
        if str(name).strip() in modeled | set(roles):
            raise ConfigError(f"column {name!r} is dropped; leave it out of given, weights and columns.")
    return apart


def as_raw(column: Any) -> Any:
    """A list, tensor, Series or array as numpy; Arrow stays Arrow."""
    if isinstance(column, ArrowColumn):
        return column
    if isinstance(column, TensorColumn):
        foreign = column.is_floating_point() and str(column.dtype) not in _FLOATS  # bfloat16, say
        return (column.float() if foreign else column).detach().cpu().numpy()
    return column.to_numpy() if isinstance(column, Series) else unmasked(column)


def numbers(name: str, column: Any) -> np.ndarray:
    """A copy of a raw column as numbers, in the type it came in.

    Raises:
        ColumnError: for anything that is not finite real numbers that float64 holds exactly.
    """
    if not isinstance(column, np.ndarray):
        column = _from_arrow(name, column)
    if column.ndim != 1:
        raise ColumnError(name, f"has shape {column.shape}", "; a column is one-dimensional.")
    if column.dtype.kind in "mM":
        raise _dates(name)
    if column.dtype.kind in "OUST":
        column = _from_objects(name, column.tolist())
    if column.dtype.kind not in "biuf":
        raise ColumnError(name, f"holds {column.dtype}, not real numbers", "; convert or drop it.")
    if column.dtype.kind in "iu" and len(column):
        _check_integers(name, column)
    # no float is wider than the float64 that a flow's rows are
    values = column.astype(column.dtype.newbyteorder("=") if column.dtype.itemsize <= 8 else np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        what = "a missing" if np.isnan(values[bad[0]]) else "an infinite"
        raise _not_finite(name, what, bad[0], len(bad))
    return values


def _check_integers(name: str, column: np.ndarray) -> None:
    beyond = column > LARGEST_INTEGER
    if column.dtype.kind == "i":
        beyond |= column < -LARGEST_INTEGER
    if beyond.any():
        row = int(beyond.argmax())
        raise ColumnError(
            name,
            f"holds {column[row]} in row {row + 1}: integers beyond 2^53 are not exact in float64",
            ". Subtract an offset, convert it to float, or drop it if it is an identifier.",
        )


def _from_arrow(name: str, column: Any) -> np.ndarray:
    """An Arrow column as numpy; what numpy would blur (nulls, dates, categories) is told apart here."""
    from pyarrow import float64, types

    kind = column.type
    if types.is_dictionary(kind):
        raise _text(name, column[0].as_py() if len(column) else "", 0)
    if types.is_temporal(kind):
        raise _dates(name)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _from_objects(name, column.to_pylist())
    if column.null_count:
        row = int(np.asarray(column.is_null()).argmax())
        raise _not_finite(name, "a missing", row, column.null_count)
    if types.is_decimal(kind):
        return column.cast(float64()).to_numpy()
    if types.is_binary(kind) or types.is_large_binary(kind):
        raise ColumnError(name, "holds bytes that are not UTF-8 text", "; save it as UTF-8.")
    if types.is_null(kind):
        return np.empty(0)
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise ColumnError(name, f"holds {kind}, not real numbers", "; convert or drop it.")
    return np.asarray(column)


def _from_objects(name: str, values: list[Any]) -> np.ndarray:
    """Objects as numbers, if that is what they all are; else the error says which is not."""
    objects = [row for row, v in enumerate(values) if not isinstance(v, int | float | np.number | np.bool_)]
    if not objects:
        return np.array(values)
    words = [row for row in objects if not _looks_numeric(values[row])]
    row = (words or objects)[0]
    value = values[row]
    if value is None or str(value).strip() in ("", "<NA>", "NaT"):
        raise _not_finite(name, "a missing", row, 1)
    if not words:
        raise ColumnError(name, f"holds numbers as text ({value!r} in row {row + 1})", "; convert it.")
    if 10 * len(words) <= len(values):
        such = f" ({len(words)} such rows)" if len(words) > 1 else ""
        fault = f"holds {value!r} in row {row + 1}, not a number{such}"
        raise ColumnError(name, fault, "; correct or drop it.")
    raise _text(name, value, row)


def _looks_numeric(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _not_finite(name: str, what: str, row: int, count: int) -> ColumnError:
    such = f" ({count} such rows)" if count > 1 else ""
    return ColumnError(
        name, f"has {what} value in row {row + 1}{such}", "; fill it in, or drop row or column."
    )


def _text(name: str, value: Any, row: int) -> ColumnError:
    if _DATE.match(str(value)):
        return _dates(name)
    return ColumnError(
        name,
        f"holds text or categories ({str(value)[:40]!r} in row {row + 1})",
        "; diffeo models numbers: code it as numbers, or drop it.",
    )


def _dates(name: str) -> ColumnError:
    return ColumnError(
        name,
        "holds dates or times",
        "; convert it to a number, for example seconds since 1970 or the hour of the day, or drop it.",
    )
