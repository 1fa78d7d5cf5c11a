"""Writing files whole or not at all."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from diffeo.errors import DataError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that takes the place of ``path`` when the block ends well, else leaves no trace.

    Anything but a regular file (a pipe, ``/dev/null``) is written directly.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        with open(target, "wb") as file:
            yield file
        return
    partial = target.with_name(f".diffeo-{secrets.token_hex(8)}.part")
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException:  # Ctrl-C too must leave nothing behind
        partial.unlink(missing_ok=True)
        raise


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
    if not target.parent.is_dir():
        raise DataError(f"the folder {target.parent} does not exist; create it first.")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise DataError(f"{target} cannot be written: permission denied.")
    if suffixes and target.suffix.lower() not in suffixes:
        raise DataError(
            f"{target}: unknown kind of table {target.suffix!r}; use one of {', '.join(suffixes)}."
        )
