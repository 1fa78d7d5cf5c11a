"""A net of three convolutions over images: in the kernels where they may, else in PyTorch.

An image coupling's net has a kernel of its own. Pixels are rows of the same 64-row blocks; the first layer
is a product with a pixel's nine neighbors, and the last one scatters its products to the nine. PyTorch's
convolutions took twice as long at 64 hidden channels, most of it in the layers with few channels on one
side.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo.functional import native
from diffeo.functional.scalar import second_order

WEIGHTS = ("w1", "b1", "w2", "b2", "w3", "b3")
"""Weight and bias of each layer, as the kernels name them."""


def three_convolutions(x: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
    """``last(relu(middle(relu(first(x)))))``, convolutions of 3 x 3, 1 x 1 and 3 x 3 pixels.

    In the kernels nothing is kept of the forward pass but x; the backward pass computes the hidden layers
    again.

    Args:
        x: ``(N, C, H, W)``.
        weights: weight and bias of each layer, as ``conv2d`` takes them.

    Shape: ``(N, C', H, W)``, the channels last in memory.
    """
    if not _taken(x, weights):
        return plain(x, *weights)
    w1, b1, w2, b2, w3, b3 = weights
    # each pixel's part in its neighbors' sums: one row for each channel and neighbor
    spread = w3.permute(0, 2, 3, 1).flatten(0, 2)
    inputs = (w.contiguous() for w in (w1, b1, w2, b2, spread, b3))
    return _Three.apply(x.movedim(1, -1), *inputs).movedim(-1, 1)


def plain(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor) -> Tensor:
    """The same in PyTorch."""
    h = F.relu(F.conv2d(x, w1, b1, padding=1))
    return F.conv2d(F.relu(F.conv2d(h, w2, b2)), w3, b3, padding=1)


def _taken(x: Tensor, weights: tuple[Tensor, ...]) -> bool:
    tensors = (x, *weights)
    return (
        native.usable()
        and x.numel() > 0
        and all(native.plain_tensor(t) and t.dtype is x.dtype for t in tensors)
        and native.addressable(*tensors)
    )


def _pixels(x: Tensor) -> tuple[Tensor, int]:
    """Images with channels last, and how far apart two pixels are; a copy where that is not one number."""
    n, height, width, channels = x.shape
    step = x.stride(2) if width > 1 else x.stride(1) if height > 1 else x.stride(0) if n > 1 else channels
    wanted = (height * width * step, width * step, step, 1)
    even = all(size == 1 or a == b for size, a, b in zip(x.shape, x.stride(), wanted, strict=True))
    return (x, step) if even and step >= channels else (x.contiguous(), channels)


class _Three(torch.autograd.Function):
    """Images with channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor):
        ctx.save_for_backward(x, *weights)
        y = x.new_empty(*x.shape[:-1], weights[-1].numel())
        _call(x, weights, y=y)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor):
        (g_y,) = grad_outputs
        inputs = ctx.saved_tensors
        # a derivative of this derivative may be asked for, or several at once by vmap
        if torch.is_grad_enabled() or not (native.usable() and native.addressable(g_y)):
            return tuple(_plain_gradients(inputs, ctx.needs_input_grad, g_y))
        x, *weights = inputs
        g_x = torch.empty_like(x, memory_format=torch.contiguous_format) if ctx.needs_input_grad[0] else None
        grads = {f"g_{name}": torch.empty_like(w) for name, w in zip(WEIGHTS, weights, strict=True)}
        _call(x, weights, g_y=g_y.contiguous(), g_x=g_x, **grads)
        return g_x, *grads.values()


def _call(x: Tensor, weights: Any, **others: Tensor | None) -> None:
    """The kernel: forward to ``y``, backward from ``g_y`` to the gradients of x and weights."""
    assert native.native is not None
    x, stride = _pixels(x)
    n, height, width, channels = x.shape
    tensors = {"x": x, **dict(zip(WEIGHTS, weights, strict=True)), **others}
    native.native.conv(
        wide=x.dtype is torch.float64, threads=torch.get_num_threads(),
        images=n, height=height, width=width, inputs=channels,
        hidden=len(weights[0]), outputs=weights[-1].numel(), pixel_stride=stride,
        **{name: 0 if t is None else t.data_ptr() for name, t in tensors.items()},
    )  # fmt: skip


def _plain_gradients(inputs: Any, wanted: Any, g_y: Tensor) -> list[Tensor | None]:
    """The gradients by PyTorch; they can be differentiated again."""
    with torch.enable_grad():
        # views, or the gradient of one would take in its way into another
        x, w1, b1, w2, b2, spread, b3 = starts = [t.view_as(t) for t in inputs]
        w3 = spread.unflatten(0, (b3.numel(), 3, 3)).movedim(-1, 1)
        y = plain(x.movedim(-1, 1), w1, b1, w2, b2, w3, b3).movedim(1, -1)
        asked = [t for t, want in zip(starts, wanted, strict=True) if want]
        found = iter(second_order((y,), asked, (g_y,)))
        return [next(found) if want else None for want in wanted]
