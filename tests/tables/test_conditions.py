"""What a question says of columns, as text and in Python's words."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np
import pytest
import torch

from diffeo.bases.cells import CellDensity
from diffeo.encodings import Cells
from diffeo.encodings.cell_kinds import Levels, Numbers
from diffeo.encodings.kinds import Continuous, Positive
from diffeo.errors import ConfigError, DataError
from diffeo.tables.conditions import Condition, conditions
from diffeo.tables.regions import SomeLevels, SomeNumbers, Span

SCALE = ((-1e3, 1e3), (-5.0, 5.0))
ORDERED = "dictionary<values=string, indices=int8, ordered=1>"
CELLS = Cells(
    [
        Numbers("age", "int64", False, Continuous(), (0.0, 30.0), SCALE, 1.0, 0.0, 0.0, 99.0),
        Numbers("income", "double", True, Positive(), (500.0,), ((0.0, 10.0), (-3.0, 3.0))),
        Numbers("tenth", "double", False, Continuous(), (), SCALE, 0.1, 0.0, -5.0),
        Levels("state", "string", True, ("CA", "NY", "TX", "missing", "a=b", "1..2"), (2.0, 1.0, 1.0)),
        Levels("school", ORDERED, False, ("none", "low", "high")),
        Levels("floor", "int64", False, (3, 1, 2)),
        Numbers("born", "date32[day]", False, Continuous(), (), ((-1e5, 1e5), (-4.0, 4.0)), 1.0),
        Numbers(
            "at", "timestamp[us, tz=Europe/Berlin]", False, Continuous(), (), ((-1e16, 1e16), (-4.0, 4.0))
        ),
        Levels("a<b", "string", False, ("x", "y")),
        Levels("a", "string", False, ("x", "b=x")),
    ]
)


def one(given: Any) -> Condition:
    (found,) = conditions(CELLS, given).values()
    return found


@pytest.mark.parametrize(
    ("text", "python", "wanted"),
    [
        ("age=30", {"age": 30}, [Span(30, 30)]),
        ("age=30..40", {"age": (30, 40)}, [Span(30, 40)]),
        (" age = 30 .. 40 ", {"age": (30, 40)}, [Span(30, 40)]),
        ("age=..40", {"age": (None, 40)}, [Span(-math.inf, 40)]),
        ("age>=30", {"age": (30, None)}, [Span(30, math.inf)]),
        ("age<5", None, [Span(-math.inf, 5, open_high=True)]),
        ("income>5e1", None, [Span(50, math.inf, open_low=True)]),
        ("age={1,2}", {"age": {1, 2}}, [Span(1, 1), Span(2, 2)]),
        ("age!=3", None, [Span(-math.inf, 3, open_high=True), Span(3, math.inf, open_low=True)]),
        ("born=1970-01-02", {"born": datetime.date(1970, 1, 2)}, [Span(1, 1)]),
        ("born=1970-01-02..1970-01-11", {"born": ("1970-01-02", "1970-01-11")}, [Span(1, 10)]),
        (
            "at>1970-01-01T01:00",
            None,
            [Span(0.0, math.inf, open_low=True)],
        ),
        ("at>1970-01-01T00:00:01+00:00", None, [Span(1e6, math.inf, open_low=True)]),
    ],
)
def test_numbers(text: str, python: Any, wanted: list[Span]):
    for given in filter(None, (text, [text], python)):
        region = one(given).region
        assert isinstance(region, SomeNumbers)
        assert list(region.spans) == wanted
        assert not region.missing


@pytest.mark.parametrize(
    ("text", "python", "wanted"),
    [
        ("state=CA", {"state": "CA"}, {0}),
        ("state={CA, NY}", {"state": ["NY", "CA"]}, {0, 1}),
        ("state!=CA", None, {1, 2, 3, 4, 5}),
        ("state=missing", {"state": "missing"}, {3}),
        ("state=a=b", {"state": "a=b"}, {4}),
        ("state=1..2", {"state": "1..2"}, {5}),
        ('state={"CA",NY}', None, {0, 1}),
        ("school>=low", {"school": ("low", None)}, {1, 2}),
        ("school=none..low", None, {0, 1}),
        ("floor>1", None, {0, 2}),
        ("floor=1..2", {"floor": (1, 2)}, {1, 2}),
        ("floor=3", {"floor": 3}, {0}),
        ("a<b=x", None, {0}),
        ("a=b=x", None, {1}),
    ],
)
def test_levels(text: str, python: Any, wanted: set[int]):
    for given in filter(None, (text, python)):
        region = one(given).region
        assert isinstance(region, SomeLevels)
        assert region.levels == wanted
        assert not region.missing


def test_missing():
    for given in ("income=missing", {"income": None}, {"income": math.nan}):
        condition = one(given)
        assert condition.region.missing
        assert condition.point is not None
        assert math.isnan(condition.point)
        assert condition.region.part() is not None
    assert one({"income": [None, 500]}).region.holds(math.nan)
    assert one("income!=missing").region.holds(3.0)
    assert not one("income!=missing").region.holds(math.nan)
    with pytest.raises(DataError, match="column 'age' is never missing"):
        conditions(CELLS, "age=missing")


def test_several_on_one_column_must_all_hold():
    condition = one(["age>=30", "age<40"])
    assert condition.holds(39)
    assert not condition.holds(40)
    assert one(["age>=30", "age=35"]).point == 35
    with pytest.raises(DataError, match="no value of column 'age' is both"):
        conditions(CELLS, ["age>=30", "age=5"])
    with pytest.raises(DataError, match="never holds such a value"):
        conditions(CELLS, ["age>=30", "age<20"])


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("agee=3", "no column 'agee'; near to it are 'age'"),
        ({"zzz": 3}, "no column 'zzz'; there are 'age', 'income'"),
        ("state=C", "column 'state' has no level 'C'; near to it are 'CA'"),
        ("school=hihg", "near to it are 'high'"),
        ("age=abc", "'abc' does not fit column 'age', which holds numbers"),
        ("age=nan..3", "'nan' does not fit"),
        ("born=yesterday", "which holds times; write one as 2026-01-31"),
        ("age=40..30", "nothing lies in this interval; give the lower end first"),
        ("age=200..300", "never holds such a value; its values are 0 or more, 99 or less, a multiple of 1"),
        ("age=3.5", "never holds such a value"),
        ("age=3.2..3.8", "never holds such a value"),
        ("income=-5..-1", "never holds such a value"),
        ("income=-5", "never holds such a value"),
        ("state>CA", "levels without an order; give a set"),
        ("income={1,2}", "never holds such a value"),
    ],
)
def test_what_cannot_be_is_refused(given: Any, error: str):
    with pytest.raises(DataError, match=error):
        conditions(CELLS, given)


@pytest.mark.parametrize("given", ["age", "", "=3", {"age": (1, 2, 3)}, {"age": []}, "age={}"])
def test_what_is_no_condition_is_refused(given: Any):
    with pytest.raises(ConfigError):
        conditions(CELLS, given)


# -- what a region is to the density ----------------------------------------------------------------


def test_parts_have_the_mass_of_the_values():
    """Shares of any set of values against the sum of these values' own probabilities."""
    kinds = [
        Numbers("n", "int64", True, Continuous(), (0.0, 3.0), ((0.0, 9.0), (-2.0, 2.0)), 1.0, 0.0, 0.0, 9.0),
        Levels("l", "string", True, ("a", "b", "c", "d"), (3.0, 1.0)),
    ]
    torch.manual_seed(0)
    encoding, base = Cells(kinds).double(), CellDensity(kinds, hidden=8, blocks=1, context=8).double().eval()
    for p in base.parameters():
        p.data += 0.3 * torch.randn_like(p)
    for column, values in ((0, [*range(10), math.nan]), (1, [*range(4), math.nan])):
        rows = torch.full((len(values), 2), math.nan, dtype=torch.float64)
        rows[:, column] = torch.tensor(values)
        codes, weights = encoding.encode_each(rows)
        codes[:, 1 - column, 0] = -1.0
        mass = (base.column_log_probs(codes) + weights)[:, column].exp().detach()
        torch.testing.assert_close(mass.sum(), mass.new_tensor(1.0))
        head = base.conditional(torch.full((1, 2, 4), -1.0, dtype=torch.float64), column)
        g = np.random.default_rng(0)
        for _ in range(20):
            some = sorted(g.choice(len(values), g.integers(1, len(values)), replace=False).tolist())
            name = kinds[column].name
            given = [
                None if values[i] != values[i] else values[i] if column == 0 else "abcd"[i] for i in some
            ]
            (condition,) = conditions(encoding, {name: given}).values()
            torch.testing.assert_close(head.share(condition.part).exp()[0], mass[some].sum())
            _, share = head.restricted(condition.part, torch.Generator().manual_seed(0))
            assert torch.equal(share, head.share(condition.part))


def test_draws_within_a_region_have_its_law():
    kind = Levels("l", "string", False, ("a", "b", "c", "d"), (5.0, 2.0, 1.0))
    base = CellDensity([kind], hidden=8, blocks=1, context=8).eval()
    (condition,) = conditions(Cells([kind]), {"l": ["a", "c", "d"]}).values()
    g = torch.Generator().manual_seed(0)
    head = base.conditional(torch.full((20_000, 1, 4), -1.0), 0)
    codes = condition.region.drawn(head.restricted(condition.part, g)[0], g)
    counts = torch.bincount(kind.decode(codes).long(), minlength=4) / 20_000
    wanted = torch.tensor([1.0, 0.0, 2 / 8, 1 / 8])  # both cells are equally likely
    torch.testing.assert_close(counts, wanted / wanted.sum(), atol=0.015, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("given", ["x=0.1..0.2", "x>0.1", "x<-3", "x=3.9..4", {"x": (-1e-9, 1e-9)}])
def test_draws_lie_inside(given: Any, dtype: torch.dtype):
    kind = Numbers("x", "double", False, Continuous(), (), ((-4.0, 4.0), (-4.0, 4.0)))
    base = CellDensity([kind], hidden=8, blocks=1, context=8).to(dtype).eval()
    (condition,) = conditions(Cells([kind]), given).values()
    head = base.conditional(torch.full((2000, 1, 4), -1.0, dtype=dtype), 0)
    codes, share = head.restricted(condition.part, torch.Generator().manual_seed(0))
    x = condition.region.nearest(kind.decode(codes[:, 0:4]).numpy())
    assert all(condition.holds(v) for v in x.tolist())
    (span,) = condition.region.spans  # type: ignore[attr-defined]
    normal = torch.distributions.Normal(0.0, 1.0)  # the spline starts as the identity
    low, high = (torch.tensor(e, dtype=torch.float64) for e in (span.low, span.high))
    torch.testing.assert_close(
        share[0].double().exp(), normal.cdf(high) - normal.cdf(low), rtol=1e-3, atol=1e-9
    )


def test_open_ends_and_grids():
    kind = Numbers("x", "double", False, Continuous(), (0.3,), ((-1.0, 1.0), (-2.0, 2.0)), 0.1)
    region = SomeNumbers(kind, (Span(0.1, 0.3, open_high=True),))
    part = region.part()
    assert part is not None
    assert part.ends is not None
    wanted = kind.place(torch.tensor([0.05, 0.25], dtype=torch.float64))[0]
    torch.testing.assert_close(part.ends[0], wanted)
    assert part.cells is not None
    assert part.cells.tolist() == [-math.inf, 0.0]
    assert region.nearest(np.array([0.3, 0.05])).tolist() == [0.2, 0.1]
    both = SomeNumbers(kind, (Span(0.1, 0.2), Span(0.3, 0.4), Span(0.7, 0.7))).part()
    assert both is not None
    assert both.ends is not None
    assert len(both.ends) == 2
