"""A law of mixed rows that is known: rows of it, its columns, and conditions as Python has them."""

from __future__ import annotations

import numpy as np
import torch

from diffeo.encodings import Cells
from diffeo.encodings.cell_kinds import Levels, Numbers
from diffeo.encodings.kinds import Continuous

SORT = ("x", "y", "z")
P_SORT = np.array([0.5, 0.3, 0.2])
P_YES = np.array([0.2, 0.6, 0.9])
"""Of each sort."""
P_COUNT = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.05, 0.05, 0.1, 0.8]])
"""Of the counts 0 to 3, of each sort."""
P_GAP = np.array([0.05, 0.4])
"""That the note is missing, of no and yes."""
P_LONG = 0.25
"""That it is long, where it is there."""


def law_rows(rows: int, seed: int) -> torch.Tensor:
    """Rows of sort, flag, count, size and note; the size is normal around 2 for yes, and 0 in a tenth."""
    g = np.random.default_rng(seed)
    sort = g.choice(3, rows, p=P_SORT)
    flag = g.random(rows) < P_YES[sort]
    count = (g.random(rows)[:, None] > P_COUNT[sort].cumsum(1)).sum(1)
    size = np.where(g.random(rows) < 0.1, 0.0, g.normal(2.0 * flag, 1.0))
    note = np.where(g.random(rows) < P_GAP[flag.astype(int)], np.nan, g.random(rows) < P_LONG)
    return torch.from_numpy(np.stack([sort, flag, count, size, note], 1).astype(np.float64))


def law_columns() -> Cells:
    return Cells(
        [
            Levels("sort", "string", False, SORT),
            Levels("flag", "bool", False, (False, True)),
            Numbers(
                "count", "int64", False, Continuous(), (3.0,), ((-1.0, 4.0), (-2.0, 2.0)), 1.0, 0.0, 0.0, 3.0
            ),
            Numbers("size", "double", False, Continuous(), (0.0,), ((-4.0, 6.0), (-4.0, 4.0))),
            Levels("note", "dictionary<values=string, indices=int8, ordered=0>", True, ("short", "long")),
        ]
    )


LAW = {
    "count=1": lambda x: x[:, 2] == 1,
    "count={0,3}": lambda x: (x[:, 2] == 0) | (x[:, 2] == 3),
    "flag=true": lambda x: x[:, 1] == 1,
    "note!=missing": lambda x: ~x[:, 4].isnan(),
    "note=missing": lambda x: x[:, 4].isnan(),
    "size=-1..1": lambda x: x[:, 3].abs() <= 1,
    "size=0": lambda x: x[:, 3] == 0,
    "size>1.5": lambda x: x[:, 3] > 1.5,
    "size>2.5": lambda x: x[:, 3] > 2.5,
    "sort=z": lambda x: x[:, 0] == 2,
    "sort={y,z}": lambda x: x[:, 0] >= 1,
}
"""Conditions, as Python has them."""
