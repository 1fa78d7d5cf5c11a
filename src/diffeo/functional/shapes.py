"""Shape arithmetic: the one place where batch axes are broadcast and checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import index
from typing import SupportsIndex

import torch
from torch import Tensor

from diffeo.errors import ContextError, ShapeError

MOST_PIXELS = 2**24
"""The most numbers an image may have."""


def sum_event(t: Tensor, event_dims: int) -> Tensor:
    """Sum over the last ``event_dims`` axes."""
    return t.sum(tuple(range(-event_dims, 0))) if event_dims else t


def batch_shape(t: Tensor, event_shape: Sequence[int], what: str) -> torch.Size:
    """The axes of ``t`` before its event; a ``ShapeError`` with the cure when the event differs."""
    event = torch.Size(event_shape)
    n = len(event)
    if t.dim() < n or t.shape[t.dim() - n :] != event:
        raise ShapeError(
            f"{what} has shape {tuple(t.shape)}, but this flow's {what} must end in {tuple(event)}; "
            f"pass (*batch, {', '.join(map(str, event))})" + (", batch axes first." if n else ".")
        )
    return t.shape[: t.dim() - n]


def whole_shape(shape: SupportsIndex | Iterable[SupportsIndex]) -> torch.Size:
    """A shape from one whole number or several; numpy's and those of tensors are such, too."""
    for whole in (lambda: (index(shape),), lambda: [index(n) for n in shape]):  # type: ignore[arg-type,union-attr]
        try:
            return torch.Size(whole())
        except TypeError:
            continue
    raise ShapeError(f"a shape is a whole number or several, (3, 4), not {shape!r}.")


def image_shape(shape: Sequence[int]) -> torch.Size:
    """``(channels, height, width)``; a ``ShapeError`` for what cannot be, or is too large to work with."""
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    if len(sizes) != 3 or not all(type(n) is int and n >= 1 for n in sizes):
        raise ShapeError(f"images are (channels, height, width), each at least 1, not {shape!r}.")
    if math.prod(sizes) > MOST_PIXELS:
        raise ShapeError(f"images of shape {sizes} have more than {MOST_PIXELS} numbers; use smaller ones.")
    return torch.Size(sizes)


def broadcast_batch(
    x: Tensor,
    context: Tensor | None,
    event_shape: Sequence[int],
    context_shape: Sequence[int] | None,
    what: str = "x",
) -> tuple[Tensor, Tensor | None]:
    """Check ``x`` and ``context`` against the declared shapes and expand both to one batch."""
    batch = batch_shape(x, event_shape, what)
    context_batch = check_context(context, context_shape)
    if context is None or context_shape is None or context_batch is None:
        return x, None
    try:
        full = torch.broadcast_shapes(batch, context_batch)
    except RuntimeError:
        raise ShapeError(
            f"{what} of shape {tuple(x.shape)} has batch {tuple(batch)} and context of shape "
            f"{tuple(context.shape)} has batch {tuple(context_batch)}; they do not broadcast. "
            f"Batch axes align at the right, next to the event."
        ) from None
    return x.expand((*full, *event_shape)), context.expand((*full, *context_shape))


def check_context(context: Tensor | None, context_shape: Sequence[int] | None) -> torch.Size | None:
    """The context's batch shape, or None where neither side has a context."""
    if context_shape is None:
        if context is not None:
            raise ContextError(
                f"this flow takes no context, but one of shape {tuple(context.shape)} was given; "
                f"drop it, or build the flow with a context."
            )
        return None
    if context is None:
        raise ContextError(
            f"this flow needs a context of shape (*batch, {', '.join(map(str, context_shape))}); "
            f"pass context=."
        )
    return batch_shape(context, context_shape, "context")
