"""A soft bound on log-scales, so that affine maps cannot overflow."""

from __future__ import annotations

from torch import Tensor


def soft_clip(raw: Tensor, bound: float) -> Tensor:
    """``raw / (1 + |raw| / bound)``: slope one at zero, never beyond ``bound``.

    An unbounded log-scale is how affine flows overflow; this one saturates slowly enough that a
    gradient always remains.
    """
    return raw / (1 + raw.abs() / bound)
