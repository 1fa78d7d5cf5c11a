"""What the helpers share: arrays from tensors, axes, limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def array(x: Any) -> np.ndarray:
    """A tensor or anything like an array, as an array."""
    return np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x)


def taken(ax: Axes | None) -> Axes:
    """The axes that were given, or new ones."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained")[1]


def bare(ax: Axes) -> Axes:
    """The same without ticks."""
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


def square(limits: Any) -> tuple[float, float, float, float]:
    """``(left, right, bottom, top)`` as it is, or of a square around 0 by half its side."""
    if isinstance(limits, int | float):
        return -limits, limits, -limits, limits
    left, right, bottom, top = map(float, limits)
    return left, right, bottom, top
