"""Text tables: CSV and its kin, plain or packed by gzip."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from diffeo._reading import Room, opened
from diffeo.errors import DataError

SUFFIXES = (".csv", ".tsv", ".txt")
_LONGEST_LINE = 2**20
_COLUMN = 2**14
"""Bytes that Arrow's reader takes for a column, before any row."""
_NUMBER = 4
"""Bytes that a byte of text becomes at most: a digit and its comma are a number of eight."""


def read_csv(path: Path) -> Any:
    """The columns of a text table as an Arrow table; what is wrong is said with its line."""
    from pyarrow import csv as arrow_csv

    with _bytes_of(path) as (file, room):
        first, second = (_decoded(file.readline(_LONGEST_LINE), i) for i in (1, 2))
        delimiter = _delimiter(first, _suffixes(path)[-1])
        names, values = (next(csv.reader([line], delimiter=delimiter), []) for line in (first, second))
        if first.lstrip().startswith("#") and (len(names) != len(values) or len(names) == 1):
            raise DataError(
                "line 1 is a comment, not the columns' names; remove the lines that begin with #."
            )
        # numbers for names mean that there is no header, unless they simply count
        if names and all(map(_is_number, names)) and names != [str(i) for i in range(len(names))]:
            raise DataError("the first line holds numbers, not column names; add a header line.")
        room.take(_COLUMN * len(names), f"{len(names)} columns")
    options = arrow_csv.ParseOptions(delimiter=delimiter)
    try:
        return arrow_csv.read_csv(_source(path), parse_options=options)
    except ValueError:  # Arrow's, which does not say where
        _check_widths(path, delimiter)
        raise


def _suffixes(path: Path) -> list[str]:
    return path.with_suffix("").suffixes if path.suffix.lower() == ".gz" else path.suffixes


@contextmanager
def _bytes_of(path: Path) -> Iterator[tuple[BinaryIO, Room]]:
    """The file's text, unpacked, and the memory that it may take."""
    with opened(path) as file:
        room = Room(file)
        if path.suffix.lower() != ".gz":
            yield file, room
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield cast(BinaryIO, unpacked), room


def _source(path: Path) -> Any:
    """What Arrow reads the text from: nothing of Python's, which its threads may hold as Python ends."""
    if path.suffix.lower() != ".gz":
        return path
    import pyarrow as pa

    unpacked = pa.BufferOutputStream()
    with _bytes_of(path) as (file, room):
        while part := file.read(2**20):
            room.take(_NUMBER * len(part), "its text")
            unpacked.write(part)
    return pa.BufferReader(unpacked.getvalue())


def _decoded(line: bytes, number: int) -> str:
    if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("the text is UTF-16; save it as UTF-8.")
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        if number > 1 or error.end == len(line) == _LONGEST_LINE:
            return line.decode(errors="replace")
        guess = line.decode("latin-1").strip()[:80]
        raise DataError(f"line 1 is not UTF-8 text (in Latin-1 it is {guess!r}); save it as UTF-8.") from None


def _delimiter(header: str, suffix: str) -> str:
    bare = re.sub(r'(^|[,;\t])"(?:[^"]|"")*"', r"\1", header)  # what stands in quotes parts nothing
    return "\t" if suffix.lower() == ".tsv" and "\t" in bare else max(",;\t", key=bare.count)


def _check_widths(path: Path, delimiter: str) -> None:
    """Name the first line of another width than the header, if there is one."""
    with _bytes_of(path) as (file, _):
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
        lines = csv.reader(text, delimiter=delimiter)
        try:
            width = len(next(lines, []))
            odd = next((row for row in lines if row and len(row) != width), None)
        except csv.Error:
            return
        finally:
            text.detach()
    if odd is None:
        return
    if odd[0].lstrip().startswith("#"):
        raise DataError(f"line {lines.line_num} is a comment; remove the lines that begin with #.")
    r_names = lines.line_num == 2 and len(odd) == width + 1
    cure = (
        "if these are R's names of rows, write it with row.names=FALSE"
        if r_names
        else "correct or drop the line"
    )
    raise DataError(
        f"line {lines.line_num} has {len(odd)} values, but the header names {width} columns; {cure}."
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
