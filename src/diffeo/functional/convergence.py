"""How every iteration of a numeric inverse stops, and what happens when it has not converged.

All iterations stop here: early when every row is done, and never early while they are traced. An entry that
missed its tolerance raises ``NotConverged`` in eager mode and is NaN under ``torch.compile`` and
``torch.func``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffeo.errors import NotConverged

_MODES = tuple(torch._C._TorchDispatchModeKey.__members__.values())
"""Of what makes graphs: proxies, tensors without data, functionalization."""


def captured() -> bool:
    """Whether this becomes a graph or ``torch.func`` transforms it, so that Python must not branch on values.

    Graphs are made by ``torch.compile``, ``torch.export``, ``torch.jit.trace`` (so ONNX's) and ``make_fx``.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
        or (
            torch._C._len_torch_dispatch_stack() > 0
            and any(torch._C._get_dispatch_mode(mode) is not None for mode in _MODES)
        )
    )


def finished(converged: Tensor) -> bool:
    """Whether an iteration may stop before its last step; never while captured."""
    return not captured() and bool(converged.all())


def certified(x: Tensor, converged: Tensor, residual: Tensor, iterations: int, what: str) -> Tensor:
    """``x`` where it converged; elsewhere ``NotConverged`` in eager mode, and NaN while captured.

    Args:
        x: the iteration's result.
        converged: booleans that broadcast against ``x``; True where the tolerance holds, or where x is NaN
            because its input is.
        residual: what is left, for the message.
        iterations: how many steps were made.
        what: whose inverse it is.
    """
    if captured():
        return torch.where(converged, x, torch.nan)
    if not bool(converged.all()):
        worst = (
            residual.masked_fill(converged.expand_as(residual), 0.0).nan_to_num(torch.inf).abs().max().item()
        )
        raise NotConverged(
            f"{what}: {int((~converged).sum())} of {converged.numel()} entries missed their tolerance after "
            f"{iterations} iterations, the worst by a residual of {worst:.3g}; use float64, or look at the "
            f"parameters and the points for numbers that are huge or not finite."
        )
    return x
