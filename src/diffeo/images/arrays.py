"""Arrays of images in NPY and NPZ files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffeo._reading import Stored, arrays_in, reading
from diffeo.errors import DataError

SUFFIXES = (".npy", ".npz")
_IMAGES = ("x", "images", "x_train", "train_images", "X", "data", "arr_0")
_LABELS = ("y", "labels", "y_train", "train_labels", "Y", "arr_1")
_KINDS = "uint8 of shape (N, H, W), (N, C, H, W) or (N, H, W, C)"


@dataclass(frozen=True)
class Pixels:
    """Images ``(N, C, H, W)`` of bytes as a file held them, and their labels where asked for."""

    pixels: np.ndarray
    labels: np.ndarray | None


def read_array(path: Path, labels: bool = False) -> Pixels:
    """Images (and labels) of an NPY or NPZ file; every failure is a ``DataError`` that says what.

    Nothing is unpickled, and an array is not read unless the file holds what its header promises.
    """
    with reading(path), arrays_in(path) as arrays:
        return _alone(arrays[""], labels, path) if "" in arrays else _among(arrays, labels, path)


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


def _alone(array: Stored, labels: bool, path: Path) -> Pixels:
    if labels:
        raise DataError(f"{path} holds one array; classes need an NPZ with x and y.")
    return Pixels(_pixels(array, str(path)), None)


def _among(arrays: dict[str, Stored], labels: bool, path: Path) -> Pixels:
    name = _choose(arrays, _IMAGES, lambda shape: len(shape) in (3, 4))
    if name is None:
        found = ", ".join(f"{n} {a.shape}" for n, a in list(arrays.items())[:12]) or "nothing"
        raise DataError(f"{path} holds {found}; images are an array x: {_KINDS}.")
    pixels = _pixels(arrays.pop(name), f"{path}: {name}")
    if not labels:
        return Pixels(pixels, None)
    other = _choose(arrays, _LABELS, lambda shape: shape == (len(pixels),))
    if other is None:
        raise DataError(
            f"{path} holds no labels for its {len(pixels)} images; add an array y of class numbers."
        )
    if arrays[other].dtype.kind not in "iu":
        raise _no_classes(arrays[other].dtype, f"{path}: {other}")
    return Pixels(pixels, _numbers(arrays[other].read(), f"{path}: {other}"))


def _pixels(array: Stored, what: str) -> np.ndarray:
    """The images of an array, which is read only if it may hold some."""
    if array.dtype.kind not in "iu":
        layout(np.empty((0,), array.dtype), what)
    return layout(array.read(), what)


def _no_classes(dtype: np.dtype[Any], what: str) -> DataError:
    return DataError(f"{what} holds {dtype} that are not class numbers 0, 1, ... below 16384.")


def _numbers(labels: np.ndarray, what: str) -> np.ndarray:
    """Class numbers 0, 1, ... of a few bits each."""
    if labels.min() < 0 or labels.max() >= 16384:
        raise _no_classes(labels.dtype, what)
    return labels.astype(np.int64)


def _choose(
    arrays: dict[str, Stored], names: tuple[str, ...], fits: Callable[[tuple[int, ...]], bool]
) -> str | None:
    """The first known name whose array fits; else the only one that fits; else None."""
    fitting = [name for name, array in arrays.items() if fits(array.shape)]
    known = [name for name in names if name in fitting]
    return known[0] if known else fitting[0] if len(fitting) == 1 else None
