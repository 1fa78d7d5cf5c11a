"""Table files: reading them into columns, writing them whole or not at all."""

from __future__ import annotations

import csv
import errno
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from diffeo._files import check_output, replacing
from diffeo.errors import DataError

Raw = list[tuple[str, Any]]
"""Names and columns as read: numpy arrays or pyarrow arrays, not yet checked."""

_CSV, _ARROW = (".csv", ".tsv", ".txt"), (".feather", ".arrow", ".ipc")
_READS = "CSV (.csv, .tsv, .txt), Parquet (.parquet, .pq), Arrow (.feather, .arrow, .ipc), NumPy (.npy, .npz)"


def read_columns(path: Path) -> Raw:
    """The columns of a table file, by its suffix; every failure is a ``DataError`` that says what."""
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    suffix = path.suffix.lower()
    reader = _READERS.get(suffix)
    if reader is None:
        raise DataError(f"{path}: unknown kind of table {suffix or '(no suffix)'!r}; use {_READS}.")
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a table.")
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes).")
    try:
        return reader(path)
    except (DataError, FileNotFoundError, PermissionError):
        raise
    except (ValueError, TypeError, OSError, EOFError, KeyError, MemoryError, OverflowError) as error:
        detail = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path} cannot be read as {suffix[1:]}: it is truncated, damaged or of another kind ({detail})."
        ) from None


def _read_csv(path: Path) -> Raw:
    from pyarrow import csv as arrow_csv

    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        head = file.readline(1 << 20)
    bare = re.sub(r'(^|[,;\t])"(?:[^"]|"")*"', r"\1", head)  # what stands in quotes parts nothing
    delimiter = "\t" if path.suffix.lower() == ".tsv" and "\t" in bare else max(",;\t", key=bare.count)
    names = next(csv.reader([head], delimiter=delimiter), [])
    # numbers for names mean that there is no header, unless they simply count
    if names and all(map(_is_number, names)) and names != [str(i) for i in range(len(names))]:
        raise DataError(f"{path}: the first line holds numbers, not column names; add a header line.")
    options = arrow_csv.ParseOptions(delimiter=delimiter)
    try:
        return _from_arrow(arrow_csv.read_csv(path, parse_options=options))
    except ValueError:  # Arrow's, which does not say where
        _check_widths(path, delimiter)
        raise


def _check_widths(path: Path, delimiter: str) -> None:
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = csv.reader(file, delimiter=delimiter)
        try:
            width = len(next(lines, []))
            odd = next((row for row in lines if row and len(row) != width), None)
        except csv.Error:
            return
    if odd is not None:
        raise DataError(
            f"{path}: line {lines.line_num} has {len(odd)} values, but the header names {width} columns; "
            f"correct or drop the line."
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> Raw:
    from pyarrow import parquet

    # not read_table, which turns folder names like "year=2020" into columns
    return _from_arrow(parquet.ParquetFile(path).read())


def _read_arrow(path: Path) -> Raw:
    import pyarrow as pa
    from pyarrow import feather

    try:
        return _from_arrow(feather.read_table(path))
    except pa.ArrowInvalid:
        with pa.OSFile(os.fspath(path)) as file, pa.ipc.open_stream(file) as stream:
            return _from_arrow(stream.read_all())


def _from_arrow(table: Any) -> Raw:
    return list(zip(table.column_names, table.columns, strict=True))


def _read_npy(path: Path) -> Raw:
    with open(path, "rb") as file:  # numpy leaves a file it opened itself open when it fails
        array = np.load(file, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path} is an NPZ archive; name it .npz.")
    if array.dtype.names is not None:
        return [(name, array[name]) for name in array.dtype.names]
    return from_array(array, str(path))


def _read_npz(path: Path) -> Raw:
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise DataError(f"{path} is a single array; name it .npy.")
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(error) from None
    main = next((arrays[n] for n in ("X", "x") if n in arrays and arrays[n].ndim == 2), None)
    if main is None and len(arrays) == 1:
        main = next(iter(arrays.values()))
    if main is not None:
        return from_array(main, str(path))
    if arrays and all(a.ndim == 1 for a in arrays.values()) and len({len(a) for a in arrays.values()}) == 1:
        return list(arrays.items())
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
    return [(f"x{i}", array[:, i]) for i in range(array.shape[1])]


_READERS: dict[str, Callable[[Path], Raw]] = {
    **dict.fromkeys(_CSV, _read_csv),
    **dict.fromkeys((".parquet", ".pq"), _read_parquet),
    **dict.fromkeys(_ARROW, _read_arrow),
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
        detail = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: {suffix} cannot hold these columns ({detail}); write .parquet.") from None


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
            raise ValueError(f"column {name!r} holds {array.dtype}")
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
