"""Parameters of a target as columns of a table: a name and one number a row."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from diffeo.targets import Target, named


def columns(target: Target, x: Tensor) -> dict[str, np.ndarray]:
    """Rows of the space that is fitted in as columns, on the target's own scale, by its own names.

    A parameter with a shape becomes a column each entry, counted from 1 as Stan does: ``beta[1]``,
    ``beta[2,3]``.

    Args:
        target: ``Parameters`` name their values; those of others are called x.
        x: unconstrained rows, ``(rows, D)``.

    Returns:
        float64 arrays ``(rows,)`` by name.

    Example:
        >>> import torch
        >>> from diffeo.targets import Funnel
        >>> columns(Funnel(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        {'x[1]': array([1., 3.]), 'x[2]': array([2., 4.])}
    """
    found = {}
    for name, values in named(target, x).items():
        for index in np.ndindex(values.shape[1:]):
            label = f"{name}[{','.join(str(i + 1) for i in index)}]" if index else name
            found[label] = values[(slice(None), *index)].astype(np.float64)
    return found
