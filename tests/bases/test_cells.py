"""The density of mixed rows: it sums and integrates to one, its draws are its own, and roles are kept."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffeo.bases import CellDensity
from diffeo.bases.cells import ALL, CELL, PLACE, UNKNOWN, Part
from diffeo.encodings import Cells
from diffeo.encodings.cell_kinds import Levels, Numbers
from diffeo.encodings.kinds import Continuous
from diffeo.presets import Mixed
from diffeo.testing import randomize_

SCALE = ((-10.0, 0.0, 10.0), (-3.0, 0.5, 3.0))
KINDS = [
    Levels("word", "string", True, ("a", "b", "c"), (3.0, 1.0)),
    Numbers("size", "double", False, Continuous(), (0.0,), SCALE),
    Numbers("count", "int64", True, Continuous(), (2.0,), ((0.0, 5.0), (-2.0, 2.0)), 1.0, 0.0, 0.0, 5.0),
]


def made(kinds: Any = KINDS, seed: int = 0, **options: Any) -> tuple[Cells, CellDensity]:
    torch.manual_seed(seed)
    base = CellDensity(kinds, hidden=16, blocks=1, context=8, bins=4, **options)
    return Cells(kinds).double().eval(), randomize_(base, seed, 0.4).double().eval()


def density(encoding: Cells, base: CellDensity, rows: Tensor, given: Tensor | None = None) -> Tensor:
    codes, weights = encoding.encode_each(rows)
    with torch.no_grad():
        parts = base.column_log_probs(codes, None if given is None else given.expand(rows.shape))
    return (parts + weights).exp()


def grid(sizes: Tensor) -> Tensor:
    words, counts = [0.0, 1.0, 2.0, math.nan], [*map(float, range(6)), math.nan]
    rows = [[w, s, c] for w, s, c in itertools.product(words, sizes.tolist(), counts)]
    return torch.tensor(rows, dtype=torch.float64)


def test_it_sums_and_integrates_to_one():
    encoding, base = made()
    sizes = torch.linspace(-60, 60, 6001, dtype=torch.float64) + 1e-4
    codes, weights = encoding.encode_each(grid(sizes))
    with torch.no_grad():
        log = torch.cat([base.log_prob(part) for part in codes.split(20_000)]) + weights.sum(-1)
    smooth = torch.trapezoid(log.exp().reshape(4, 6001, 7), sizes, dim=1).sum()
    atoms, weights = encoding.encode_each(grid(sizes.new_zeros(1)))
    mass = (base.log_prob(atoms) + weights.sum(-1)).exp().sum().detach()
    assert float(smooth + mass) == pytest.approx(1.0, abs=2e-4)
    assert 0.05 < float(mass) < 0.95


def test_draws_are_those_of_the_density():
    encoding, base = made(KINDS[::2])
    rows = torch.tensor(
        [[w, c] for w in (0.0, 1.0, 2.0, math.nan) for c in (*map(float, range(6)), math.nan)],
        dtype=torch.float64,
    )
    wanted = density(encoding, base, rows).prod(-1)
    drawn = encoding.decode(base.sample((40_000,), generator=torch.Generator().manual_seed(1)))
    index = drawn[:, 0].nan_to_num(3.0) * 7 + drawn[:, 1].nan_to_num(6.0)
    found = torch.bincount(index.long(), minlength=28) / len(drawn)
    error = (wanted * (1 - wanted) / len(drawn)).sqrt()
    assert ((found - wanted).abs() < 5 * error + 1e-5).all()


def test_numbers_drawn_have_the_density():
    encoding, base = made([KINDS[1]])
    x = encoding.decode(base.sample((20_000,), generator=torch.Generator().manual_seed(1)))[:, 0]
    atom = density(encoding, base, torch.zeros(1, 1, dtype=torch.float64))[0, 0]
    assert float((x == 0).double().mean()) == pytest.approx(float(atom), abs=0.02)
    edges = torch.linspace(-8, 8, 17, dtype=torch.float64)
    for low, high in itertools.pairwise(edges.tolist()):
        fine = torch.linspace(low, high, 400, dtype=torch.float64)[:, None] + 1e-9
        mass = torch.trapezoid(density(encoding, base, fine)[:, 0], fine[:, 0])
        found = ((x > low) & (x < high) & (x != 0)).double().mean()
        assert float(found) == pytest.approx(float(mass), abs=0.02)


def test_the_stepper_is_a_full_pass():
    _, base = made()
    g = torch.Generator().manual_seed(0)
    codes = base.sample((20,), generator=g)
    given = torch.rand(20, 3, generator=g) < 0.4
    hidden = (torch.rand(20, 3, generator=g) < 0.3) & ~given
    codes = base.without(codes, hidden)
    cells, places = codes[..., CELL].clamp(min=0).long(), codes[..., PLACE]
    seen, known = (~given & ~hidden).double(), given.double()
    wanted = base.net(cells, places, seen, known).split(base.net.outputs, -1)
    step, before = base.net.stepper(cells, places, known), (None, None, None)
    for j in range(3):
        torch.testing.assert_close(step(*before), wanted[j])
        before = cells[:, j], places[:, j], seen[:, j]


def test_roles():
    _, base = made()
    codes = base.sample((30,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        joint = base.column_log_probs(codes)
        for j in range(3):  # a column sees those before it only
            hidden = torch.arange(3) > j
            some = base.column_log_probs(base.without(codes, hidden.expand(30, 3)))
            torch.testing.assert_close(some[:, : j + 1], joint[:, : j + 1])
            assert (some[:, j + 1 :] == 0).all()
        given = torch.tensor([False, True, False]).expand(30, 3)
        some = base.column_log_probs(codes, given)
        assert (some[:, 1] == 0).all()
        assert (some[:, 0] - joint[:, 0]).abs().max() > 1e-3  # now it sees the second
        unseen = base.without(codes, given)
        torch.testing.assert_close(base.column_log_probs(unseen, given), base.column_log_probs(unseen))
        moved = codes.clone()
        moved[:, 1] = codes.flip(0)[:, 1]
        torch.testing.assert_close(  # what is hidden tells nothing
            base.column_log_probs(base.without(moved, given)), base.column_log_probs(unseen)
        )


def test_completed_rows_keep_what_is_known_and_follow_it():
    _, base = made(KINDS[::2])
    z = base.sample((1,), generator=torch.Generator().manual_seed(3)).repeat(30_000, 1, 1)
    known = z[0, 1].clone()
    z[:, 0, CELL] = UNKNOWN
    drawn = base.complete(z, generator=torch.Generator().manual_seed(4))
    assert torch.equal(drawn[:, 1], known.expand(30_000, 4))
    shares = base.conditional(z[:1], 0).log_shares[0].exp()
    found = torch.bincount(drawn[:, 0, CELL].long(), minlength=3) / 30_000
    torch.testing.assert_close(found.double(), shares, atol=0.01, rtol=0)
    cut = {0: torch.tensor([0.0, 0.0, -math.inf])}
    some = base.complete(z, cut, generator=torch.Generator().manual_seed(4))
    assert (some[:, 0, CELL] < 2).all()
    given = torch.tensor([[False, True]])
    log = base.column_log_probs(some[:1], given)[0, 0], base.column_log_probs(some[:1], given, cut)[0, 0]
    assert (log[1] - log[0]).item() == pytest.approx(-math.log(1 - float(shares[2])), abs=1e-9)


def test_nan_is_never_hidden():
    _, base = made()
    codes = base.sample((4,), generator=torch.Generator().manual_seed(0))
    for j, given in itertools.product(range(3), (None, torch.tensor([False, True, True]).expand(4, 3))):
        lost = codes.clone()
        lost[0, j, PLACE] = math.nan
        found = base.column_log_probs(lost, given)
        assert found[0, 0].isnan()
        torch.testing.assert_close(found[1:], base.column_log_probs(codes, given)[1:])


def test_parts_of_the_rest():
    _, base = made([KINDS[1]])
    head = base.conditional(torch.full((5000, 1, 4), UNKNOWN, dtype=torch.float64), 0)
    ends = torch.tensor([[-9.0, -1.0], [0.2, 0.4], [6.0, 8.0]], dtype=torch.float64)
    part = Part(torch.tensor([-math.inf, 0.0]), ends)
    parts = [head.share(Part(part.cells, pair[None]))[0].exp() for pair in ends]
    codes, share = head.restricted(part, torch.Generator().manual_seed(0))
    assert float(share[0].exp()) == pytest.approx(float(sum(parts)), rel=1e-9)
    within = [((codes[:, PLACE] >= a) & (codes[:, PLACE] <= b)).double().mean() for a, b in ends.tolist()]
    np.testing.assert_allclose(within, [float(p / sum(parts)) for p in parts], atol=0.03)
    assert float(sum(within)) == 1.0
    assert float(head.share(ALL)[0]) == pytest.approx(0.0, abs=1e-12)
    codes, share = head.restricted(Part(torch.full((2,), -math.inf)))
    assert (share == -math.inf).all()


def test_shares_are_set_from_rows_once():
    encoding = Cells(KINDS)
    base = CellDensity(KINDS, hidden=8, blocks=1, context=8).eval()
    rows = torch.tensor([[0.0, 0.0, 1.0], [0.0, 3.0, 2.0], [math.nan, 1.0, 2.0]], dtype=torch.float64)
    base.initialize(encoding.encode(rows)[0][0])
    shares = base.conditional(torch.full((1, 3, 4), UNKNOWN), 0).log_shares[0].exp()
    torch.testing.assert_close(shares, torch.tensor([2.5, 0.5, 1.5]) / 4.5)
    before = base.net.output.bias.clone()
    base.initialize(encoding.encode(rows[:1])[0][0])
    assert torch.equal(before, base.net.output.bias)


def test_columns_that_are_always_given():
    _, base = made(given=[0])
    codes = base.sample((6,), generator=torch.Generator().manual_seed(0))
    assert (base.column_log_probs(codes)[:, 0] == 0).all()
    assert base.conditioned


def test_a_narrow_cell_of_a_grid_keeps_its_mass_and_its_gradient():
    """Where one step is a millionth of the scale, the ends of a cell are one number in float32."""
    knots = (-4.0, -3.0, -2.0, 0.0, 3.0, 2e6, 4e6), (-1.5, -1.0, -0.5, 0.0, 1.0, 1.5, 2.0)
    kind = Numbers("n", "int64", False, Continuous(), (), knots, 1.0, 0.0)
    assert kind.grid
    exact = Mixed(1, hidden=4, known=2, blocks=0).build(Cells([kind])).double().eval()
    x = torch.tensor([[1.0], [2.0], [1_000_000.0], [3_999_999.0]], dtype=torch.float64)
    wanted = exact.log_prob(x).detach()
    slopes = torch.tensor([1 / 3, 1 / 3, 0.5 / (2e6 - 3), 0.5 / 2e6], dtype=torch.float64)
    z = kind.place(x[:, 0])[0]
    density = slopes.log() - 0.5 * (z * z + math.log(2 * math.pi))
    torch.testing.assert_close(wanted, density, atol=0.02, rtol=0)
    flow = Mixed(1, hidden=4, known=2, blocks=0).build(Cells([kind]))
    found = flow.log_prob(x)
    torch.testing.assert_close(found.double(), wanted, atol=1e-3, rtol=0)
    found.sum().backward()
    assert all(p.grad.isfinite().all() for p in flow.parameters() if p.grad is not None)
