"""The dtype in which nets multiply matrices; everything else keeps the flow's own.

Log-densities, splines and the maps of the data themselves stay in the flow's own dtype: in bfloat16 a value
has three digits. A net only gives parameters, and there its products may be cheaper.

``OptimizerSettings(matmul_dtype=torch.bfloat16)`` turns it on in training: autocast around the net alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_dtype: ContextVar[torch.dtype | None] = ContextVar("matmul_dtype", default=None)


@contextmanager
def matmul_dtype(dtype: torch.dtype | None) -> Iterator[None]:
    """A block within which nets multiply in ``dtype``; None for their own."""
    token = _dtype.set(dtype)
    try:
        yield
    finally:
        _dtype.reset(token)


def reduced() -> bool:
    """Whether nets multiply in another dtype than their own."""
    return _dtype.get() is not None


def run_net_alone(net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Run a net of one argument; its answer is in ``x``'s dtype."""
    return run_net(lambda x, _: net(x), x, None)


def run_net(net: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, context: Tensor | None) -> Tensor:
    """Run the net; its answer is in ``x``'s dtype."""
    dtype = None if torch.compiler.is_compiling() else _dtype.get()
    if dtype is None:
        return net(x, context)
    with torch.autocast(x.device.type, dtype):
        return net(x, context).to(x.dtype)
