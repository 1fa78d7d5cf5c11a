"""``Table``: named columns, read from and written to files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from diffeo._reading import reading
from diffeo.errors import ConfigError, DataError
from diffeo.tables.checks import ColumnError, check_names, fault, refusal
from diffeo.tables.codes import as_numbers, from_numbers, type_name
from diffeo.tables.columns import Convertible, as_raw, held
from diffeo.tables.files import Raw, from_array, named, read_columns, write_columns


@runtime_checkable
class _Frame(Protocol):
    """A DataFrame of pandas, polars or the like."""

    @property
    def columns(self) -> Iterable[Any]: ...
    def __getitem__(self, name: Any, /) -> Any: ...


@runtime_checkable
class _ArrowTable(Protocol):
    """A table of pyarrow."""

    @property
    def column_names(self) -> Sequence[str]: ...
    @property
    def columns(self) -> Sequence[Any]: ...


class Table:
    """Named columns, each an array in the type it is stored in.

    ``read``, ``from_columns`` and ``of`` make one of data: of a file, of named columns, of whatever holds a
    table. A column of complete finite numbers or of booleans is a NumPy array. Any other is an Arrow array of
    its own type, in which what is missing is null: text, categories (Arrow's dictionaries), dates, times,
    instants with their zone and unit, durations, decimals, and whatever has gaps; NaN is one. What has more
    than one value a row, bytes and infinite numbers are refused with the column, the row and the cure;
    ``drop`` leaves columns unread.

    Args:
        columns: one-dimensional arrays of one length by name, which are kept as they are, unchecked: results.

    Raises:
        DataError: for columns of other shapes.

    Example:
        >>> table = Table.from_columns({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]})
        >>> table
        Table(3 rows: a int64, b float64)
        >>> table.select(["b"]).values[:, 0]
        array([0.5, 1.5, 2.5])
        >>> Table.from_columns({"word": ["x", None], "n": [1, None]})
        Table(2 rows: word string, n int64)
    """

    def __init__(self, columns: Mapping[str, Any]):
        for name, column in columns.items():
            if isinstance(column, np.ndarray) and column.ndim != 1:
                raise DataError(f"column {name!r} has shape {column.shape}; a column is one-dimensional.")
        lengths = {len(column) for column in columns.values()}
        if len(lengths) > 1:
            raise DataError(f"the columns have different lengths: {sorted(lengths)[:5]}.")
        self._columns = dict(columns)
        self._rows = max(lengths, default=0)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(self._columns)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The type of each column: as NumPy names it, with gaps or without; else as Arrow does."""
        return tuple(type_name(column) for column in self._columns.values())

    @property
    def values(self) -> np.ndarray:
        """A copy of the columns as one float64 array of (rows, columns).

        Raises:
            DataError: for columns that are not complete numbers which float64 holds.
        """
        errors = [error for name, column in self._columns.items() if (error := fault(name, column))]
        if errors:
            raise refusal(errors, len(self._columns))
        values = np.empty((self._rows, len(self._columns)))
        for i, column in enumerate(self._columns.values()):
            values[:, i] = as_numbers(column)
        return values

    # -- making one ---------------------------------------------------------------------------

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], *, drop: Sequence[str] = (), only: Sequence[str] | None = None
    ) -> Table:
        """Read CSV, Parquet, Arrow/Feather, NPY or NPZ, by the suffix.

        A column without a name is called ``index``, if it is the first, else ``column_2`` and so on. In text
        tables an empty field, ``NA``, ``NaN``, ``null`` and the like are missing; dates, decimal commas and
        marks of gaps among numbers are known for what they are.

        An NPY array gives columns x0, x1, ...; so does the 2-D array of an NPZ file, or the one
        named X (or x) among several, the others being left out; 1-D arrays are columns.

        Args:
            path: the file.
            drop: columns to leave out, whatever they hold; one name stands for itself.
            only: the columns wanted, in this order, whatever the others hold; None wants them all.

        Raises:
            DataError: for a file or columns that cannot be used, or that are not there.
            FileNotFoundError: when there is no such file.
        """
        with reading(path):
            return cls._checked(read_columns(Path(path)), drop, only)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> Table:
        """A table of named one-dimensional columns: lists, arrays or tensors."""
        return cls._checked(_raw(columns))

    @classmethod
    def from_values(cls, names: Sequence[str], values: np.ndarray, dtypes: Sequence[str] = ()) -> Table:
        """A table of the columns of a 2-D array, unchecked.

        Args:
            names: one per column, each different.
            values: numbers, ``(rows, columns)``.
            dtypes: the types to keep the columns in, NumPy's or Arrow's; none keeps the array's. A column
                that its type cannot hold (no whole numbers, or too large ones) stays as it is.
        """
        names = listed(names)
        if values.ndim != 2 or values.shape[1] != len(names):
            raise DataError(f"{len(names)} names need values of (rows, {len(names)}), not {values.shape}.")
        dtypes = dtypes or (values.dtype.name,) * len(names)
        columns = zip(names, values.T, dtypes, strict=True)
        return cls({name: from_numbers(column, dtype) for name, column, dtype in columns})

    @classmethod
    def of(cls, data: Any, *, drop: Sequence[str] = (), only: Sequence[str] | None = None) -> Table:
        """A table of whatever holds one: a table, a path, a mapping, a DataFrame, an Arrow table, a 2-D
        array or tensor (columns x0, x1, ...); ``drop`` and ``only`` as ``read`` has them."""
        if isinstance(data, Table):
            data = data.drop(drop) if drop else data
            return data if only is None else data.select(only)
        if isinstance(data, str | os.PathLike):
            return cls.read(data, drop=drop, only=only)
        return cls._checked(_raw(data), drop, only)

    @classmethod
    def _checked(cls, raw: Raw, drop: Sequence[str] = (), only: Sequence[str] | None = None) -> Table:
        if drop:
            names = [name for name, _ in raw]
            gone = {names[i] for i in _index(names, listed(drop))}  # a name that stands twice goes twice
            raw = [(name, column) for name, column in raw if name not in gone]
            if not raw:
                raise DataError("every column is dropped; leave one to model.")
        names = [name for name, _ in raw]
        if only is not None:
            index = _index(names, listed(only))
            raw, wanted = [raw[i] for i in index], {names[i] for i in index}
            names = [name for name in names if name in wanted]
        check_names(names)
        columns, errors = {}, []
        for name, column in raw:
            try:
                columns[name] = held(name, as_raw(column))
            except ColumnError as error:
                errors.append(error)
        if errors:  # a column that is wanted by name cannot be left out
            raise refusal(errors, len(raw)) if only is None else DataError(str(errors[0]))
        table = cls(columns)
        if not len(table):
            raise DataError("the table has no rows.")
        return table

    # -- parts of it --------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        named = ", ".join(f"{n} {d}" for n, d in zip(self.names, self.dtypes, strict=True))
        return f"Table({len(self)} rows: {named})"

    def column(self, name: str) -> Any:
        """One column, in its own type: a NumPy array of complete numbers or booleans, else an Arrow array."""
        return self._columns[self.own(name)[0]]

    def own(self, names: Iterable[str]) -> list[str]:
        """These names as the table has them: blanks around a name, and numbers for names, are found too.

        Example:
            >>> Table.from_columns({"x": [1], " y": [2]}).own(["y"])
            [' y']
        """
        return [self.names[i] for i in _index(self.names, listed(names))]

    def select(self, names: Iterable[str]) -> Table:
        """The table of these columns, in this order; one name stands for itself."""
        names = self.own(names)
        return Table({name: self._columns[name] for name in names})

    def drop(self, names: Iterable[str]) -> Table:
        """The table without these columns."""
        gone = set(_index(self.names, listed(names)))
        return self.select(n for i, n in enumerate(self.names) if i not in gone)

    def rows(self, index: Any) -> Table:
        """The table of these rows: a slice, row numbers from 0, or a boolean mask."""
        order = None
        columns = {}
        for name, column in self._columns.items():
            if not isinstance(column, np.ndarray):  # Arrow takes row numbers only
                order = np.arange(self._rows)[index] if order is None else order
            columns[name] = column[index] if isinstance(column, np.ndarray) else column.take(order)
        return Table(columns)

    def beside(self, other: Table) -> Table:
        """The table of these columns and then the other table's, row by row."""
        both = set(self.names) & set(other.names)
        if both:
            raise DataError(f"the table has a column {min(both)!r} already; rename it.")
        return Table(self._columns | other._columns)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write to the kind of file the suffix says, each column in its own type; ``-`` is CSV on
        standard output. The file appears complete or not at all.

        Raises:
            DataError: for an unknown suffix or a folder that does not exist.
        """
        write_columns(path, self._columns)

    def to_pandas(self) -> Any:
        """A pandas ``DataFrame``, each column in its own type.

        Raises:
            ConfigError: where pandas, which diffeo does not depend on, is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ConfigError("pandas is not installed: pip install pandas") from None
        from diffeo.tables.frames import as_series

        return pandas.DataFrame({name: as_series(column) for name, column in self._columns.items()})


def _raw(data: Any) -> Raw:
    """Names and columns of whatever holds a table in memory."""
    if isinstance(data, Mapping):
        return named([(str(name), column) for name, column in data.items()])
    if isinstance(data, Convertible):
        return _raw(data.to_arrow())
    if isinstance(data, _ArrowTable):
        return named(list(zip(data.column_names, data.columns, strict=True)))
    if isinstance(data, _Frame):
        names = [str(name) for name in data.columns]
        check_names(names)
        return named([(n, data[key]) for n, key in zip(names, data.columns, strict=True)])
    return from_array(as_raw(data), "data")


def listed(names: Iterable[str]) -> list[str]:
    """Names as a list; one name stands for itself, not for its letters.

    Example:
        >>> listed("age"), listed(("a", "b"))
        (['age'], ['a', 'b'])
    """
    return list(names) if isinstance(names, Iterable) and not isinstance(names, str) else [names]


def _index(has: Sequence[str], names: Sequence[str]) -> list[int]:
    """Where the names are among those a table has: as they are, else as text and without blanks around it.

    A header ``x, y`` names its second column " y", and a DataFrame's columns may be numbers.
    """
    position: dict[str, int] = {}
    for i, name in enumerate(has):
        position.setdefault(name.strip(), i)
    position |= {name: i for i, name in enumerate(has)}
    names = [str(name) if str(name) in position else str(name).strip() for name in names]
    missing = [name for name in names if name not in position]
    if missing:
        known = ", ".join(has[:30]) + (f" and {len(has) - 30} more" if len(has) > 30 else "")
        raise DataError(f"no column {', '.join(map(repr, missing[:8]))} in this table; it has {known}.")
    return [position[name] for name in names]
