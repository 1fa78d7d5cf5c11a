"""A family on its own by the kernels: values, slopes and all parameter gradients in one pass each way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from diffeo.functional import native
from diffeo.functional.wire import MAX_BINS, Scalar

Pair = tuple[Tensor, Tensor]
Plain = Callable[[Tensor, Tensor], Pair]


def apply(scalar: Scalar | None, x: Tensor, params: Tensor, plain: Plain, *, inverse: bool = False) -> Pair:
    """``(value, log_slope)`` by the kernels where they may be used, else by ``plain``.

    Args:
        scalar: the family; None for one that the kernels do not know.
        x: ``(*,)``.
        params: ``(*, P)``, or broadcasting to that; any strides.
        plain: the same in PyTorch, which second derivatives go through.
        inverse: whether ``plain`` is the inverse.
    """
    if scalar is None or not (
        native.usable()
        and native.plain_tensor(x)
        and native.plain_tensor(params)
        and params.dtype == x.dtype
        and scalar.bins <= MAX_BINS
    ):
        return plain(x, params)
    params = params.expand(*x.shape, params.shape[-1])
    if torch.is_grad_enabled() and (x.requires_grad or params.requires_grad):
        return _Apply.apply(scalar, plain, inverse, x, params)  # type: ignore[no-any-return]
    return _values(scalar, inverse, x, params)


def _values(scalar: Scalar, inverse: bool, x: Tensor, params: Tensor) -> Pair:
    x = x.contiguous()
    y, log_slope = torch.empty_like(x), torch.empty_like(x)
    _call(scalar, inverse, x, params, y=y.data_ptr(), log_slope=log_slope.data_ptr())
    return y, log_slope


def _call(
    scalar: Scalar,
    inverse: bool,
    x: Tensor,
    params: Tensor,
    *,
    y: int = 0,
    log_slope: int = 0,
    g_y: int = 0,
    g_log_slope: int = 0,
    g_x: int = 0,
    g_params: int = 0,
    g_param_stride: int = 0,
) -> None:
    """Forward to the addresses ``y`` and ``log_slope``; backward with those of all gradients.

    The gradients of the parameters are ``(count, P)`` where ``g_param_stride`` is 1, and ``(P, count)`` where
    it is ``count``.
    """
    assert native.native is not None
    walk = _two_strides(x.shape, params.stride()[:-1])
    if walk is None:
        params = params.contiguous()
        walk = x.numel(), 0, params.shape[-1]
    inner, outer_stride, row_stride = walk
    native.native.scalar(
        wide=x.dtype is torch.float64, inverse=inverse, threads=torch.get_num_threads(),
        kind=int(scalar.kind), bins=scalar.bins, ends=int(scalar.ends), low=scalar.low, high=scalar.high,
        reach=scalar.reach, count=x.numel(), inner=inner, outer_stride=outer_stride, row_stride=row_stride,
        param_stride=params.stride(-1), g_param_stride=g_param_stride,
        x=x.data_ptr(), params=params.data_ptr(), y=y, log_slope=log_slope,
        g_y=g_y, g_log_slope=g_log_slope, g_x=g_x, g_params=g_params,
    )  # fmt: skip


def _two_strides(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, int, int] | None:
    """``(inner, outer stride, inner stride)`` of a walk over these axes; None if it takes more than two."""
    axes: list[tuple[int, int]] = []  # innermost first, neighbors merged where they are one
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size == 1:
            continue
        if axes and stride == axes[-1][0] * axes[-1][1]:
            axes[-1] = axes[-1][0] * size, axes[-1][1]
        else:
            axes.append((size, stride))
    if len(axes) > 2:
        return None
    inner, stride = axes[0] if axes else (1, 0)
    return max(1, inner), axes[1][1] if len(axes) == 2 else 0, stride


def second_order(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], gradients: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """Gradients of ``outputs`` that can be differentiated again; None where nothing depends on an input."""
    pairs = [(y, g) for y, g in zip(outputs, gradients, strict=True) if y.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    ys, gs = zip(*pairs, strict=True)
    return torch.autograd.grad(ys, inputs, gs, create_graph=True, allow_unused=True)


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scalar: Scalar, plain: Plain, inverse: bool, x: Tensor, params: Tensor):
        y, log_slope = _values(scalar, inverse, x, params)
        ctx.scalar, ctx.plain, ctx.inverse = scalar, plain, inverse
        ctx.save_for_backward(x, params)
        return y, log_slope

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor):
        x, params = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        # a derivative of this derivative may be asked for, or several at once by vmap
        if torch.is_grad_enabled() or not (native.usable() and native.addressable(*grad_outputs)):
            with torch.enable_grad():
                views = x.view_as(x), params.view_as(params)
                wanted = [t for t, need in zip(views, needed, strict=True) if need]
                grads = iter(second_order(ctx.plain(*views), wanted, grad_outputs))
            return None, None, None, *(next(grads) if need else None for need in needed)
        x, g_y, g_log_slope = (t.contiguous() for t in (x, *grad_outputs))
        g_x = torch.empty_like(x)
        P, apart = params.shape[-1], params.stride(-1) != 1
        g_params = x.new_empty((P, *x.shape) if apart else (*x.shape, P))
        _call(
            ctx.scalar, ctx.inverse, x, params,
            g_y=g_y.data_ptr(), g_log_slope=g_log_slope.data_ptr(), g_x=g_x.data_ptr(),
            g_params=g_params.data_ptr(), g_param_stride=x.numel() if apart else 1,
        )  # fmt: skip
        return None, None, None, g_x, g_params.movedim(0, -1) if apart else g_params
