"""The compiled kernels as this process has them, and the one question when they may be used."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from diffeo.errors import ConfigError

try:
    from diffeo.kernels import describe, instruction_set, native
except ValueError as error:  # DIFFEO_KERNELS names something that cannot be
    raise ConfigError(str(error)) from None

__all__ = ["PLAIN", "addressable", "describe", "instruction_set", "native", "plain_tensor", "usable"]

PLAIN = (Tensor, nn.Parameter)
"""What the kernels take: no subclass of a tensor, which may mean something else by its data."""
_FLOATS = (torch.float32, torch.float64)


def usable() -> bool:
    """Whether nothing traces, transforms or casts what runs now, so that addresses mean what they say."""
    return (
        not torch.compiler.is_compiling()
        and native is not None
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and not torch.is_autocast_enabled("cpu")
    )


def addressable(*tensors: Tensor) -> bool:
    """Whether the tensors have their data in memory; those of a batched gradient do not."""
    try:
        return all(t.data_ptr() is not None for t in tensors)
    except RuntimeError:
        return False


def plain_tensor(x: Tensor) -> bool:
    """Whether ``x`` is an ordinary float32 or float64 tensor on the CPU."""
    return type(x) in PLAIN and x.is_cpu and x.dtype in _FLOATS
