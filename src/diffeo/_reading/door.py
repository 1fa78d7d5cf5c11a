"""The one door that every file comes in by.

Readers of other libraries raise whatever their authors did not think of: pyarrow, NumPy, Pillow, ``zipfile``,
``zlib`` and ``tokenize`` some twenty kinds between them. Within ``reading`` each is the file's fault, in one
line that names it. What would not raise but wait or eat the memory is asked before: ``opened`` takes regular
files only, and a ``Room`` is what a file of its size may grow to.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from diffeo.errors import DataError, DiffeoError

_SLACK, _GROWTH = 2**27, 256
"""Bytes that any file may take, and those that each of its own may become: deflate makes 1000 of zeros."""
_LONGEST_ERROR = 1500
_HEADER_CAP = 64 * 2**20


@contextmanager
def reading(path: str | os.PathLike[str], error: type[DiffeoError] = DataError) -> Iterator[None]:
    """Whatever fails in the block becomes an ``error`` in one line that begins with the file's name.

    A file that is not there, or that may not be read, stays the ``OSError`` that it is.
    """
    name = os.fspath(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lesser doubts of readers
            yield
    except (FileNotFoundError, PermissionError):
        raise
    except DiffeoError as found:
        message = cleaned(found, _LONGEST_ERROR)
        message = message if name in message else f"{name}: {message}"
        raise type(found)(message, cure=found.cure) from found.__cause__
    except Exception as found:
        kind = os.path.splitext(name)[1].lower()[1:]
        raise error(f"{name} cannot be read{' as ' * bool(kind)}{kind}: {_why(found)}") from found


def _why(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is; it is damaged, or too large for this machine."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}."
    return f"it is truncated, damaged or of another kind ({cleaned(error) or type(error).__name__})."


def cleaned(text: object, longest: int = 400) -> str:
    """Anything as one line of text that is not too long, however long it is."""
    words = " ".join(str(text)[: 8 * longest].split())
    return words if len(words) <= longest else words[: longest - 4] + " ..."


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A regular file that is not empty, opened at once: a pipe would wait for who writes to it.

    Raises:
        DataError: for anything else.
    """
    name = os.fspath(path)
    descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise DataError(f"{name} is a folder; give the path of a file in it.")
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{name} is not a regular file; save what comes from it to one first.")
        if not found.st_size:
            raise DataError(f"{name} is empty (0 bytes).")
    except BaseException:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        yield file


def may_be_model(start: bytes) -> bool:
    """Whether a file's first nine bytes are a model's: the length of a header, and its first brace."""
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= _HEADER_CAP


class Room:
    """The memory that what a file holds may take: a multiple of its size, at most half of the machine's.

    What the file *says* of its sizes is asked for here before anything is allocated; all that is taken adds
    up, since many small claims are one large one.
    """

    def __init__(self, file: BinaryIO):
        self.size = os.fstat(file.fileno()).st_size
        self.left = self.most = _SLACK + _GROWTH * self.size

    def take(self, count: int, what: str) -> None:
        """Refuse, or set aside, this many bytes more."""
        check_room(count, what)
        self.left -= count
        if self.left < 0:
            raise DataError(
                f"{what} would take {_large(self.most - self.left)} out of a file of {_large(self.size)}, "
                f"which is more than data are ever packed; if it is right, save it anew without compression."
            )


def check_room(count: int, what: str) -> None:
    """Refuse to take more than half of this machine's memory."""
    memory = _memory()
    if count > memory // 2:
        raise DataError(
            f"{what} take {_large(count)}, more than half of this machine's memory "
            f"({_large(memory)}); use fewer, or a smaller size."
        )


def _large(count: int) -> str:
    """A number of bytes, in the unit that suits it."""
    power = min(3, max(0, count).bit_length() // 10)
    return f"{count / 1024**power:.3g} {('bytes', 'KiB', 'MiB', 'GiB')[power]}"


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 8 * 2**30
