"""A model of mixed rows, trained for a moment on rows of a law that is known."""

from __future__ import annotations

import pytest
import torch
from law import law_columns, law_rows

import diffeo
from diffeo.flow import Flow


@pytest.fixture(scope="session")
def law_flow() -> Flow:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    flow = diffeo.presets.Mixed(5, hidden=64, known=32, blocks=1, dropout=0.0).build(law_columns())
    diffeo.fit(flow, law_rows(20_000, 0), max_steps=400, batch_size=512, seed=0, progress=False)
    torch.set_num_threads(threads)
    return flow
