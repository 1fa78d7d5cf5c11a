"""A model of mixed rows, trained for a moment on rows of a law that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import diffeo
from diffeo.encodings import Cells
from diffeo.encodings.cell_kinds import Levels, Numbers
from diffeo.encodings.kinds import Continuous
from diffeo.flow import Flow

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


@pytest.fixture(scope="session")
def law_flow() -> Flow:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    flow = diffeo.presets.Mixed(5, hidden=64, known=32, blocks=1, dropout=0.0).build(law_columns())
    diffeo.fit(flow, law_rows(20_000, 0), max_steps=400, batch_size=512, seed=0, progress=False)
    torch.set_num_threads(threads)
    return flow
