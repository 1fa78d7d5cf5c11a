"""Writing files whole or not at all, and holding one for a process alone.

A lock is the operating system's and ends with its process, however that ends. So what a killed process left
behind is told from what another one is using just now.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from diffeo.errors import DataError

_PARTIAL = re.compile(r"\.diffeo-[0-9a-f]{16}\.part")
_TAKEN = errno.EACCES, errno.EAGAIN, errno.EDEADLK


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that takes the place of ``path`` when the block ends well, else leaves no trace.

    What a process that was killed left half-written in this folder is cleared away. Anything but a regular
    file (a pipe, ``/dev/null``) is written directly.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        with open(target, "wb") as file:
            yield file
        return
    with _naming(target):
        _clear(target.parent)
        file, partial = _begun(target.parent)
    try:
        with _naming(target), file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if sys.platform != "win32":  # still locked, so that nobody clears it away
                os.replace(partial, target)
        if sys.platform == "win32":  # which moves no open file
            os.replace(partial, target)
        _settle(target.parent)
    except BaseException:  # Ctrl-C too must leave nothing behind
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def alone(path: str | os.PathLike[str]) -> Iterator[bool]:
    """Whether this process has ``path`` for itself, until the block ends; no other one is then told so.

    It is held by a lock on a hidden file beside it, which the block removes. Where the file system knows no
    locks, everybody is told yes.
    """
    target = Path(os.path.realpath(path))
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()
    beside = target.with_name(f".diffeo-{digest[:16]}.lock")
    while True:
        file = open(beside, "ab")  # noqa: SIM115
        taken = _lock(file) is False
        if taken or _is_at(file, beside):
            break
        file.close()  # its last holder removed it in between
    try:
        yield not taken
    finally:
        if not taken and sys.platform != "win32":
            beside.unlink(missing_ok=True)
        file.close()
        if not taken and sys.platform == "win32":
            with suppress(OSError):
                beside.unlink(missing_ok=True)


def check_output(path: str | os.PathLike[str], suffixes: tuple[str, ...] = ()) -> None:
    """Refuse an output path that cannot work, before any long work is done for it.

    ``suffixes`` empty allows any name; ``-`` (standard output) is refused then.

    Raises:
        DataError: for a missing or unwritable folder, a folder or (any name allowed) a device instead of a
            file, an unknown suffix.
    """
    if str(path) == "-":
        if suffixes and sys.stdout is None:
            raise DataError("standard output is closed; give the path of a file.")
        if suffixes:
            return
        raise DataError("this file cannot go to standard output; give a path.")
    target = Path(path)
    if target.is_dir():
        raise DataError(f"{target} is a folder; give the path of a file in it.")
    if not suffixes and target.exists() and not target.is_file():
        raise DataError(f"{target} is not a regular file; give the path of one.")
    folder = Path(os.path.realpath(target)).parent  # a link is followed, and the file takes shape beside it
    if not folder.is_dir():
        folder = target.parent if not target.parent.is_dir() else folder
        raise DataError(f"the folder {folder} does not exist; create it first.")
    if target.exists() and not os.access(target, os.W_OK):
        raise DataError(f"{target} cannot be written: permission denied.")
    if not (target.exists() and not target.is_file()) and not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"nothing can be written in {folder}: permission denied.")
    if suffixes and target.suffix.lower() not in suffixes:
        raise DataError(
            f"{target}: unknown kind of table {target.suffix!r}; use one of {', '.join(suffixes)}."
        )


# -- inside ---------------------------------------------------------------------------------------


def _lock(file: BinaryIO) -> bool | None:
    """Lock an open file until it is closed; False where another holds it, None where there are no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _TAKEN else None
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _begun(folder: Path) -> tuple[BinaryIO, Path]:
    """A new file to write to, which no other process takes for one that was left behind."""
    while True:
        partial = folder / f".diffeo-{secrets.token_hex(8)}.part"
        file = open(partial, "xb")  # noqa: SIM115
        if sys.platform == "win32" or _lock(file) is None or _is_at(file, partial):
            return file, partial
        file.close()


def _clear(folder: Path) -> None:
    """Remove the half-written files whose writers were killed: those that nobody has locked."""
    if sys.platform == "win32":
        return
    with os.scandir(folder) as entries:
        left = [entry.path for entry in entries if _PARTIAL.fullmatch(entry.name)]
    for path in left:
        with suppress(OSError), open(path, "r+b") as file:
            if _lock(file) and _is_at(file, Path(path)):
                os.unlink(path)


def _settle(folder: Path) -> None:
    """Have the folder's own entry on the disk: a name changed in memory alone is lost with the power."""
    with suppress(OSError):  # where folders cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Errors of the system name what was to be written, not the hidden file beside it."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        where = target.parent if isinstance(error, FileNotFoundError) else target
        raise OSError(error.errno, error.strerror, str(where)) from None
