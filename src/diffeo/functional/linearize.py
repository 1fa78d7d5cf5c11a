"""A map together with its derivative: values, and products of its Jacobian with many tangents at once.

This product is the one interface to traces, determinants, power series and Hutchinson's estimate. A smooth
net gives it as a forward pass of tangents, any other net by autograd. Its users do not depend on whether J
or its transpose multiplies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffeo.functional.convergence import captured

Product = Callable[[Tensor], Tensor]
"""Takes K tangents, of a shape that broadcasts against ``(K, *x.shape)``, to ``(K, *x.shape)``: each times
the Jacobian at x, or its transpose.

Which of the two does not matter to determinants, traces and powers, which is what it is for; one Product
keeps to one of them. It is differentiable in the tangents, in x and in the parameters.
"""


class Linearizable(ABC):
    """A net that knows its own derivative, so that products with the Jacobian are plain forward passes."""

    def intact(self) -> bool:
        """Whether its derivative is what it knows; not where hooks or wrappers have changed its layers."""
        return True

    @abstractmethod
    def linearize(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Product]:
        """The net's value at x, and the product with its Jacobian there."""


def linearize(net: Any, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Product]:
    """``net(x, context)`` and the product with its Jacobian in x; any net, ``Linearizable`` ones faster."""
    known = _known(net)
    if known is not None:
        return known.linearize(x, context)
    if captured():
        value, pull, *_ = torch.func.vjp(lambda p: net(p, context), x)
        return value, lambda tangents: torch.func.vmap(pull)(tangents.expand(len(tangents), *x.shape))[0]
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # without a graph a slice of what requires a gradient says that it does, and gives none
        point = x if graph and x.requires_grad else x.detach().requires_grad_()
        value = net(point, context)

    def product(tangents: Tensor) -> Tensor:
        rows = [
            torch.autograd.grad(
                value, point, t.expand(x.shape), create_graph=graph, retain_graph=True, allow_unused=True
            )[0]
            for t in tangents
        ]
        return torch.stack([torch.zeros_like(x) if row is None else row for row in rows])

    return value if graph else value.detach(), product


def _known(net: Any) -> Linearizable | None:
    return net if isinstance(net, Linearizable) and net.intact() else None


def basis(x: Tensor, event_dims: int = 1) -> Tensor:
    """The D unit vectors of an event, one tangent each, the same for every row: ``(D, 1, ..., *event)``."""
    event = x.shape[x.dim() - event_dims :]
    eye = torch.eye(event.numel(), dtype=x.dtype, device=x.device)
    return eye.reshape(len(eye), *[1] * (x.dim() - event_dims), *event)


def jacobian(product: Product, x: Tensor, event_dims: int = 1) -> Tensor:
    """The Jacobian ``(*batch, D, D)``, a product a row: transposed, where products are with the Jacobian."""
    tangents = basis(x, event_dims)
    batch, size = x.shape[: x.dim() - event_dims], len(tangents)
    rows = product(tangents).expand(size, *x.shape).reshape(size, batch.numel(), size)
    return rows.transpose(0, 1).reshape(*batch, size, size)


def trace(product: Product, x: Tensor, event_dims: int = 1) -> Tensor:
    """The exact trace of the Jacobian, ``(*batch,)``, by D products."""
    tangents = basis(x, event_dims)
    return (product(tangents).expand(len(tangents), *x.shape) * tangents).sum((0, *range(-event_dims, 0)))
