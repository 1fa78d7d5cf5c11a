"""Where the floats end: how far sums of products are taken at their word."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def far(dtype: torch.dtype) -> float:
    """The root of the largest float: 2^64 in float32 (1.8e19), 2^512 in float64 (1.3e154)."""
    return 2.0**512 if dtype is torch.float64 else 2.0**64


def within(x: Tensor) -> Tensor:
    """``x`` within +-``far``, so that products with it and their sums stay finite; NaN stays.

    What adds columns up takes its input so, as a difference of two infinities is NaN. At ``far`` a normal
    density is -inf already; layers that do not mix columns carry infinities on as they are.

    Example:
        >>> within(torch.tensor([2.0, -3e38])).tolist()
        [2.0, -1.8446744073709552e+19]
    """
    most = far(x.dtype)
    return x.clamp(-most, most)


def continued(scalar_map: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> tuple[Tensor, Tensor]:
    """``(value, log_slope)`` of a map whose tails are lines, by those from 2^-24 ``far`` on.

    There squares are still far from the end of the floats, and a numeric inverse can certify what it finds.
    """
    most = 2.0**-24 * far(x.dtype)
    inner = x.clamp(-most, most)
    value, log_slope = scalar_map(inner)
    beyond = x - inner
    slope = log_slope.masked_fill(beyond == 0, -math.inf).exp()  # a steep map's may overflow within
    return value + slope * beyond, log_slope
