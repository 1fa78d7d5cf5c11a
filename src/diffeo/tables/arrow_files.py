"""Parquet and Arrow tables: what Arrow reads on trust is measured before and validated after.

Arrow takes what a file says of itself as it is. Offsets that point anywhere end the process in the first
computation that follows them, so nothing is computed before ``validate(full=True)``. What compressed columns
become is asked first, of the messages of an Arrow file and of the footer of a Parquet file.
"""

from __future__ import annotations

import os
from base64 import b64decode
from pathlib import Path
from struct import unpack_from
from typing import Any

import numpy as np

from diffeo._reading import Room, opened
from diffeo.errors import DataError

_BATCH = 65_536
_DICTIONARY, _RECORDS = 2, 3
"""The kinds of Arrow's messages that hold columns."""


def read_parquet(path: Path) -> Any:
    """The table of a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    with opened(path) as file:
        room = Room(file)
        # not read_table, which turns folder names like "year=2020" into columns
        source = parquet.ParquetFile(path)
        schema, about = source.schema_arrow, source.metadata
        # not the columns' own sizes: asked for damaged ones, pyarrow ends the process
        sizes = [about.row_group(i).total_byte_size for i in range(about.num_row_groups)]
        room.take(sum(max(0, size) for size in sizes), "its columns")
        # a text that repeats is stored once, and stays so until all of them are known to fit
        texts = [f.name for f in schema if _is_text(f.type)]
        source = parquet.ParquetFile(path, read_dictionary=texts)
        room = Room(file)
        found = []
        for batch in source.iter_batches(_BATCH):
            room.take(batch.get_total_buffer_size(), "its columns")
            found.append(_valid(batch, room))
        table = pa.Table.from_batches(found, found[0].schema if found else schema)
        return _as_saved(_written_out(table, schema, room), about.metadata or {})


def _valid(batch: Any, room: Room) -> Any:
    """A batch of rows that nothing can trip over; there are types whose rows take no bytes."""
    room.take(batch.num_rows, "its rows")
    batch.validate(full=True)
    return batch


def _written_out(table: Any, schema: Any, room: Room) -> Any:
    """The table in the types of its schema: text that was read as a dictionary is written out."""
    import pyarrow as pa
    from pyarrow import compute, types

    for i, (column, field) in enumerate(zip(table.columns, schema, strict=True)):
        if column.type == field.type:
            continue
        for chunk in column.chunks:
            lengths = compute.call_function("binary_length", [chunk.dictionary]).take(chunk.indices)
            size = compute.call_function("sum", [lengths]).as_py() or 0
            room.take(8 * len(chunk) + size, f"the text of column {field.name!r}")
        kind = pa.string() if types.is_string_view(field.type) else field.type
        table = table.set_column(i, field.name, column.cast(kind))
    return table


def _as_saved(table: Any, notes: dict[bytes, bytes]) -> Any:
    """The table in the types that Arrow saved it from, where Parquet has others: it knows no seconds."""
    import pyarrow as pa
    from pyarrow import types

    try:
        kept = b64decode(notes.get(b"ARROW:schema", b""))
        saved = pa.ipc.read_schema(pa.BufferReader(kept)) if kept else ()
    except (ValueError, OSError):  # Arrow's too: what a file says of itself beside its columns may be damaged
        return table
    for i, (field, was) in enumerate(zip(table.schema, saved, strict=False)):
        timed = types.is_temporal(field.type) and types.is_temporal(was.type)
        levels = types.is_dictionary(was.type) and not types.is_dictionary(field.type)
        if field.name != was.name or not (timed or levels) or field.type == was.type:
            continue
        try:
            column = table.column(i).dictionary_encode() if levels else table.column(i)
            table = table.set_column(i, field.name, column.cast(was.type))
        except pa.ArrowException:  # it is not what it was saved from
            continue
    return table


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def read_arrow(path: Path) -> Any:
    """The table of an Arrow file or stream; Feather is the former."""
    import pyarrow as pa

    with opened(path) as file:
        room = Room(file)
        data = pa.OSFile(os.fspath(path)).read_buffer()
    start = bytes(data[:6])
    if start.startswith(b"FEA1"):
        raise DataError(f"{path} is Feather of version 1, of before 2020; write it anew, or write Parquet.")
    if start == b"ARROW1":  # a file is a stream between eight bytes and its index
        data = data[8:]
    for message in pa.ipc.MessageReader.open_stream(data):
        room.take(_unpacked(bytes(message.metadata), message.body), "its columns")
    with pa.ipc.open_stream(data) as stream:
        return _copied(pa.Table.from_batches([_valid(batch, room) for batch in stream], stream.schema), room)


def _copied(table: Any, room: Room) -> Any:
    """The table with text in place of views of it, of which many may show the same."""
    import pyarrow as pa
    from pyarrow import types

    for i, (column, field) in enumerate(zip(table.columns, table.schema, strict=True)):
        levels = types.is_dictionary(field.type)
        if types.is_string_view(field.type.value_type if levels else field.type):
            for chunk in column.chunks:
                texts = chunk.dictionary if levels else chunk
                room.take(_viewed(texts), f"the text of column {field.name!r}")
            if not levels:
                table = table.set_column(i, field.name, column.cast(pa.string()))
    return table


def _viewed(texts: Any) -> int:
    """How many bytes views of text show, all in all; each begins with how many it shows itself."""
    lengths = np.frombuffer(texts.buffers()[1], np.int32)[4 * texts.offset :: 4][: len(texts)]
    return 8 * len(texts) + int(lengths[np.asarray(texts.is_valid())].astype(np.int64).clip(0).sum())


def _unpacked(about: bytes, body: Any) -> int:
    """How many bytes the compressed buffers of a message say they have unpacked; each begins with it.

    ``about`` is the flatbuffer that Arrow's ``Message.fbs`` describes, and that Arrow has verified.
    """
    message = unpack_from("<I", about)[0]
    (kind,) = unpack_from("<B", about, _field(about, message, 1))
    if kind not in (_DICTIONARY, _RECORDS):
        return 0
    records = _at(about, _field(about, message, 2))
    if kind == _DICTIONARY:
        records = _at(about, _field(about, records, 1))
    if not (_field(about, records, 2) and _field(about, records, 3)):  # buffers, and how they are compressed
        return 0
    buffers = _at(about, _field(about, records, 2))
    total = 0
    for i in range(unpack_from("<I", about, buffers)[0]):
        offset, length = unpack_from("<qq", about, buffers + 4 + 16 * i)
        if length >= 8:
            total += max(0, unpack_from("<q", body, offset)[0])
    return total


def _field(data: bytes, table: int, number: int) -> int:
    """Where a flatbuffer's table has this field; 0 where it has not."""
    fields = table - unpack_from("<i", data, table)[0]
    (size,) = unpack_from("<H", data, fields)
    (at,) = unpack_from("<H", data, fields + 4 + 2 * number) if 4 + 2 * number < size else (0,)
    return at and table + at


def _at(data: bytes, field: int) -> int:
    """Where a field of a flatbuffer points to."""
    return field + unpack_from("<I", data, field)[0]
