"""Columns of mixed rows as float64 and back: levels as codes, gaps as NaN, all else as ``codes`` has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffeo.encodings.cell_kinds import CellKind, Level, Levels
from diffeo.errors import DataError
from diffeo.tables.codes import arrow_type, as_numbers, from_numbers, is_number_like
from diffeo.tables.columns import held

NEVER_SEEN = -1.0
"""The code of a value that is none of a column's levels: it scores -inf."""
_TRUTH = {"true": "1", "false": "0"}


def as_cells(kind: CellKind, column: Any) -> np.ndarray:
    """A table's column as a model of mixed rows takes it: float64, NaN where it is missing.

    A level's code is its place among ``kind.levels``, and ``NEVER_SEEN`` where it has none. Numbers and words
    for numbers are the same level, ``1`` and "1". Times are counted in the unit that the model learned.

    Raises:
        DataError: where the model learned numbers, or times, and the column holds something else.

    Example:
        >>> import pyarrow as pa
        >>> as_cells(Levels("sex", "string", False, ("F", "M")), pa.array(["M", None, "X"]))
        array([ 1., nan, -1.])
    """
    if not isinstance(column, np.ndarray) and column.null_count == len(column):
        return np.full(len(column), np.nan)
    column = _in_unit(kind, column)
    if isinstance(kind, Levels):
        return _codes(_Index(kind.levels), column)
    if not isinstance(column, np.ndarray) and is_dictionary(column.type):
        column = column.dictionary_decode()
    if not is_number_like(column):
        raise _another(kind, column)
    return as_numbers(column)


def from_cells(kind: CellKind, values: np.ndarray) -> Any:
    """What ``as_cells`` makes these numbers of, in the type that the model learned; null where NaN is.

    Example:
        >>> from_cells(Levels("sex", "string", False, ("F", "M")), np.array([1.0, np.nan])).to_pylist()
        ['M', None]
    """
    import pyarrow as pa

    dtype = arrow_type(kind.dtype)
    own = _values_of(dtype)
    missing = np.isnan(values)
    if not isinstance(kind, Levels):
        if own is dtype:
            return from_numbers(values, kind.dtype)
        found = from_numbers(values, str(own))
        return held(kind.name, pa.array(found).cast(own, safe=False).dictionary_encode().cast(dtype))
    codes = pa.array(np.where(missing, 0, values).astype(np.int32), mask=missing)
    if all(isinstance(level, str) for level in kind.levels):
        levels = pa.array(kind.levels, pa.string()).cast(own)
    else:
        levels = pa.array(from_numbers(np.array(kind.levels, np.float64), str(own)))
    if own is dtype:
        return held(kind.name, levels.take(codes))
    return pa.DictionaryArray.from_arrays(codes.cast(dtype.index_type), levels, ordered=dtype.ordered)


class _Index:
    """Where a value stands among levels."""

    def __init__(self, levels: Sequence[Level]):
        self.words = {level: i for i, level in enumerate(levels) if isinstance(level, str)}
        self.numbers = {float(level): i for i, level in enumerate(levels) if not isinstance(level, str)}

    def of_word(self, word: str) -> float:
        if word in self.words or not self.numbers:
            return self.words.get(word, NEVER_SEEN)
        word = _TRUTH.get(word.lower(), word)
        try:
            return self.numbers.get(float(word), NEVER_SEEN)
        except ValueError:
            return NEVER_SEEN

    def of_number(self, number: float) -> float:
        if number in self.numbers or not self.words:
            return self.numbers.get(number, NEVER_SEEN)
        return self.words.get(str(int(number)) if number.is_integer() else repr(number), NEVER_SEEN)


def _codes(index: _Index, column: Any) -> np.ndarray:
    if is_number_like(column):
        unique, inverse = np.unique(as_numbers(column), return_inverse=True)
        found = [np.nan if v != v else index.of_number(v) for v in unique.tolist()]
        return np.array(found, np.float64)[inverse]
    if is_dictionary(column.type):
        found = _codes(index, column.dictionary)
    else:
        column = column.dictionary_encode()
        found = np.array([index.of_word(word) for word in column.dictionary.to_pylist()], np.float64)
    missing = np.asarray(column.is_null())
    return np.where(missing, np.nan, found[np.asarray(column.indices.fill_null(0))])


def _in_unit(kind: CellKind, column: Any) -> Any:
    """A column of what the model learned as times, in the unit that it counts them in."""
    import pyarrow as pa
    from pyarrow import types

    dtype = _values_of(arrow_type(kind.dtype))
    plain = isinstance(column, np.ndarray)
    times = not plain and types.is_temporal(_values_of(column.type))
    if not (times or types.is_temporal(dtype)):
        return column
    if types.is_temporal(dtype) and not plain and (times or not is_number_like(column)):
        try:
            column = column.dictionary_decode() if is_dictionary(column.type) else column
            return column.cast(dtype, safe=False)
        except pa.ArrowException:  # there is no way from the one to the other
            pass
    raise _another(kind, column)


def _another(kind: CellKind, column: Any) -> DataError:
    """The error of a column that holds another sort of values than the model learned."""
    numbers = isinstance(column, np.ndarray)
    sort = column.dtype if numbers else column.type
    example = str((column if numbers else column.drop_null())[0])[:40]
    return DataError(
        f"column {kind.name!r} holds {sort} ({example!r}, say), where the model learned {kind.dtype}; "
        "convert it."
    )


def is_dictionary(dtype: Any) -> bool:
    """Whether an Arrow type is a dictionary of levels."""
    from pyarrow import types

    return types.is_dictionary(dtype)


def _values_of(dtype: Any) -> Any:
    """The type of a column's values: that of a dictionary's levels."""
    return dtype.value_type if is_dictionary(dtype) else dtype
