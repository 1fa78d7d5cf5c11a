"""Columns of several tables on one scale: numbers as they are, categories as codes of their common levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffeo.errors import DataError
from diffeo.tables.codes import as_numbers, from_numbers, is_number_like
from diffeo.tables.table import Table

Array = NDArray[np.float64]

_FEW = 20
"""Most different whole numbers that are compared as categories, where the rows are at least their square."""


@dataclass(frozen=True)
class Side:
    """One column of several tables.

    Args:
        name: the column's.
        levels: what its codes stand for, in the order of numbers or of the alphabet: by how common they are a
            level that one table alone has would give the table away. None for numbers that have no codes.
        parts: the column in each table, float64: numbers, or codes; NaN where an entry is missing.
        dtype: the type that the first table has numbers in; ``string`` of other levels.
    """

    name: str
    levels: tuple[str, ...] | None
    parts: tuple[Array, ...]
    dtype: str = "float64"

    def text(self, value: float) -> str:
        """A number of the column as people write it."""
        if not np.isfinite(value):
            return f"{value}"
        [found] = from_numbers(np.array([value + 0.0]), self.dtype).tolist()
        if isinstance(found, float):
            return f"{found:.0f}" if found == round(found) and abs(found) < 1e15 else f"{found:.6g}"
        return str(found)


def sides(*tables: Table) -> list[Side]:
    """The columns that all tables have, in the order of the first.

    Whole numbers of few values, such as codes, are categories: what the first table holds decides.

    Raises:
        DataError: where the tables have no column in common, or one has no rows.

    Example:
        >>> one = Table.from_columns({"a": [0.5, 1.5, 2.5, 3.5], "b": [1, 0, 1, 1]})
        >>> two = Table.from_columns({"b": [0, 2], "c": [1, 1]})
        >>> [both] = sides(one, two)
        >>> both.name, both.levels, both.parts
        ('b', ('0', '1', '2'), (array([1., 0., 1., 1.]), array([0., 2.])))
    """
    names = [name for name in tables[0].names if all(name in table.names for table in tables[1:])]
    if not names:
        raise DataError("the tables have no column in common; their names must be the same.")
    if not all(map(len, tables)):
        raise DataError("a table without rows cannot be compared.")
    return [_side(name, [table.column(name) for table in tables]) for name in names]


def _side(name: str, columns: Sequence[Any]) -> Side:
    parts = _numbers(columns)
    if parts is None:
        return _categories(name, [_texts(column) for column in columns])
    first = columns[0]
    dtype = first.dtype.name if isinstance(first, np.ndarray) else str(first.type)
    if not _few(parts[0]):
        return Side(name, None, parts, dtype)
    levels = np.unique(np.concatenate(parts))
    levels = levels[~np.isnan(levels)]
    codes = (np.where(np.isnan(part), np.nan, np.searchsorted(levels, part)) for part in parts)
    text = Side(name, None, parts, dtype).text
    return Side(name, tuple(map(text, levels)), tuple(codes), dtype)


def _few(values: Array) -> bool:
    values = values[~np.isnan(values)]
    distinct = np.unique(values)
    return len(distinct) <= min(_FEW, len(values) ** 0.5) and bool((distinct == np.round(distinct)).all())


def _categories(name: str, texts: Sequence[Any]) -> Side:
    import pyarrow as pa
    from pyarrow import compute

    joined = pa.chunked_array(texts).combine_chunks()
    levels = compute.unique(joined.drop_null()).sort()  # pyright: ignore[reportAttributeAccessIssue]
    codes = compute.index_in(joined, levels).cast(pa.float64()).to_numpy(zero_copy_only=False)  # pyright: ignore[reportAttributeAccessIssue]
    parts = np.split(codes, np.cumsum([len(part) for part in texts])[:-1])
    return Side(name, tuple(levels.to_pylist()), tuple(parts), "string")


def _numbers(columns: Sequence[Any]) -> tuple[Array, ...] | None:
    """The columns as numbers of one unit, that of the first; None of text and booleans."""
    import pyarrow as pa

    first = columns[0]
    if not all(map(is_number_like, columns)) or _boolean(first):
        return None
    if not isinstance(first, np.ndarray) and pa.types.is_temporal(first.type):
        try:
            columns = [pa.array(column).cast(first.type, safe=False) for column in columns]
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # a date beside a time of day
            return None
    return tuple(as_numbers(column) for column in columns)


def _boolean(column: Any) -> bool:
    if isinstance(column, np.ndarray):
        return column.dtype.kind == "b"
    import pyarrow as pa

    return pa.types.is_boolean(column.type)


def _texts(column: Any) -> Any:
    """A column as an Arrow array of text."""
    import pyarrow as pa

    array = pa.array(column) if isinstance(column, np.ndarray) else column
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        return array.cast(pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # bytes that are no text, lists, structures
        return pa.array([None if v is None else str(v) for v in array.to_pylist()], pa.large_string())
