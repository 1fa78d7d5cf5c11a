"""Text tables: CSV and its kin, plain or packed by gzip."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from diffeo._reading import Room, opened
from diffeo.errors import DataError
from diffeo.tables.csv_values import GAPS, typed

SUFFIXES = (".csv", ".tsv", ".txt")
_HEAD = 2**20
_PART = 2**20
_MARKS = {  # the longer ones first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""How a text's first bytes say that it is stored."""
_COLUMN = 2**14
"""Bytes that Arrow's reader takes for a column, before any row."""
_NUMBER = 4
"""Bytes that a byte of text becomes at most: a digit and its comma are a number of eight."""


def read_csv(path: Path) -> Any:
    """The columns of a text table as an Arrow table; what is wrong is said with its line.

    Lines before the header that are empty or begin with ``#`` are skipped. Text is UTF-8, or
    UTF-16 or UTF-32 where its first bytes say so, or else Windows-1252, which most Latin-1 is too. Where the
    header names one column fewer than the rows have, as R writes it, the first has no name.
    ``csv_values`` says what the words stand for.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    encoding = _encoding(path)
    layout = _layout(path, encoding)
    named = {} if layout.names is None else {"column_names": layout.names}
    try:
        table = arrow_csv.read_csv(
            _source(path, encoding),
            read_options=arrow_csv.ReadOptions(skip_rows=layout.skip, **named),
            parse_options=arrow_csv.ParseOptions(delimiter=layout.delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                null_values=GAPS, strings_can_be_null=True, quoted_strings_can_be_null=False
            ),
        )
    except ValueError:  # Arrow's, which does not say where
        _check_widths(path, encoding, layout)
        raise
    columns = [typed(column, commas=layout.delimiter != ",") for column in table.columns]
    return pa.table(columns, names=table.column_names)


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


def _encoding(path: Path) -> str:
    """How the file's characters are stored, by all of its bytes."""
    with _bytes_of(path) as (file, room):
        decoder, encoding = codecs.getincrementaldecoder("utf-8")(), "utf-8-sig"
        while part := file.read(_PART):
            room.take(_NUMBER * len(part), "its text")
            if file.tell() == len(part) and (found := next(filter(part.startswith, _MARKS), None)):
                return _MARKS[found]
            if b"\0" in part:
                raise DataError("it holds bytes of 0, so it is not text; save it as CSV.")
            try:
                decoder.decode(part)
            except UnicodeDecodeError:
                encoding, decoder = "cp1252", codecs.getincrementaldecoder("latin-1")()
    return encoding


def _source(path: Path, encoding: str) -> Any:
    """What Arrow reads the text from: nothing of Python's, which its threads may hold as Python ends."""
    if path.suffix.lower() != ".gz" and encoding == "utf-8-sig":
        return path
    import pyarrow as pa

    text = pa.BufferOutputStream()
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    with _bytes_of(path) as (file, room):
        while part := file.read(_PART):
            part = decoder.decode(part).encode()
            room.take(_NUMBER * len(part), "its text")
            text.write(part)
    return pa.BufferReader(text.getvalue())


@dataclass(frozen=True)
class _Layout:
    """Where a text table's rows begin, and what parts their values.

    Args:
        delimiter: what stands between values.
        skip: lines before the header, or before the rows where ``names`` are given.
        width: how many values a row has.
        names: the columns' names, where the header lacks one.
    """

    delimiter: str
    skip: int
    width: int
    names: list[str] | None = None


def _layout(path: Path, encoding: str) -> _Layout:
    with _lines_of(path, encoding) as (text, room):
        skip, comment = 0, ""
        while (line := text.readline(_HEAD)) and (not line.strip() or line.lstrip().startswith("#")):
            skip, comment = skip + line.endswith(("\n", "\r")), line.strip()
        head = line + text.read(_HEAD)
        if not head.strip():
            raise DataError("it holds no columns, only empty lines and comments.")
        delimiter = _delimiter(head or comment, _suffixes(path)[-1])
        reader = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)
        names, header_lines = _record(reader), reader.line_num
        first, second = _record(reader), _record(reader)
        above = _record(csv.reader([comment], delimiter=delimiter)) if comment else []
        # a header may begin with # itself
        if len(above) == len(names) and not (
            _are_names(names) and (len(names) == 1 or not _are_names(first))
        ):
            skip, names, first, second, header_lines = skip - 1, above, names, first, 1
        # numbers for names mean that there is no header, unless they simply count
        if names and all(map(_is_number, names)) and names != [str(i) for i in range(len(names))]:
            raise DataError("the first line holds numbers, not column names; add a header line.")
        room.take(_COLUMN * len(names), f"{len(names)} columns")
    width = len(names) + 1
    if len(first) != width or (second and len(second) != width):
        return _Layout(delimiter, skip, len(names))
    ends = not first[-1] and not (second and second[-1])  # each row ends in a delimiter
    names = [*names, ""] if ends else ["", *names]
    return _Layout(delimiter, skip + header_lines, width, names)


@contextmanager
def _lines_of(path: Path, encoding: str) -> Iterator[tuple[io.TextIOWrapper, Room]]:
    with _bytes_of(path) as (file, room):
        text = io.TextIOWrapper(file, encoding, errors="replace", newline="")
        try:
            yield text, room
        finally:
            text.detach()


def _record(reader: Any) -> list[str]:
    """The next row of text that is not empty, if there is one."""
    try:
        return next(filter(None, reader), [])
    except csv.Error:  # a value that is too long to be one
        return []


def _delimiter(head: str, suffix: str) -> str:
    bare = re.sub(r'(^|[,;\t|])"(?:[^"]|"")*"', r"\1", head)  # what stands in quotes parts nothing
    header = bare.lstrip("\r\n").partition("\n")[0]
    return "\t" if suffix.lower() == ".tsv" and "\t" in header else max(",;\t|", key=header.count)


def _check_widths(path: Path, encoding: str, layout: _Layout) -> None:
    """Name the first line of another width than the others, if there is one."""
    with _lines_of(path, encoding) as (text, _):
        for _ in range(layout.skip):
            text.readline()
        lines = csv.reader(text, delimiter=layout.delimiter)
        try:
            odd = next((row for row in lines if row and len(row) != layout.width), None)
        except csv.Error:
            return
    if odd is None:
        return
    number = layout.skip + lines.line_num
    if odd[0].lstrip().startswith("#"):
        raise DataError(f"line {number} is a comment; remove the lines that begin with #.")
    what = f"the header names {layout.width} columns" if layout.names is None else f"a row has {layout.width}"
    raise DataError(f"line {number} has {len(odd)} values, but {what}; correct or drop the line.")


def _are_names(row: list[str]) -> bool:
    return all(text.strip() and not _is_number(text) for text in row)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
