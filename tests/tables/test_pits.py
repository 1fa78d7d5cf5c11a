"""Distribution functions of single columns: against sums and integrals, and uniform where right."""

from __future__ import annotations

import math

import numpy as np
import torch

from diffeo.encodings import Cells, Levels, Numbers
from diffeo.encodings.kinds import Continuous
from diffeo.presets import Mixed
from diffeo.tables.pits import CellPits
from diffeo.tables.table import Table
from diffeo.testing import randomize_

KNOTS = ((-3.0, 0.0, 3.0), (-1.5, 0.2, 1.5))


def a_flow(column: Levels | Numbers):
    flow = Mixed(1, hidden=4, known=2, blocks=1).build(Cells([column]))
    randomize_(flow, 0)
    return flow.double().eval()


def test_a_grid_against_the_sum_of_its_masses():
    column = Numbers("n", "int64", True, Continuous(), (0.0, 2.0), KNOTS, 1.0, 0.0, -3, 4)
    flow, values = a_flow(column), np.arange(-3.0, 5.0)
    with torch.no_grad():
        masses = flow.log_prob(torch.tensor([[math.nan], *[[v] for v in values]])).exp().numpy()
    np.testing.assert_allclose(masses.sum(), 1, atol=1e-9)
    pits = CellPits(flow)
    edges = np.r_[0, np.cumsum(masses)]
    table = Table.from_columns({"n": [None, *values.astype(int).tolist()]})
    for seed in range(5):
        found = pits.pits(table, seed)[:, 0]
        assert ((edges[:-1] - 1e-9 <= found) & (found <= edges[1:] + 1e-9)).all()


def test_levels_against_the_sum_of_their_masses():
    flow = a_flow(Levels("c", "string", False, ("a", "b", "c")))
    with torch.no_grad():
        edges = np.r_[0, np.cumsum(flow.log_prob(torch.tensor([[0.0], [1.0], [2.0]])).exp().numpy())]
    found = np.stack(
        [CellPits(flow).pits(Table.from_columns({"c": ["a", "b", "c"]}), s)[:, 0] for s in range(50)]
    )
    assert ((edges[:-1] <= found) & (found <= edges[1:])).all()
    assert (found.max(0) - found.min(0) > 0.8 * np.diff(edges)).all()


def test_a_density_against_its_integral_and_draws_are_uniform():
    flow = a_flow(Numbers("x", "float64", False, Continuous(), (1.0,), KNOTS))
    x = np.linspace(-40, 5, 200_001)
    with torch.no_grad():
        density = flow.log_prob(torch.from_numpy(x)[:, None]).exp().numpy()
        atom = float(flow.log_prob(torch.tensor([[1.0]], dtype=torch.float64)).exp())
    density[x == 1.0] = 0
    for value in (-2.5, 0.4, 1.7):
        below = np.trapezoid(density[x <= value], x[x <= value]) + atom * (value > 1)
        found = CellPits(flow).pits(Table.from_columns({"x": [value]}), 0)[0, 0]
        assert abs(found - below) < 1e-3
    drawn = flow.sample(4000, generator=torch.Generator().manual_seed(0)).numpy()
    pits = np.sort(CellPits(flow).pits(Table.from_columns({"x": drawn[:, 0]}), 1)[:, 0])
    assert np.abs(pits - (np.arange(4000) + 0.5) / 4000).max() < 1.63 / math.sqrt(4000)  # 1% by chance
