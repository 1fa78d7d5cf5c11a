"""One picture: from a file to bytes of a wanted shape, and from bytes to a PNG. All that Pillow does here."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffeo._files import check_output, replacing
from diffeo._reading import Room, opened
from diffeo.errors import ConfigError, DataError, ShapeError

if TYPE_CHECKING:
    from PIL.Image import Image

Bytes = NDArray[np.uint8]

READS = (".png", ".jpg", ".jpeg", ".webp")
_FORMATS = ("PNG", "JPEG", "WEBP")
_ORIENTATION = 0x0112  # the EXIF tag
_LARGEST_SIDE = 16_384
_ROW = 600  # points that a row of enlarged images has at most


@dataclass(frozen=True)
class Wanted:
    """What a picture is to become: ``(height, width)`` and channels, each None for as it is."""

    size: tuple[int, int] | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None and not all(type(s) is int and 1 <= s <= _LARGEST_SIDE for s in self.size):
            raise ConfigError(
                f"size must be whole numbers from 1 to {_LARGEST_SIDE} (height, width), not {self.size}."
            )
        if self.channels not in (None, 1, 3):
            raise ConfigError(f"channels must be 1 (gray), 3 (RGB) or None, not {self.channels!r}.")

    def read(self, path: Path) -> tuple[Bytes, list[str]]:
        """A file's picture, as ``of`` gives it."""
        from PIL import Image as pil
        from PIL import UnidentifiedImageError

        with opened(path) as file:
            try:
                image = pil.open(file, formats=_FORMATS)
            except UnidentifiedImageError:
                raise DataError("holds no PNG, JPEG or WebP") from None
            with image:
                # Pillow's own colors take four bytes a pixel, and turning or blending holds several pictures
                each = 4 if image.mode in ("1", "L") else 16
                Room(file).take(each * image.width * image.height, f"{image.width} x {image.height} pixels")
                return self.of(image)

    def of_bytes(self, pixels: Bytes) -> tuple[Bytes, list[str]]:
        """A picture held as ``(C, H, W)`` bytes, C = 1, 3 or 4, likewise."""
        from PIL import Image as pil

        array = pixels.transpose(1, 2, 0)
        return self.of(pil.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array)))

    def of(self, image: Image) -> tuple[Bytes, list[str]]:
        """A picture as ``(C, H, W)`` bytes of the wanted shape, and what was done to it."""
        done = []
        if getattr(image, "is_animated", False):
            done.append("first frame taken")
        if self.size is not None:
            # JPEG decodes to a half, a quarter, an eighth for free; never below twice what is wanted
            image.draft(None, (2 * max(self.size), 2 * max(self.size)))
        image = _upright(image, done)
        image = _eight_bits(image, done)
        image = _on_black(image, done)
        gray = image.mode in ("1", "L")
        channels = self.channels or (1 if gray else 3)
        if gray != (channels == 1):
            done.append("made RGB" if gray else "made gray")
        image = image.convert("L" if channels == 1 else "RGB")
        image = self._fit(image, done)
        return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1).copy(), done

    def _fit(self, image: Image, done: list[str]) -> Image:
        from PIL import ImageOps
        from PIL.Image import Resampling

        if self.size is None or image.size == self.size[::-1]:
            return image
        height, width = self.size
        excess = image.width * height - image.height * width
        if excess >= height or -excess >= width:  # at least a pixel of the picture goes
            done.append("cropped")
        done.append("resized")
        return ImageOps.fit(image, (width, height), Resampling.LANCZOS)


def _upright(image: Image, done: list[str]) -> Image:
    from PIL import ImageOps

    image.load()
    if image.getexif().get(_ORIENTATION, 1) in range(2, 9):
        done.append("turned upright")
    return ImageOps.exif_transpose(image)


def _eight_bits(image: Image, done: list[str]) -> Image:
    """16 bits of gray rounded to 8; Pillow itself reads other depths as 8."""
    from PIL import Image as pil

    if not image.mode.startswith("I"):
        return image
    done.append("16 bits made 8")
    values = np.asarray(image).astype(np.float64)
    return pil.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))


def _on_black(image: Image, done: list[str]) -> Image:
    from PIL import Image as pil

    if not image.has_transparency_data:
        return image
    opaque = "L" if image.mode in ("1", "L", "LA") else "RGB"
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema() != (255, 255):
        done.append("put on black")
        image = pil.alpha_composite(pil.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert(opaque)


@contextmanager
def pillow_as_strict_as_it_can_be() -> Iterator[None]:
    """Within it a picture too large to be true is an error, and lesser doubts are not voiced.

    Threads share the filters, so it goes around the pool and not into it.
    """
    from PIL.Image import DecompressionBombWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", DecompressionBombWarning)
        yield


# -- writing --------------------------------------------------------------------------------------


def check_png(path: str | os.PathLike[str]) -> None:
    """Refuse a path that no PNG can be written to."""
    check_output(path)
    if Path(path).suffix.lower() != ".png":
        raise DataError(f"{path}: pictures are written as PNG; name it .png.")


def save_image(pixels: Tensor, path: str | os.PathLike[str]) -> None:
    """Write one image ``(C, H, W)`` of bytes as PNG, whole or not at all.

    Raises:
        ShapeError: for another shape, or channels other than 1 and 3.
        DataError: for values other than 0 .. 255, and for a path that cannot be.
    """
    from PIL import Image as pil

    check_png(path)
    array = _bytes(pixels, 3).permute(1, 2, 0).cpu().numpy()
    image = pil.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))
    with replacing(path) as file:
        image.save(file, format="PNG")


def save_grid(
    pixels: Tensor,
    path: str | os.PathLike[str],
    columns: int | None = None,
    *,
    zoom: int | None = None,
    gap: int = 2,
) -> None:
    """Write images ``(N, C, H, W)`` of bytes as one PNG, row by row, whole or not at all.

    Args:
        pixels: the images.
        path: of the PNG.
        columns: images in a row; default: about as many as rows.
        zoom: width and height of a pixel; default: a row of small images becomes some 500 points wide.
        gap: pixels of middle gray between images.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "grid.png"
        >>> save_grid(torch.randint(0, 256, (6, 1, 8, 8)), path, columns=3)
        >>> grid(torch.zeros(6, 1, 8, 8), columns=3, zoom=1).shape
        torch.Size([1, 18, 28])
    """
    save_image(grid(pixels, columns, zoom=zoom, gap=gap), path)


def grid(pixels: Tensor, columns: int | None = None, *, zoom: int | None = None, gap: int = 2) -> Tensor:
    """Images side by side and one below the other, as one image."""
    pixels = _bytes(pixels, 4)
    if not len(pixels):
        raise DataError("there is no image to show.")
    columns = math.ceil(math.sqrt(len(pixels))) if columns is None else min(columns, len(pixels))
    count, channels, height, width = pixels.shape
    if zoom is None:
        zoom = max(1, _ROW // (max(1, columns) * (width + gap)))
    if columns < 1 or zoom < 1 or gap < 0:
        raise ConfigError(f"columns={columns}, zoom={zoom}, gap={gap}: the first two are at least 1.")
    height, width, rows = height * zoom, width * zoom, -(-count // columns)
    canvas = torch.full(
        (channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 128, dtype=torch.uint8
    )
    for i, image in enumerate(pixels):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        large = image.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
        canvas[:, top : top + height, left : left + width] = large
    return canvas


def _bytes(pixels: Tensor, dims: int) -> Tensor:
    shape = tuple(pixels.shape)
    if len(shape) != dims or shape[-3] not in (1, 3) or not shape[-1] or not shape[-2]:
        wanted = "(C, H, W)" if dims == 3 else "(N, C, H, W)"
        raise ShapeError(f"images of shape {shape} cannot be written; give {wanted} with C = 1 or 3.")
    if pixels.dtype == torch.uint8:
        return pixels
    values = pixels.detach().double()
    if bool(((values < 0) | (values > 255) | (values != values.round())).any()):
        raise DataError("pixels are whole numbers from 0 to 255; round and clamp them first.")
    return values.to(torch.uint8)
