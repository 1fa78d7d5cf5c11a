"""Table files: reading them into columns, writing them whole or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from diffeo._files import check_output, replacing
from diffeo._reading import arrays_in, cleaned, reading
from diffeo.errors import DataError
from diffeo.tables.arrow_files import read_arrow, read_parquet
from diffeo.tables.csv_files import SUFFIXES as TEXTS
from diffeo.tables.csv_files import read_csv

Raw = list[tuple[str, Any]]
"""Names and columns as read: numpy arrays or pyarrow arrays, not yet checked."""

_ARROW = (".feather", ".arrow", ".ipc")
_MOST_COLUMNS = 100_000
_READS = (
    "CSV (.csv, .tsv, .txt, and these with .gz), Parquet (.parquet, .pq), Arrow (.feather, .arrow, .ipc), "
    "NumPy (.npy, .npz)"
)


def read_columns(path: Path) -> Raw:
    """The columns of a table file, by its suffix; every failure is a ``DataError`` that says what."""
    with reading(path):
        if os.fspath(path) == "-":
            raise DataError(
                "a table is read from a file, and - is not one; save what comes in as .csv first."
            )
        suffix = "".join(path.suffixes[-2:]).lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
        if suffix not in _READERS and path.exists():
            raise DataError(f"{path}: unknown kind of table {suffix or '(no suffix)'!r}; use {_READS}.")
        return named(_READERS.get(suffix, _READERS[".csv"])(path))


def named(raw: Raw) -> Raw:
    """The columns with a name each: a nameless first one is an index that R or pandas saved.

    A nameless column in which nothing stands is none: lines that end in a delimiter make it.
    """
    taken = {name for name, _ in raw}
    found = []
    for i, (name, column) in enumerate(raw):
        if not name.strip():
            if i and getattr(column, "null_count", 0) == len(column):
                continue
            name = "index" if i == 0 else f"column_{i + 1}"
            while name in taken:
                name += "_"
            taken.add(name)
        found.append((name, column))
    return found


def _read_npy(path: Path) -> Raw:
    with arrays_in(path) as arrays:
        if "" not in arrays:
            raise DataError(f"{path} is an NPZ archive; name it .npz.")
        array = arrays[""].read()
    if array.dtype.names is not None:
        return [(name, array[name]) for name in array.dtype.names]
    return from_array(array, str(path))


def _read_npz(path: Path) -> Raw:
    with arrays_in(path) as arrays:
        if "" in arrays:
            raise DataError(f"{path} is a single array; name it .npy.")
        main = next((arrays[n] for n in ("X", "x") if n in arrays and len(arrays[n].shape) == 2), None)
        if main is None and len(arrays) == 1:
            main = next(iter(arrays.values()))
        if main is not None:
            return from_array(main.read(), str(path))
        shapes = {a.shape for a in arrays.values()}
        if len(shapes) == 1 and all(len(shape) == 1 for shape in shapes):
            return [(name, array.read()) for name, array in arrays.items()]
    found = ", ".join(f"{name} {a.shape}" for name, a in list(arrays.items())[:12]) or "nothing"
    raise DataError(
        f"{path} holds {found}; a table is one 2-D array, an array X, or 1-D arrays of one length."
    )


def from_array(array: np.ndarray, what: str) -> Raw:
    """The columns x0, x1, ... of a 2-D array (of a 1-D array: the column x0)."""
    if array.ndim not in (1, 2):
        raise DataError(
            f"{what}: an array of shape {array.shape} is not a table; give one of (rows, columns)."
        )
    array = array[:, None] if array.ndim == 1 else array
    if array.shape[1] > _MOST_COLUMNS:
        raise DataError(
            f"{what} has {array.shape[1]} columns, of at most {_MOST_COLUMNS:,}; is it transposed?"
        )
    return [(f"x{i}", array[:, i]) for i in range(array.shape[1])]


def _from_arrow(read: Callable[[Path], Any]) -> Callable[[Path], Raw]:
    def columns(path: Path) -> Raw:
        table = read(path)
        return list(zip(table.column_names, table.columns, strict=True))

    return columns


_READERS: dict[str, Callable[[Path], Raw]] = {
    **dict.fromkeys(TEXTS, _from_arrow(read_csv)),
    **dict.fromkeys((f"{suffix}.gz" for suffix in TEXTS), _from_arrow(read_csv)),
    **dict.fromkeys((".parquet", ".pq"), _from_arrow(read_parquet)),
    **dict.fromkeys(_ARROW, _from_arrow(read_arrow)),
    ".npy": _read_npy,
    ".npz": _read_npz,
}


# -- writing ------------------------------------------------------------------------------------


def write_columns(path: str | os.PathLike[str], columns: Mapping[str, Any]) -> None:
    """Write columns, NumPy's or Arrow's, to the kind of file the suffix says; ``-`` is CSV on stdout.

    Raises:
        DataError: for an output path that cannot work, or columns that such a file cannot hold.
    """
    check_output(path, tuple(WRITERS))
    suffix = Path(path).suffix.lower() or ".csv"
    try:
        if str(path) == "-":
            _write_csv(sys.stdout.buffer, columns, ",")
            sys.stdout.flush()
            return
        with replacing(path) as file:
            WRITERS[suffix](file, columns)
    except (ValueError, TypeError, NotImplementedError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: {suffix} cannot hold these columns ({cleaned(error)}); write .parquet."
        ) from None


def _arrow_table(columns: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    arrays = (pa.array(c) if isinstance(c, np.ndarray) else c for c in columns.values())
    return pa.table(dict(zip(columns, arrays, strict=True)))


def _write_csv(file: IO[bytes], columns: Mapping[str, Any], delimiter: str = ",") -> None:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    # half precision has no text form in Arrow
    wide = {
        n: c.astype(np.float32) if isinstance(c, np.ndarray) and c.dtype == np.float16 else c
        for n, c in columns.items()
    }
    quote = "needed" if any(set(n) & set('",;\t\r\n') for n in columns) else "none"
    options = arrow_csv.WriteOptions(delimiter=delimiter, quoting_header=quote)
    sink = pa.BufferOutputStream()
    arrow_csv.write_csv(_arrow_table(wide), sink, options)
    rest = memoryview(sink.getvalue())
    while rest:  # standard output under PYTHONUNBUFFERED is raw and takes a part at a time
        rest = rest[file.write(rest) :]


def _write_tsv(file: IO[bytes], columns: Mapping[str, Any]) -> None:
    _write_csv(file, columns, "\t")


def _write_parquet(file: IO[bytes], columns: Mapping[str, Any]) -> None:
    from pyarrow import parquet

    parquet.write_table(_arrow_table(columns), file)


def _write_feather(file: IO[bytes], columns: Mapping[str, Any]) -> None:
    from pyarrow import feather

    feather.write_feather(_arrow_table(columns), file)


def _write_npy(file: IO[bytes], columns: Mapping[str, Any]) -> None:
    # Names are lost; text would turn its neighbors into text.
    np.save(file, np.stack(list(_arrays(columns, "biuf").values()), 1), allow_pickle=False)


def _arrays(columns: Mapping[str, Any], kinds: str) -> dict[str, np.ndarray]:
    """The columns as arrays of these kinds of NumPy's; objects would be pickled."""
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in kinds:
            held = columns[name]
            held = held.dtype if isinstance(held, np.ndarray) else held.type
            raise ValueError(f"column {name!r} holds {held}")
    return arrays


def _write_npz(file: IO[bytes], columns: Mapping[str, Any]) -> None:
    taken = sorted({"file", "allow_pickle"} & set(columns))  # numpy keeps these to itself
    if taken:
        raise DataError(f"an NPZ file cannot hold a column named {taken[0]!r}; write another kind of table.")
    np.savez(file, **_arrays(columns, "biufU"))  # pyright: ignore[reportArgumentType]


WRITERS: dict[str, Callable[[IO[bytes], Mapping[str, Any]], None]] = {
    ".csv": _write_csv,
    ".tsv": _write_tsv,
    ".txt": _write_csv,
    **dict.fromkeys((".parquet", ".pq"), _write_parquet),
    **dict.fromkeys(_ARROW, _write_feather),
    ".npy": _write_npy,
    ".npz": _write_npz,
}
