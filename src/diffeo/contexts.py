"""What a flow can be conditioned on: specs of contexts that build their encodings."""

from __future__ import annotations

from dataclasses import dataclass

from diffeo._fields import check_fields, check_pixels
from diffeo.encodings.context import ContextEncoding, ImageContext, OneHotContext, StandardizedContext


@dataclass(frozen=True)
class Vector:
    """A context of ``size`` numbers, standardized over the training rows."""

    size: int

    def __post_init__(self) -> None:
        check_fields(self)

    def build(self) -> ContextEncoding:
        return StandardizedContext(self.size)


@dataclass(frozen=True)
class Classes:
    """A context that is a class number, 0 .. size - 1."""

    size: int

    def __post_init__(self) -> None:
        check_fields(self)

    def build(self) -> ContextEncoding:
        return OneHotContext(self.size)


@dataclass(frozen=True)
class Image:
    """A context that is an image, pixel values 0 .. 255; for presets of images."""

    channels: int
    height: int
    width: int

    def __post_init__(self) -> None:
        check_fields(self)
        check_pixels(self.channels, self.height, self.width)

    def build(self) -> ContextEncoding:
        return ImageContext((self.channels, self.height, self.width))


Context = Vector | Classes | Image
CONTEXTS: dict[str, type[Context]] = {"Vector": Vector, "Classes": Classes, "Image": Image}
