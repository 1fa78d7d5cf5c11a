"""Arrays of images in NPY and NPZ files: looked at from outside before memory is taken for them."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from diffeo.errors import DataError

SUFFIXES = (".npy", ".npz")
_IMAGES = ("x", "images", "x_train", "train_images", "X", "data", "arr_0")
_LABELS = ("y", "labels", "y_train", "train_labels", "Y", "arr_1")
_KINDS = "uint8 of shape (N, H, W), (N, C, H, W) or (N, H, W, C)"


@dataclass(frozen=True)
class Stored:
    """Images ``(N, C, H, W)`` of bytes as a file held them, and their labels where asked for."""

    pixels: np.ndarray
    labels: np.ndarray | None


def read_array(path: Path, labels: bool = False) -> Stored:
    """Images (and labels) of an NPY or NPZ file; every failure is a ``DataError`` that says what.

    Nothing is unpickled, and an array is not read unless the file holds what its header promises.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a regular file.")
    try:
        return (_read_npz if path.suffix.lower() == ".npz" else _read_npy)(path, labels)
    except DataError:
        raise
    except (
        ValueError, TypeError, OSError, EOFError, KeyError, MemoryError, OverflowError, SyntaxError,
        NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        if isinstance(error, PermissionError):
            raise
        detail = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path} cannot be read: it is truncated, damaged or of another kind ({detail})."
        ) from None


def check_room(count: int, what: str) -> None:
    """Refuse to take more than half of this machine's memory."""
    memory = _memory()
    if count > memory // 2:
        raise DataError(
            f"{what} take {count / 2**30:.3g} GiB, more than half of this machine's memory "
            f"({memory / 2**30:.3g} GiB); use fewer, or a smaller size."
        )


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 8 * 2**30


def layout(array: np.ndarray, what: str) -> np.ndarray:
    """An array of images as ``(N, C, H, W)``, C = 1, 3 or 4; a view."""
    if array.dtype != np.uint8:
        cure = "scale to 0 .. 255, round, and use .astype(numpy.uint8)"
        raise DataError(f"{what} holds {array.dtype}; images are {_KINDS}: {cure}.")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4:
        first, last = (array.shape[axis] in (1, 3) for axis in (1, 3))
        if first and last:
            raise DataError(
                f"{what} has shape {array.shape}, where channels may come first or last; "
                f"save it without the axis of length 1, or larger images."
            )
        if last or (not first and array.shape[3] == 4):
            array = array.transpose(0, 3, 1, 2)
        elif not first:
            raise DataError(f"{what} has shape {array.shape}; images are {_KINDS}, C = 1 or 3.")
    else:
        raise DataError(f"{what} has shape {array.shape}; images are {_KINDS}: reshape it first.")
    if not array.size:
        raise DataError(f"{what} has shape {array.shape}: it holds no image.")
    return array


def _read_npy(path: Path, labels: bool) -> Stored:
    if labels:
        raise DataError(f"{path} holds one array; classes need an NPZ with x and y.")
    with open(path, "rb") as file:
        shape, order, dtype = _header(file, path.stat().st_size, str(path))
        _check_kind(shape, dtype, str(path))
        flat = np.fromfile(file, dtype, math.prod(shape))
    return Stored(layout(flat.reshape(shape, order="F" if order else "C"), str(path)), None)


def _read_npz(path: Path, labels: bool) -> Stored:
    with zipfile.ZipFile(path) as archive:
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        headers: dict[str, tuple[tuple[int, ...], Any]] = {}
        for name, info in list(infos.items())[:64]:
            with archive.open(info) as file:
                shape, _, dtype = _header(file, info.file_size, f"{path}: {name}")
            headers[name] = shape, dtype
        name = _choose(headers, _IMAGES, lambda shape: len(shape) in (3, 4))
        if name is None:
            found = ", ".join(f"{n} {s}" for n, (s, _) in list(headers.items())[:12]) or "nothing"
            raise DataError(f"{path} holds {found}; images are an array x: {_KINDS}.")
        pixels = layout(_member(archive, infos[name], f"{path}: {name}", *headers[name]), f"{path}: {name}")
        if not labels:
            return Stored(pixels, None)
        rest = {n: h for n, h in headers.items() if n != name}
        other = _choose(rest, _LABELS, lambda shape: shape == (len(pixels),))
        if other is None:
            raise DataError(
                f"{path} holds no labels for its {len(pixels)} images; add an array y of class numbers."
            )
        found = _member(archive, infos[other], f"{path}: {other}", *rest[other])
    return Stored(pixels, _numbers(found, f"{path}: {other}"))


def _numbers(labels: np.ndarray, what: str) -> np.ndarray:
    """Class numbers 0, 1, ... of a few bits each."""
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= 16384:
        raise DataError(f"{what} holds {labels.dtype} that are not class numbers 0, 1, ... below 16384.")
    return labels.astype(np.int64)


def _choose(
    headers: dict[str, tuple[tuple[int, ...], Any]],
    names: tuple[str, ...],
    fits: Callable[[tuple[int, ...]], bool],
) -> str | None:
    """The first known name whose array fits; else the only one that fits; else None."""
    fitting = [name for name, (shape, _) in headers.items() if fits(shape)]
    known = [name for name in names if name in fitting]
    return known[0] if known else fitting[0] if len(fitting) == 1 else None


def _header(file: Any, size: int, what: str) -> tuple[tuple[int, ...], bool, Any]:
    """Shape, whether columns come first, and dtype; the rest of the file is as long as they say."""
    version = npy.read_magic(file)
    if version != (1, 0):  # the others are for names of columns, in headers of any length
        raise ValueError(f"NPY version {version}")
    shape, order, dtype = npy.read_array_header_1_0(file)
    if dtype.hasobject:
        raise DataError(f"{what} holds Python objects, which are never read; save numbers.")
    if any(n < 0 for n in shape) or file.tell() + math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"its header says {shape} {dtype}, its length another thing")
    return shape, order, dtype


def _check_kind(shape: tuple[int, ...], dtype: Any, what: str) -> None:
    """Refuse what is not an array of images before more than its header is read."""
    if dtype.kind not in "iu":
        layout(np.empty((0,), dtype), what)
    check_room(math.prod(shape) * dtype.itemsize, f"the images in {what}")


def _member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str, shape: tuple[int, ...], dtype: Any
) -> np.ndarray:
    _check_kind(shape, dtype, what)
    with archive.open(info) as file:
        return npy.read_array(file, allow_pickle=False)
