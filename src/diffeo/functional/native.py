"""The compiled kernels as this process has them, and the one question when they may be used."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._device import DeviceContext

from diffeo.errors import ConfigError
from diffeo.functional.convergence import captured

try:
    from diffeo.kernels import describe, instruction_set, native
except ValueError as error:  # DIFFEO_KERNELS names something that cannot be
    raise ConfigError(str(error)) from None

__all__ = ["PLAIN", "addressable", "describe", "instruction_set", "native", "plain_tensor", "usable"]

PLAIN = (Tensor, nn.Parameter)
"""What the kernels take: no subclass of a tensor, which may mean something else by its data."""
_FLOATS = (torch.float32, torch.float64)
_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes, _function_mode = torch._C._len_torch_function_stack, torch._C._get_function_stack_at


def usable() -> bool:
    """Whether nothing traces, transforms, casts or watches what runs: addresses mean what they say."""
    return (
        native is not None
        and not captured()
        and not _watched()
        and forward_ad._current_level < 0
        and not torch.is_autocast_enabled("cpu")
    )


def _watched() -> bool:
    """Whether a mode or a hook of all modules looks at operations: what the kernels do it would not see.

    ``torch.device`` as a mode, and the default device, only choose where new tensors are.
    """
    return (
        _dispatch_modes() > 0
        or bool(_has_any_global_hook())
        or any(type(_function_mode(i)) is not DeviceContext for i in range(_function_modes()))
    )


def addressable(*tensors: Tensor) -> bool:
    """Whether the tensors have their data in memory, as they are and where numbers of their size may be.

    Those of a batched gradient have none; those of a NumPy array may begin at any byte.
    """
    try:
        return all(t.data_ptr() % t.element_size() == 0 and not t.is_neg() for t in tensors)
    except RuntimeError:
        return False


def plain_tensor(x: Tensor) -> bool:
    """Whether ``x`` is an ordinary float32 or float64 tensor on the CPU, its numbers in memory as such."""
    return (
        type(x) in PLAIN and x.is_cpu and x.dtype in _FLOATS and x.layout is torch.strided and addressable(x)
    )
