"""Columns of mixed rows as cells and places: round trips, grids, ends, pooled levels, files."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch

from diffeo.bases.cells import CELL, HIGH, LOW, PLACE, UNKNOWN
from diffeo.encodings import Cells
from diffeo.encodings.cell_kinds import FAR, Levels, Numbers
from diffeo.encodings.cells import Decided
from diffeo.encodings.kinds import Continuous, Positive
from diffeo.errors import DataError, FormatError

LINE = ((-4.0, 0.0, 4.0), (-2.0, 0.0, 1.0))


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def numbers(**options: Any) -> Numbers:
    fields: dict[str, Any] = {
        "name": "x",
        "dtype": "double",
        "gaps": False,
        "kind": Continuous(),
        "atoms": (),
        "knots": LINE,
    }
    return Numbers(**(fields | options))


def test_levels_are_cells_and_gaps_the_last():
    kind = Levels("w", "string", True, ("a", "b"))
    code, weight = kind.encode(column(0, 1, 2, -1, 0.5))
    assert code[:2, CELL].tolist() == [0, 1]
    assert weight.tolist() == [0, 0, -math.inf, -math.inf, -math.inf]
    assert (kind.cells, kind.missing, kind.rest) == (3, 2, None)
    assert kind.decode(code[:2]).tolist() == [0, 1]
    cells = Cells([kind])
    v, weight = cells.encode(column(math.nan)[:, None])
    assert v[0, 0, 0, CELL] == 2
    assert weight.item() == 0
    assert cells.decode(v[0]).isnan().all()


def test_pooled_levels_have_their_shares_of_a_cell():
    kind = Levels("w", "string", True, ("a", "b", "c", "d"), (6.0, 3.0, 1.0))
    x = column(0, 1, 2, 3)
    code, weight = kind.encode(x)
    assert code[:, CELL].tolist() == [0, 1, 1, 1]
    torch.testing.assert_close(weight.exp(), column(1, 0.6, 0.3, 0.1))
    assert torch.equal(kind.decode(code), x)
    drawn = code[:1].repeat(20_000, 1)
    drawn[:, CELL] = 1
    drawn[:, LOW] = torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = torch.bincount(kind.decode(drawn).long(), minlength=4) / 20_000
    torch.testing.assert_close(found, torch.tensor([0.0, 0.6, 0.3, 0.1]), atol=0.02, rtol=0)
    shares = kind.level_shares(column(0.3, 0.3, 0.4)[None])
    torch.testing.assert_close(shares, column(0.5, 0.3, 0.15, 0.05)[None])


def test_numbers_go_through_their_scale():
    kind = numbers(atoms=(1.5,))
    x = column(-6.0, -4.0, -1.0, 1.5, 2.0, 40.0)
    code, weight = kind.encode(x)
    assert code[:, CELL].tolist() == [1, 1, 1, 0, 1, 1]
    torch.testing.assert_close(code[:, PLACE], column(-3.0, -2.0, -0.5, 0.375, 0.5, 10.0))
    slopes = column(0.5, 0.5, 0.5, 1.0, 0.25, 0.25)
    torch.testing.assert_close(weight, slopes.log())
    torch.testing.assert_close(kind.decode(code), x)
    outside, weight = numbers(kind=Positive(), low=0.0, high=50.0).encode(column(-1.0, 0.0, 51.0))
    assert outside.isfinite().all()
    assert weight.tolist() == [-math.inf] * 3


def test_a_grid_has_masses_between_ends():
    kind = numbers(step=1.0, low=-2.0, high=3.0)
    assert kind.grid
    code, weight = kind.encode(column(-2, 0, 3, 0.4, 4))
    assert weight.tolist() == [0, 0, 0, -math.inf, -math.inf]
    torch.testing.assert_close(code[:3, PLACE], kind.place(column(-2, 0, 3))[0])
    torch.testing.assert_close(code[1, PLACE] - code[1, LOW], kind.place(column(-0.5))[0][0])
    torch.testing.assert_close(code[1, PLACE] + code[1, HIGH], kind.place(column(0.5))[0][0])
    assert code[0, LOW] == code[2, HIGH] == FAR
    between = code[:1].clone()
    for place, wanted in ((0.1, 0.0), (0.13, 1.0), (99.0, 3.0), (-99.0, -2.0)):
        between[:, PLACE] = place
        assert kind.decode(between).item() == wanted
    assert numbers(step=0.1).nearest(column(0.31)).item() == 0.3


def test_a_fine_grid_is_a_density_times_its_step():
    kind = numbers(step=0.001)
    assert not kind.grid
    _, weight = kind.encode(column(1.25, 1.2504))
    assert weight[0].item() == pytest.approx(math.log(0.25 * 0.001))
    assert weight[1] == -math.inf


def test_float32_values_are_on_their_grid():
    kind = numbers(step=0.1, dtype="float32", knots=((0.0, 1000.0), (-2.0, 2.0)))
    x = torch.tensor([0.3, 123.4, 999.9]).double()
    assert kind.encode(x)[1].isfinite().all()


def test_settled_draws_are_encoded_as_their_values():
    kind = numbers(step=1.0, atoms=(2.0,), low=0.0, high=5.0)
    drawn = torch.zeros(3, 4, dtype=torch.float64)
    drawn[:, CELL] = 1
    drawn[:, PLACE] = column(0.51, 0.9, 0.0)
    settled = kind.settled(drawn)
    assert settled[:, CELL].tolist() == [0, 1, 1]  # the first hits the atom
    assert torch.equal(settled, kind.encode(kind.decode(drawn))[0])


def test_gaps_where_there_were_none_are_not_known():
    cells = Cells([numbers(gaps=True), numbers(name="y")])
    rows = column(math.nan, math.nan)[None]
    assert cells.encode(rows)[0][0, 0, :, CELL].tolist() == [1, UNKNOWN]
    assert cells.decode(cells.encode(rows)[0][0]).isnan().all()


def test_each_columns_weight():
    cells = Cells([numbers(), Levels("w", "string", False, ("a",))])
    codes, weights = cells.encode_each(column(1.0, 3.0)[None])
    assert weights.dtype == torch.float64
    assert weights[0].tolist() == [math.log(0.25), -math.inf]
    whole, log_weight = cells.encode(column(1.0, 0.0)[None])
    torch.testing.assert_close(whole[0, 0, 0], codes[0, 0])
    assert log_weight.item() == pytest.approx(math.log(0.25))


def test_names_and_roles_are_checked():
    with pytest.raises(DataError, match="used for two columns"):
        Cells([numbers(), numbers()])
    with pytest.raises(DataError, match="no column is left to model"):
        Cells([numbers()], given=["x"])
    with pytest.raises(DataError, match="0 levels"):
        Levels("w", "string", False, ())


def spec() -> dict[str, Any]:
    columns = [
        numbers(atoms=(0.0, 2.5), step=0.5, low=-1.0),
        Levels("w", "string", True, ("a", "b", "c"), (2.0, 1.0)),
    ]
    total = Decided("total", "double", 0, 1.0, {"x": 2.0})
    return json.loads(json.dumps(Cells(columns, given=["w"], weights="n", decided=[total]).to_json()))


def test_json_brings_it_back():
    again = Cells.from_json(spec())
    assert again.to_json() == spec()
    assert (again.given, again.weights, again.names) == (("w",), "n", ("x", "w"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("columns", 3),
        ("columns", [3]),
        ("columns", []),
        ("given", "w"),
        ("given", ["x", "w"]),
        ("given", ["zzz"]),
        ("weights", 3),
        ("weights", "x"),
        ("columns.0.kind", "other"),
        ("columns.0.name", None),
        ("columns.0.gaps", 1),
        ("columns.0.atoms", [2.0, 1.0]),
        ("columns.0.atoms", ["a"]),
        ("columns.0.atoms", [math.nan]),
        ("columns.0.knots", [[0.0], [1.0]]),
        ("columns.0.knots", [[0.0, 1.0], [1.0, 0.0]]),
        ("columns.0.knots", [[0.0, 1.0]]),
        ("columns.0.step", -1.0),
        ("columns.0.step", math.inf),
        ("columns.0.low", "x"),
        ("columns.0.of", {"kind": "os.system"}),
        ("columns.0.more", 1),
        ("columns.1.levels", []),
        ("columns.1.levels", [None]),
        ("columns.1.levels", "abc"),
        ("columns.1.shares", [0.0]),
        ("columns.1.shares", [1.0, 1.0, 1.0, 1.0]),
        ("columns.1.shares", [math.nan]),
        ("more", 1),
    ],
)
def test_hostile_json_is_refused(path: str, value: Any):
    found: Any = copy.deepcopy(spec())
    *where, last = path.split(".")
    at = found
    for key in where:
        at = at[int(key) if isinstance(at, list) else key]
    at[last] = value
    with pytest.raises(FormatError):
        Cells.from_json(found)


@pytest.mark.parametrize("missing", ["columns", "given", "weights"])
def test_what_lacks_an_entry_is_refused(missing: str):
    found = spec()
    del found[missing]
    with pytest.raises(FormatError):
        Cells.from_json(found)


def test_draws_beyond_the_rows_are_moved_onto_the_outermost():
    kind = numbers(atoms=(1.0,), gaps=True, seen=(-2.0, 3.0))
    drawn = kind.encode(column(-9, 0.25, 1, 50))[0]
    drawn = torch.cat([drawn, drawn[:1]])
    drawn[-1, CELL] = kind.missing
    kept = kind.within(drawn)
    torch.testing.assert_close(kind.decode(kept)[:4], column(-2.0, 0.25, 1.0, 3.0))
    assert kind.decode(kept)[4].isnan()
    torch.testing.assert_close(kept[1:3], drawn[1:3])
