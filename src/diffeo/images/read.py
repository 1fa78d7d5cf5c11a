"""Folders and arrays of images as one tensor of bytes."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffeo._reading import check_room, cleaned, reading
from diffeo.errors import ConfigError, Cure, DataError
from diffeo.images.arrays import SUFFIXES, Pixels, read_array
from diffeo.images.pictures import READS, Bytes, Wanted, pillow_as_strict_as_it_can_be

_OTHER = (".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".svg", ".psd", ".ppm", ".pgm")
"""Images all the same, so they are named as left out; other files of a folder are none of its business."""


@dataclass(frozen=True)
class Images:
    """Images of one shape, and what became of the files they came from.

    Args:
        pixels: uint8, ``(N, C, H, W)`` with C = 1 or 3.
        names: a file's path below the folder, or ``17`` for number 17 of an array.
        skipped: names of what could not be read, with why.
        changes: how many images were changed, by what was done to them.
        labels: class numbers ``(N,)``, where they were asked for.
        classes: the classes' names.
    """

    pixels: Tensor
    names: list[str]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    changes: dict[str, int] = field(default_factory=dict)
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of each image."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    @classmethod
    def of(cls, data: Any) -> Images:
        """Images of whatever holds some: images, a path, an array or tensor ``(N, C, H, W)`` of bytes."""
        if isinstance(data, Images):
            return data
        if isinstance(data, str | os.PathLike):
            return read_images(data)
        if np.ma.is_masked(data):
            hidden = np.ma.getmaskarray(data)
            first = int(np.argwhere(hidden)[0, 0])
            raise DataError(
                f"images have {int(hidden.sum())} masked (missing) values, the first in image {first}; "
                f"fill them in or drop these images."
            )
        pixels = data.detach().cpu() if isinstance(data, Tensor) else torch.from_numpy(np.array(data))
        if pixels.dtype != torch.uint8 or pixels.dim() != 4 or pixels.shape[1] not in (1, 3):
            raise DataError(
                f"images are uint8 of shape (N, C, H, W), C = 1 or 3; got {pixels.dtype} of shape "
                f"{tuple(pixels.shape)}. Scale to 0 .. 255, round, and use .to(torch.uint8)."
            )
        if not pixels.numel():
            raise DataError(f"images of shape {tuple(pixels.shape)}: there is none.")
        return cls(pixels, [str(i) for i in range(len(pixels))])


def read_images(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    labels: bool = False,
    strict: bool = False,
    workers: int | None = None,
) -> Images:
    """Read a folder of PNG, JPEG and WebP files (and folders in it), one such file, or an array of images.

    Images of another size are cropped around their middle to the wanted aspect, then resized (Lanczos).
    Pictures lying on their side are turned as their EXIF tag says, transparent ones put on black, 16 bits
    rounded to 8, the first frame of an animation taken. A file that cannot be read is skipped, and named.

    Args:
        path: a folder; an image; or .npy/.npz with uint8 of shape ``(N, H, W)``, ``(N, C, H, W)`` or
            ``(N, H, W, C)``, in an NPZ under ``x``, ``images``, ``x_train`` or as the only such array.
        size: side of the square, or ``(height, width)``; None where all images agree.
        channels: 1 for gray, 3 for RGB; None: 3 unless all are gray.
        labels: also read classes: the folders directly below ``path``, or ``y`` or ``labels`` in the NPZ.
        strict: an error instead of a skipped file.
        workers: threads that decode; default: one a processor, at most 8.

    Raises:
        DataError: for images of several sizes without ``size``, for nothing readable, for arrays of
            another kind, for more than this machine's memory holds.
        ConfigError: for a size or number of channels that cannot be.

    Example:
        >>> import tempfile
        >>> from diffeo.images import save_image
        >>> folder = Path(tempfile.mkdtemp())
        >>> save_image(torch.zeros(1, 20, 30, dtype=torch.uint8), folder / "a.png")
        >>> images = read_images(folder, size=16)
        >>> images.shape, images.names, images.changes
        ((1, 16, 16), ['a.png'], {'cropped': 1, 'resized': 1})
    """
    path = Path(path)
    wanted = Wanted((size, size) if isinstance(size, int) else size, channels)
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}.")
    with reading(path):
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
        gather = partial(_gather, source=path, strict=strict, workers=workers)
        if path.is_dir():
            files, names, skipped = _listed(path)
            found = gather(files, names, wanted.read, skipped)
            return _with_folders(found, path) if labels else found
        if path.suffix.lower() in SUFFIXES:
            stored = read_array(path, labels)
            return _from_array(stored, wanted, gather)
        if path.suffix.lower() not in READS:
            raise DataError(f"{path} is not a folder, nor a PNG, JPEG, WebP, NPY or NPZ file.")
        if labels:
            raise DataError(f"{path} is one image; classes are the folders in a folder, or y in an NPZ.")
        return gather([path], [path.name], wanted.read)


def _listed(path: Path) -> tuple[list[Path], list[str], list[tuple[str, str]]]:
    """The images of a folder in order, their names, and what is left out."""
    files = [
        Path(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
        if not name.startswith(".") and name.lower().endswith((*READS, *_OTHER))
    ]
    files.sort(key=lambda file: file.relative_to(path).parts)
    read = [file for file in files if file.suffix.lower() in READS]
    others = [file for file in files if file.suffix.lower() in _OTHER]
    why = "not a PNG, JPEG or WebP"
    return read, [_below(path, f) for f in read], [(_below(path, f), why) for f in others]


def _below(path: Path, file: Path) -> str:
    return file.relative_to(path).as_posix()


def _with_folders(images: Images, path: Path) -> Images:
    """The same images, each of the class that its first folder names."""
    tops = [name.split("/")[0] for name in images.names]
    lost = [name for name in images.names if "/" not in name]
    if lost:
        raise DataError(
            f"{lost[0]} lies in no folder below {path}, so its class is unknown; move it into one."
        )
    classes = tuple(sorted(set(tops)))
    number = {name: i for i, name in enumerate(classes)}
    return replace(images, labels=torch.tensor([number[top] for top in tops]), classes=classes)


def _from_array(stored: Pixels, wanted: Wanted, gather: Callable[..., Images]) -> Images:
    pixels, names = stored.pixels, [str(i) for i in range(len(stored.pixels))]
    as_it_is = wanted.size in (None, pixels.shape[2:]) and wanted.channels in (None, pixels.shape[1])
    if as_it_is and pixels.shape[1] != 4:
        images = Images(torch.from_numpy(np.ascontiguousarray(pixels)), names)
    else:
        images = gather(range(len(pixels)), names, lambda i: wanted.of_bytes(pixels[i]))
    if stored.labels is None:
        return images
    classes = tuple(str(i) for i in range(int(stored.labels.max()) + 1))
    return replace(images, labels=torch.from_numpy(stored.labels), classes=classes)


def _gather(
    items: Sequence[Any],
    names: Sequence[str],
    read: Callable[[Any], tuple[Bytes, list[str]]],
    skipped: Sequence[tuple[str, str]] = (),
    *,
    source: Path,
    strict: bool,
    workers: int | None,
) -> Images:
    """Read every item, several at a time, into one tensor; those that cannot be are skipped."""
    arrays: list[Bytes] = []
    kept: list[str] = []
    failed, changes, taken = [*skipped], Counter[str](), 0

    def attempt(item: Any) -> tuple[Bytes, list[str]] | str:
        try:
            return read(item)
        except Exception as error:  # decoders break in many ways, and here it is always the file's fault
            return cleaned(error).removesuffix(".") or type(error).__name__

    threads = workers or min(8, os.cpu_count() or 1)
    with pillow_as_strict_as_it_can_be(), ThreadPoolExecutor(threads) as pool:
        # leaving the loop early cancels what has not begun
        for name, found in zip(names, pool.map(attempt, items), strict=True):
            if isinstance(found, str):
                failed.append((name, found))
                if strict:
                    break
                continue
            array, done = found
            if arrays and array.shape[1:] != arrays[0].shape[1:]:
                raise _two_sizes(source, (kept[0], arrays[0]), (name, array))
            taken += array.nbytes
            check_room(2 * taken, f"the images in {source}")  # a split copies them
            arrays.append(array)
            kept.append(name)
            changes.update(done)
    failed.sort()
    if strict and failed:
        raise DataError(f"{source}: {failed[0][0]} cannot be read: {failed[0][1]}")
    if not arrays:
        first = f"; {len(failed)} skipped, the first {failed[0][0]}: {failed[0][1]}" if failed else ""
        raise DataError(f"{source} holds no image that can be read (PNG, JPEG, WebP){first}.")
    return Images(_stack(arrays, changes), kept, failed, dict(changes))


def _two_sizes(source: Path, *found: tuple[str, Bytes]) -> DataError:
    (one, (_, h, w)), (other, (_, height, width)) = ((name, array.shape) for name, array in found)
    side = min(h, w, height, width)
    return DataError(
        f"{source} holds images of several sizes: {one} is {w} x {h}, {other} {width} x {height}; "
        f"size={side} makes squares of all.",
        cure=Cure("size", side),
    )


def _stack(arrays: list[Bytes], changes: Counter[str]) -> Tensor:
    """All arrays as one, gray ones made RGB if any is; each is let go as soon as it is copied."""
    channels = max(len(array) for array in arrays)
    pixels = np.empty((len(arrays), channels, *arrays[0].shape[1:]), np.uint8)
    for i in range(len(arrays)):
        if len(arrays[i]) < channels:
            changes["made RGB"] += 1
        pixels[i] = arrays[i]  # one channel spreads over three
        arrays[i] = arrays[i][:0]
    return torch.from_numpy(pixels)
