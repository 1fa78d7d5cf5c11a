"""Values with first derivatives only: a second one is an error, where it would be 0 without a word."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffeo.errors import ConfigError


def first_order(x: Tensor, why: str) -> Tensor:
    """``x``, which may be differentiated once.

    Args:
        x: what goes into an operation whose gradient does not say what it depends on.
        why: what to say to who asks for a second derivative, and the cure.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> (g,) = torch.autograd.grad(first_order(x**2, "it has none.").sum(), x, create_graph=True)
        >>> g.sum().backward()
        Traceback (most recent call last):
        diffeo.errors.ConfigError: it has none.
    """
    return _FirstOrder.apply(x, why) if x.requires_grad else x  # type: ignore[return-value]


class _FirstOrder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, why: str) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        ctx.why = why
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Refused.apply(*grads, *ctx.saved_tensors, ctx.why), None


class _Refused(torch.autograd.Function):
    """A gradient, which depends on ``x`` in a way that is not known."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, why: str) -> Tensor:  # type: ignore[override]
        ctx.why = why
        return grad.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise ConfigError(ctx.why)
