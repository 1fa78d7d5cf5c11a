"""What a flow fitted to images says of itself: its encoding, the shape it reads, its classes by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffeo._arrays import unmasked
from diffeo.encodings import Dequantization, OneHotContext
from diffeo.errors import ConfigError, ContextError, Cure, ShapeError
from diffeo.flow import Flow
from diffeo.images.read import Images, read_images


def image_encoding(flow: Flow) -> Dequantization:
    """The flow's encoding of images; a ``ConfigError`` where it has none."""
    if not isinstance(flow.encoding, Dequantization):
        raise ConfigError(
            "this model was not fitted to images; score_table and sample_table are for models of tables."
        )
    return flow.encoding


def images_for(
    flow: Flow, path: str | os.PathLike[str], *, strict: bool = False, workers: int | None = None
) -> Images:
    """``read_images``, cropped, resized and colored as the flow's images are."""
    image_encoding(flow)
    channels, height, width = flow.event_shape
    return read_images(path, size=(height, width), channels=channels, strict=strict, workers=workers)


def class_names(flow: Flow) -> tuple[str, ...]:
    """The classes that a flow is conditioned on, by name or else by number; none for any other flow."""
    if not isinstance(flow.context_encoding, OneHotContext):
        return ()
    listed, count = flow.notes.get("classes"), len(flow.context_encoding.classes)
    names = listed if isinstance(listed, list) and len(listed) == count else range(count)
    return tuple(str(name) for name in names)


def contexts_for(flow: Flow, given: Any, count: int) -> Tensor | None:
    """Contexts of ``count`` images, as the flow takes them.

    Args:
        flow: fitted to images.
        given: a class by name or number, for all; a list of them, one for each image; or a tensor of
            contexts, likewise one or as many as images. None where the flow takes none.
        count: images.

    Returns:
        One context for each image, or None.

    Raises:
        ContextError: for a class that there is not, and a context that is missing or not wanted.
        ShapeError: for another number of contexts than images.

    Example:
        >>> import diffeo
        >>> flow = diffeo.presets.Glow((1, 4, 4), diffeo.contexts.Classes(2), levels=1).build()
        >>> flow.notes["classes"] = ["cat", "dog"]
        >>> contexts_for(flow, "dog", 3), contexts_for(flow, ["dog", 0], 2)
        (tensor([1, 1, 1]), tensor([1, 0]))
    """
    shape = flow.context_shape
    if shape is None:
        if given is not None:
            raise ContextError("this model is conditioned on nothing; leave the class or context out.")
        return None
    names = class_names(flow)
    if given is None and names:
        raise ContextError(
            f"this model is conditioned on a class; pass given={names[0]!r}, or another of "
            f"{', '.join(names)}.",
            cure=Cure("given", names[0]),
        )
    if given is None or (not names and _named(given)):
        raise ContextError(
            f"this model is conditioned on contexts of shape {tuple(shape)}; pass given=, a tensor of them, "
            f"one for each image."
        )
    if isinstance(given, str | int):
        given = _number(given, names)
    elif _named(given):
        given = [_number(each, names) for each in given]
    contexts = given if isinstance(given, Tensor) else torch.as_tensor(unmasked(given))
    if contexts.is_floating_point() and not bool(contexts.isfinite().all()):
        raise ContextError("the contexts hold NaN, infinite or masked values; fill these in.")
    if contexts.shape == shape:
        return contexts.expand(count, *shape)
    if contexts.shape != (count, *shape):
        raise ShapeError(
            f"the contexts have shape {tuple(contexts.shape)} for {count} images; give one, of shape "
            f"{tuple(shape)}, or one for each image."
        )
    return contexts


def _named(given: Any) -> bool:
    """Whether these are classes by name or number: one, or a list of them."""
    if isinstance(given, Sequence) and not isinstance(given, str):
        return bool(given) and all(isinstance(each, str | int) for each in given)
    return isinstance(given, str)


def _number(name: str | int, names: Sequence[str]) -> int:
    """The class's number; a name that is a number stands for the class of that name, if there is one."""
    if isinstance(name, str) and name in names:
        return names.index(name)
    number = int(name) if isinstance(name, int) or (name.isascii() and name.isdigit()) else -1
    if not 0 <= number < len(names):
        raise ContextError(f"this model knows no class {name!r}; its classes: {', '.join(names)}.")
    return number
