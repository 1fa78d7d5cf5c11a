"""What a table refuses: names, roles, and columns that are no numbers; an error names column and cure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from diffeo.errors import ConfigError, Cure, DataError

LARGEST_INTEGER = 2**53
_DATE = re.compile(r"\s*(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}|\d{1,2}:\d\d)\b")
"""How a date or a time begins that Arrow leaves as text, for its zone or its order."""
_LISTED = 20
"""Most columns that one error names."""


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
    """Refuse a table without columns, or with a repeated one."""
    if not names:
        raise DataError("the table has no columns.")
    seen: set[str] = set()
    for name in names:
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


def fault(name: str, column: Any) -> ColumnError | None:
    """Why a table's column cannot be part of a matrix of numbers; None where it can be."""
    if isinstance(column, np.ndarray):
        if column.dtype.kind in "iu" and len(column):
            return _inexact(name, column)
        return None if column.dtype.kind in "biuf" else _text(name, column[:1].tolist())
    from pyarrow import types

    kind = column.type
    if types.is_temporal(kind):
        return _dates(name)
    text = types.is_string(kind) or types.is_large_string(kind)
    if text or types.is_dictionary(kind):
        return _text(name, column.drop_null()[:1].to_pylist() if text else column.dictionary[:1].to_pylist())
    if not column.null_count:
        return None
    such = f" ({column.null_count} such rows)" if column.null_count > 1 else ""
    row = int(np.asarray(column.is_null()).argmax()) + 1
    return ColumnError(
        name, f"has a missing value in row {row}{such}", "; fill it in, or drop row or column."
    )


def _inexact(name: str, column: np.ndarray) -> ColumnError | None:
    beyond = column > LARGEST_INTEGER
    if column.dtype.kind == "i":
        beyond |= column < -LARGEST_INTEGER
    if not beyond.any():
        return None
    row = int(beyond.argmax())
    return ColumnError(
        name,
        f"holds {column[row]} in row {row + 1}: integers beyond 2^53 are not exact in float64",
        ". Subtract an offset, convert it to float, or drop it if it is an identifier.",
    )


def _text(name: str, example: list[Any]) -> ColumnError:
    if example and _DATE.match(str(example[0])):
        return _dates(name)
    return ColumnError(
        name,
        f"holds text or categories ({str(example[0])[:40]!r}, say)" if example else "holds text",
        "; code it as numbers, or drop it.",
    )


def _dates(name: str) -> ColumnError:
    return ColumnError(
        name,
        "holds dates or times",
        "; convert it to a number, for example seconds since 1970 or the hour of the day, or drop it.",
    )
