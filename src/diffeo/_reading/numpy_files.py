"""Arrays in NPY and NPZ files: looked at from outside before memory is taken for them."""

from __future__ import annotations

import ast
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from diffeo._reading.door import Room, opened
from diffeo.errors import DataError

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000
"""Characters, as NumPy has it: what is longer is a danger to Python's own parser."""
_CHUNK = 2**20


@dataclass(frozen=True)
class Stored:
    """An array that a file holds and that is not read yet; the file has as many bytes as its header says."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], np.ndarray]
    """The array; a ``DataError`` where it would take more memory than its file explains."""


@contextmanager
def arrays_in(path: str | os.PathLike[str]) -> Iterator[dict[str, Stored]]:
    """The arrays of an NPZ file by name, or the one of an NPY file as "", to be read within the block.

    Nothing is unpickled.

    Raises:
        DataError: for an array of Python objects, and for a file that ``opened`` refuses.
    """
    with opened(path) as file:
        room = Room(file)
        start = file.read(len(_MAGIC))
        file.seek(0)
        if start == _MAGIC:
            yield {"": _stored(lambda: _again(file), room.size, room, "its array")}
            return
        with zipfile.ZipFile(file) as archive:
            yield {name: _member(archive, info, room, name) for name, info in _members(archive)}


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    for info in archive.infolist():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # others have dictionaries of any size
            raise DataError(f"{info.filename!r} in it is packed as NumPy never does; save it anew.")
        yield info.filename.removesuffix(".npy"), info


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, room: Room, name: str) -> Stored:
    return _stored(lambda: archive.open(info), info.file_size, room, f"the array {name!r} in it")


@contextmanager
def _again(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The file from its start, left open."""
    file.seek(0)
    yield file


def _stored(
    source: Callable[[], AbstractContextManager[IO[bytes]]], size: int, room: Room, what: str
) -> Stored:
    with source() as file:
        shape, by_column, dtype = _header(file)
        if dtype.hasobject:
            raise DataError(f"{what} holds Python objects, which are never read; save numbers.")
        count = math.prod(shape)
        if any(n < 0 for n in shape) or file.tell() + count * dtype.itemsize != size:
            raise ValueError(f"{what} is {shape} {dtype} by its header, and not by its length")
        start = file.tell()

    def read() -> np.ndarray:
        room.take(count * dtype.itemsize, what)
        flat = np.empty(count * dtype.itemsize, np.uint8)
        with source() as file:
            file.read(start)
            rest = flat.data
            while rest:
                if not (got := file.readinto(rest[:_CHUNK])):  # pyright: ignore[reportAttributeAccessIssue]
                    raise EOFError(f"{what} ends too early")
                rest = rest[got:]
            file.read(1)  # an archive compares its checksum at the end
        return flat.view(dtype).reshape(shape, order="F" if by_column else "C")

    return Stored(shape, dtype, read)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and dtype."""
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file, _LONGEST_HEADER)
    if version == (2, 0):
        return npy.read_array_header_2_0(file, _LONGEST_HEADER)
    if version != (3, 0):
        raise ValueError(f"NPY version {version}")
    length = int.from_bytes(file.read(4), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    found = ast.literal_eval(file.read(length).decode())  # as 2.0, but in UTF-8
    return tuple(found["shape"]), bool(found["fortran_order"]), npy.descr_to_dtype(found["descr"])
