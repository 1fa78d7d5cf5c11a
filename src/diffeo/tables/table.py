"""``Table``: named columns of numbers, read from and written to files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffeo.errors import ConfigError, DataError
from diffeo.tables.checks import ColumnError, as_raw, check_names, numbers, refusal
from diffeo.tables.files import Raw, from_array, read_columns, write_columns


class Table:
    """Named columns of finite numbers: a float64 array of (rows, columns).

    Each column remembers the type it was stored in, and ``write`` gives it back in that type. What a
    table cannot hold (text, categories, dates, missing or infinite values, integers beyond 2^53) is
    refused with the column, the row and the cure; ``drop`` leaves columns out unread.

    Make one with ``Table.read(path)``, ``Table.from_columns({"a": [1.0, 2.0]})``, or ``Table.of``
    of a 2-D array, a DataFrame, an Arrow table or another table.

    Args:
        names: one per column, each different.
        values: float64, ``(rows, columns)``.
        dtypes: the type each column is stored in, as numpy names it; default float64.

    Example:
        >>> table = Table.from_columns({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]})
        >>> table
        Table(3 rows: a int64, b float64)
        >>> table.select(["b"]).values[:, 0]
        array([0.5, 1.5, 2.5])
    """

    def __init__(self, names: Sequence[str], values: np.ndarray, dtypes: Sequence[str] | None = None):
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(names):
            raise DataError(f"{len(names)} names need values of (rows, {len(names)}), not {values.shape}.")
        self.names = tuple(names)
        self.values = values
        self.dtypes = ("float64",) * len(names) if dtypes is None else tuple(dtypes)

    # -- making one ---------------------------------------------------------------------------

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], *, drop: Sequence[str] = (), only: Sequence[str] | None = None
    ) -> Table:
        """Read CSV, Parquet, Arrow/Feather, NPY or NPZ, by the suffix.

        An NPY array gives columns x0, x1, ...; so does the 2-D array of an NPZ file, or the one
        named X (or x) among several, the others being left out; 1-D arrays are columns.

        Args:
            path: the file.
            drop: columns to leave out, whatever they hold.
            only: the columns wanted, in this order, whatever the others hold; None wants them all.

        Raises:
            DataError: for a file or columns that cannot be used, or that are not there.
            FileNotFoundError: when there is no such file.
        """
        try:
            return cls._checked(read_columns(Path(path)), drop, only)
        except DataError as error:
            message = str(error)
            message = message if str(path) in message else f"{path}: {message}"
            raise DataError(message, cure=error.cure) from None

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> Table:
        """A table of named one-dimensional columns: lists, arrays or tensors."""
        return cls._checked(cls._raw(columns))

    @classmethod
    def of(cls, data: Any, *, drop: Sequence[str] = (), only: Sequence[str] | None = None) -> Table:
        """A table of whatever holds one: a table, a path, a mapping, a DataFrame, an Arrow table, a 2-D
        array or tensor (columns x0, x1, ...); ``drop`` and ``only`` as ``read`` has them."""
        if isinstance(data, Table):
            data = data.drop(drop) if drop else data
            return data if only is None else data.select(only)
        if isinstance(data, str | os.PathLike):
            return cls.read(data, drop=drop, only=only)
        return cls._checked(cls._raw(data), drop, only)

    @staticmethod
    def _raw(data: Any) -> Raw:
        if isinstance(data, Mapping):
            return [(str(name), as_raw(column)) for name, column in data.items()]
        if hasattr(data, "column_names"):  # pyarrow
            return list(zip(data.column_names, data.columns, strict=True))
        if hasattr(data, "columns") and hasattr(data, "__getitem__"):  # pandas, polars
            names = [str(name) for name in data.columns]
            check_names(names)
            return [(n, as_raw(data[key])) for n, key in zip(names, data.columns, strict=True)]
        return from_array(as_raw(data), "data")

    @classmethod
    def unchecked(cls, columns: Mapping[str, np.ndarray]) -> Table:
        """A table of results, which may hold what data may not: a score of -inf."""
        return cls(tuple(columns), np.stack(list(columns.values()), 1))

    @classmethod
    def _checked(cls, raw: Raw, drop: Sequence[str] = (), only: Sequence[str] | None = None) -> Table:
        names = [name for name, _ in raw]
        check_names(names)
        if drop:
            gone = set(_index(names, drop))
            raw = [pair for i, pair in enumerate(raw) if i not in gone]
            if not raw:
                raise DataError("every column is dropped; leave one to model.")
        if only is not None:
            raw = [raw[i] for i in _index([name for name, _ in raw], only)]
        columns, errors = [], []
        for name, column in raw:
            try:
                columns.append(numbers(name, column))
            except ColumnError as error:
                errors.append(error)
        if errors:  # a column that is wanted by name cannot be left out
            raise refusal(errors) if only is None else DataError(str(errors[0]))
        lengths = {len(values) for values, _ in columns}
        if len(lengths) > 1:
            raise DataError(f"the columns have different lengths: {sorted(lengths)[:5]}.")
        if lengths == {0}:
            raise DataError("the table has no rows.")
        return cls([name for name, _ in raw], np.stack([v for v, _ in columns], 1), [d for _, d in columns])

    # -- parts of it --------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        named = ", ".join(f"{n} {d}" for n, d in zip(self.names, self.dtypes, strict=True))
        return f"Table({len(self)} rows: {named})"

    def column(self, name: str) -> np.ndarray:
        """One column's values, float64."""
        return self.values[:, _index(self.names, [name])[0]]

    def select(self, names: Iterable[str]) -> Table:
        """The table of these columns, in this order."""
        names = list(names)
        index = _index(self.names, names)
        return Table(names, self.values[:, index], [self.dtypes[i] for i in index])

    def drop(self, names: Iterable[str]) -> Table:
        """The table without these columns."""
        gone = set(_index(self.names, list(names)))
        return self.select(n for i, n in enumerate(self.names) if i not in gone)

    def rows(self, index: Any) -> Table:
        """The table of these rows: a slice, row numbers from 0, or a boolean mask."""
        return Table(self.names, self.values[index], self.dtypes)

    def beside(self, other: Table) -> Table:
        """The table of these columns and then the other table's, row by row."""
        both = set(self.names) & set(other.names)
        if both:
            raise DataError(f"the table has a column {min(both)!r} already; rename it.")
        values = np.concatenate([self.values, other.values], 1)
        return Table((*self.names, *other.names), values, (*self.dtypes, *other.dtypes))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write to the kind of file the suffix says, each column in its own type; ``-`` is CSV on
        standard output. The file appears complete or not at all.

        Integer columns that no longer hold whole numbers in range are written as float64.

        Raises:
            DataError: for an unknown suffix or a folder that does not exist.
        """
        columns = zip(self.names, self.values.T, self.dtypes, strict=True)
        write_columns(path, {name: _stored(values, dtype) for name, values, dtype in columns})

    def to_pandas(self) -> Any:
        """A pandas ``DataFrame``, each column in its own type as ``write`` has it.

        Raises:
            ConfigError: where pandas, which diffeo does not depend on, is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ConfigError("pandas is not installed: pip install pandas") from None
        columns = zip(self.names, self.values.T, self.dtypes, strict=True)
        return pandas.DataFrame({name: _stored(values, dtype) for name, values, dtype in columns})


def _index(has: Sequence[str], names: Sequence[str]) -> list[int]:
    """Where the names are among those a table has."""
    position = {name: i for i, name in enumerate(has)}
    missing = [name for name in names if name not in position]
    if missing:
        known = ", ".join(has[:30]) + (f" and {len(has) - 30} more" if len(has) > 30 else "")
        raise DataError(f"no column {', '.join(map(repr, missing[:8]))} in this table; it has {known}.")
    return [position[name] for name in names]


def _stored(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype.startswith("float"):
        with np.errstate(over="ignore"):
            return values.astype(dtype)
    low, high = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    fits = np.isfinite(values) & (values == np.floor(values)) & (values >= low) & (values <= high)
    return values.astype(dtype) if fits.all() else values
