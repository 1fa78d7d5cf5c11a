"""``Columns``: densities in the data's own units, exact round trips, supports never left."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diffeo.bases import Normal
from diffeo.bijections.base import Bijection
from diffeo.encodings.columns import Column, Columns, delta_method
from diffeo.encodings.kinds import (
    COLUMN_KINDS,
    Bounded,
    Circular,
    Constant,
    Continuous,
    Integer,
    Kind,
    Lattice,
    Positive,
    declarable_kinds,
    parse_kind,
)
from diffeo.errors import ConfigError, Cure, DataError, FormatError
from diffeo.flow import Flow
from diffeo.testing import check_encoding

EXACT = {
    "continuous": (Continuous(), lambda rng: rng.normal(50, 20, 500)),
    "positive": (Positive(), lambda rng: rng.lognormal(3, 2, 500)),
    "bounded": (Bounded(-2.0, 5.0), lambda rng: rng.uniform(-2, 5, 500)),
    "circular": (Circular(0.0, 360.0), lambda rng: rng.uniform(0, 360, 500)),
}
EVERY = EXACT | {
    "integer": (Integer(), lambda rng: rng.poisson(7, 500).astype(float)),
    "lattice": (Lattice(0.05, 0.01), lambda rng: np.round(0.05 * rng.integers(0, 40, 500) + 0.01, 2)),
}


class Identity(Bijection):
    def forward(self, x, context=None):
        return x, x.new_zeros(x.shape[:-1])

    def inverse(self, y, context=None):
        return self.forward(y)


def one(
    kind: Kind, values: np.ndarray, dtype: str = "float64", model: torch.dtype = torch.float64
) -> Columns:
    return Columns([Column.fit("a", kind, dtype, values)]).to(model).eval()


def rows(values) -> torch.Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float64).reshape(-1, 1)


def mixed(rng: np.random.Generator, model: torch.dtype = torch.float64) -> tuple[Columns, torch.Tensor]:
    """Every kind at once, in an order that no grouping keeps, a constant in the middle."""
    data = {f"{name}{i}": (kind, draw(rng)) for i in (0, 1) for name, (kind, draw) in EVERY.items()}
    items = list(data.items())
    items.insert(5, ("same", (Constant(4.5), np.full(500, 4.5))))
    columns = Columns([Column.fit(name, kind, "float64", values) for name, (kind, values) in items])
    return columns.to(model).eval(), torch.from_numpy(np.stack([v for _, (_, v) in items], 1))


@pytest.mark.parametrize("name", EXACT)
def test_log_weight_is_the_autograd_slope(name):
    kind, draw = EXACT[name]
    values = draw(np.random.default_rng(0))
    columns = one(kind, values)
    x = rows(values).requires_grad_()
    v, log_weight = columns.encode(x)
    (slope,) = torch.autograd.grad(v.sum(), x)
    assert v.shape == (1, 500, 1)
    assert columns.exact
    torch.testing.assert_close(log_weight[0], slope[:, 0].abs().log(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("model", [torch.float32, torch.float64])
def test_round_trip_of_mixed_columns(model):
    columns, x = mixed(np.random.default_rng(1), model)
    v, log_weight = columns.encode(x)
    assert v.shape == (16, 500, 12)
    assert log_weight.shape == (16, 500)
    assert v.dtype == log_weight.dtype == model
    assert v.isfinite().all()
    assert log_weight.isfinite().all()
    for draw in v:  # whatever the dequantization, the lattice value comes back exactly
        back = columns.decode(draw)
        fixed = [i for i, c in enumerate(columns.columns) if c.kind.noise or not c.kind.width]
        assert torch.equal(back[:, fixed], x[:, fixed])
        torch.testing.assert_close(back, x, rtol=1e-4 if model == torch.float32 else 1e-9, atol=1e-4)


def test_columns_are_standardized_and_angles_are_not():
    columns, x = mixed(np.random.default_rng(2))
    v = columns.encode(x)[0].mean(0)
    angles = torch.tensor(columns.circular)
    assert angles.sum() == 2
    assert v[:, ~angles].mean(0).abs().max() < 0.02
    assert (v[:, ~angles].std(0) - 1).abs().max() < 0.05
    assert v[:, angles].min() >= -math.pi
    assert v[:, angles].max() < math.pi
    assert v[:, angles].max() > 3


def test_masses_of_a_lattice_sum_to_the_integral():
    values = np.random.default_rng(3).poisson(3, 2000).astype(float)
    columns = one(Integer(), values)
    flow = Flow(Identity((1,)), Normal((1,)), columns).double().eval()
    support = rows(np.arange(-40, 60))
    assert flow.log_prob(support).exp().sum() == pytest.approx(1, abs=1e-6)
    # and each one is the normal's mass of its cell
    c = columns.columns[0]
    edges = (torch.arange(-40, 61, dtype=torch.float64) - 0.5 - c.loc) / c.scale
    cells = torch.special.ndtr(edges).diff()
    torch.testing.assert_close(flow.log_prob(support).exp(), cells, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("kind", "low", "high"), [(Integer(1, 6), 1, 6), (Integer(0), 0, 600), (Integer(-(2.0**53), 5), -600, 5)]
)
def test_integers_with_ends_have_all_their_mass_within(kind: Integer, low: int, high: int):
    values = np.random.default_rng(3).integers(1, 6, 2000).astype(float)
    flow = Flow(Identity((1,)), Normal((1,)), one(kind, values)).double().eval()
    support = rows(np.arange(low, high + 1))
    masses = flow.log_prob(support).exp()
    assert masses.sum() == pytest.approx(1, abs=0.01)
    assert (flow.log_prob(rows([kind.low - 2, kind.high + 2, 2.5])) == -math.inf).all()
    drawn = flow.sample(20_000, generator=torch.Generator().manual_seed(0))
    assert drawn.min() >= low
    assert drawn.max() <= high
    shares = torch.stack([(drawn == x).double().mean() for x in support])
    torch.testing.assert_close(shares, masses, rtol=0, atol=0.015)
    assert str(parse_kind(str(kind))) == str(kind)


def test_whole_numbers_declared_bounded_are_told_of_integers():
    with pytest.raises(DataError, match=r"columns=\{'a': 'integer\(1, 31\)'\}") as caught:
        one(Bounded(1, 31), np.arange(1.0, 32))
    assert caught.value.cure == Cure("columns", {"a": "integer(1, 31)"})


def test_values_off_a_grid_move_to_the_nearest_point():
    columns = Columns([Column("a", Lattice(0.01)), Column("b", Integer(1, 31)), Column("c", Continuous())])
    x = [[0.404, 1.2, 0.123], [0.40, 31.4, 0.0], [0.4000000001, 30.6, 0.0]]
    found = columns.nearest(torch.tensor(x, dtype=torch.float64))
    assert found.tolist() == [[0.4, 1, 0.123], [0.4, 31.4, 0.0], [0.4000000001, 31, 0.0]]


def test_two_lattices_and_a_density_multiply():
    rng = np.random.default_rng(4)
    step, values = 0.25, np.round(rng.normal(0, 1, 1000) * 4) / 4
    positive = rng.lognormal(0, 1, 1000)
    columns = Columns([
        Column.fit("a", Lattice(step), "float64", values),
        Column.fit("b", Positive(), "float64", positive),
        Column.fit("c", Lattice(step), "float64", values),
    ])  # fmt: skip
    flow = Flow(Identity((3,)), Normal((3,)), columns).double().eval()
    x = torch.from_numpy(np.stack([values, positive, values], 1))[:50]
    c, b = columns.columns[0], columns.columns[1]
    cell = [torch.special.ndtr((x[:, 0] + sign * step / 2 - c.loc) / c.scale) for sign in (1, -1)]
    density = torch.distributions.LogNormal(torch.tensor(b.loc).double(), torch.tensor(b.scale).double())
    expected = 2 * (cell[0] - cell[1]).log() + density.log_prob(x[:, 1])
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("kind", "outside"),
    [
        (Positive(), [0.0, -1.0, -math.inf, math.inf]),
        (Bounded(0, 1), [0.0, 1.0, 1.5, -1e300]),
        (Circular(0, 1), [-0.01, 1.01]),
        (Integer(), [0.5, 2.001, math.inf, 1e300]),
        (Lattice(0.1), [0.15, 0.101]),
        (Continuous(), [math.inf, -math.inf]),
    ],
)
@pytest.mark.parametrize("mode", [True, False])
def test_outside_the_support_is_minus_infinity(kind, outside, mode):
    columns = one(kind, np.array([0.2, 0.4, 0.3, 0.7]) if not isinstance(kind, Integer) else np.arange(4.0))
    columns.train(mode)
    x = rows(outside).requires_grad_()
    v, log_weight = columns.encode(x)
    assert v.isfinite().all()
    assert (log_weight == -math.inf).all()
    (gradient,) = torch.autograd.grad(v.sum(), x)
    assert (gradient == 0).all()


def test_a_constant_with_another_value_scores_minus_infinity():
    columns = Columns([Column("a", Continuous()), Column("same", Constant(0.1), "float32")]).eval()
    x = torch.tensor([[1.0, 0.1], [1.0, 0.2]], dtype=torch.float64)
    assert columns.encode(x)[1].tolist() == [[0.0, -math.inf]]
    assert columns.encode(x.float())[1].tolist() == [[0.0, -math.inf]]
    assert columns.decode(torch.zeros(3, 1))[:, 1].tolist() == [0.1] * 3


@pytest.mark.parametrize("name", [*EVERY, "constant"])
def test_nan_stays_nan(name):
    kind, draw = (Constant(1.0), lambda rng: np.ones(9)) if name == "constant" else EVERY[name]
    values = draw(np.random.default_rng(0))
    other = np.random.default_rng(0).normal(size=len(values))
    columns = Columns(
        [Column.fit("a", kind, "float64", values), Column.fit("b", Continuous(), "float64", other)]
    )
    flow = Flow(Identity(columns.latent_shape), Normal(columns.latent_shape), columns).double().eval()
    x = torch.from_numpy(np.stack([values, other], 1))[:3].clone()
    x[0, 0] = math.nan
    assert flow.log_prob(x).isnan().tolist() == [True, False, False]
    x[1] = torch.tensor([math.nan, math.inf])  # NaN wins over -inf
    assert flow.log_prob(x).isnan().tolist() == [True, True, False]


@given(
    name=st.sampled_from(list(EVERY)),
    dtype=st.sampled_from(["float64", "float32"]),
    v=arrays(
        np.float64,
        8,
        elements=st.floats(-1e300, 1e300) | st.floats(-40, 40) | st.sampled_from([math.inf, -math.inf]),
    ),
)
@example(name="lattice", dtype="float32", v=np.full(8, 475702.0))  # where float32 is coarser than a step
@settings(max_examples=150, deadline=None)
def test_samples_never_leave_the_support(name, dtype, v):
    kind, draw = EVERY[name]
    columns = one(kind, draw(np.random.default_rng(0)).astype(dtype).astype(float), dtype)
    x = columns.decode(torch.from_numpy(v)[:, None])
    stored = torch.from_numpy(x.numpy().astype(columns.dtypes[0]).astype(np.float64))
    for values in (x, stored):  # also once it is written in the column's own type
        assert values.isfinite().all()
        assert (columns.encode(values)[1] > -math.inf).all()
        assert not isinstance(kind, Circular) or (values < kind.high).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "bool", "int64", "uint64"])
def test_samples_fit_integer_storage(dtype):
    columns = one(Integer(), np.array([0.0, 1.0, 1.0, 0.0]), dtype)
    x = columns.decode(torch.tensor([[-1e30], [1e30], [0.0]], dtype=torch.float64)).numpy()
    assert columns.dtypes == (dtype,)
    np.testing.assert_array_equal(x.astype(dtype).astype(float), x)
    assert len(np.unique(x)) >= 2


def test_integers_declared_positive_are_written_as_floats():
    assert one(Positive(), np.array([1.0, 2.0, 5.0]), "int64").dtypes == ("float64",)


@pytest.mark.parametrize("kind", [Continuous(), Integer()])
def test_a_huge_offset_costs_no_precision(kind):
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 1, 300) if isinstance(kind, Continuous) else rng.integers(-3, 4, 300).astype(float)
    offset = 1.7e9
    near, far = (one(kind, noise + o, model=torch.float32) for o in (0.0, offset))
    a, b = near.encode(rows(noise))[0], far.encode(rows(noise + offset))[0]
    torch.testing.assert_close(a, b, rtol=0, atol=2e-6)
    back = far.decode(b[0])
    assert (back - rows(noise + offset)).abs().max() < 1e-6


def test_moments_survive_a_change_of_dtype():
    columns = one(Continuous(), 1.7e9 + np.random.default_rng(6).normal(size=100))
    x = rows(1.7e9 + np.linspace(-1, 1, 5))
    before = columns.encode(x)[0]
    after = columns.float().half().double().encode(x)[0]
    assert torch.equal(before, after)
    assert columns.to(torch.float32).encode(x)[0].dtype == torch.float32


@pytest.mark.parametrize(
    "values", [np.full(9, 3.0), 1.7e9 + np.arange(9) * 2.4e-7, 1e300 * np.linspace(-1, 1, 9)]
)
def test_constant_and_extreme_columns_give_no_nan(values):
    columns = one(Continuous(), values)
    v, log_weight = columns.encode(rows(values))
    assert v.isfinite().all()
    assert log_weight.isfinite().all()
    torch.testing.assert_close(columns.decode(v[0]), rows(values), rtol=1e-12, atol=0)


@pytest.mark.parametrize("model", [torch.float32, torch.float64])
def test_the_model_sees_no_overflow_and_no_angle_beyond_pi(model):
    columns = one(Continuous(), np.arange(5.0), model=model)
    v = columns.encode(rows([1e300, -1e300]))[0]
    assert v.square().isfinite().all()
    angles = one(Circular(0, 360), np.arange(5.0), model=model)
    v = angles.encode(rows([0.0, 360.0, 360 - 1e-13, 1e-13]))[0]
    assert all(-math.pi <= float(a) <= math.pi for a in v.ravel())
    assert angles.decode(v[0]).max() < 360


def test_rare_values_do_not_make_cells_wide():
    column = Column.fit("a", Integer(), "int64", np.eye(1, 100_000)[0])
    assert 1 / column.scale < 4


def test_evaluation_is_deterministic_and_training_is_not():
    columns, x = mixed(np.random.default_rng(7))
    assert torch.equal(columns.encode(x)[0], columns.encode(x)[0])
    assert torch.equal(
        columns.encode(x)[0][:, 3:9], columns.encode(x[3:9])[0]
    )  # the same draws for every row
    columns.train()
    torch.manual_seed(0)
    a, b = columns.encode(x)[0], columns.encode(x)[0]
    torch.manual_seed(0)
    assert a.shape[0] == 1
    assert not torch.equal(a, b)
    assert torch.equal(a, columns.encode(x)[0])


def test_fixed_draws_are_stratified_in_every_column():
    lattices = Columns([Column(f"c{i}", Integer()) for i in range(5)]).double().eval()
    u = lattices.encode(torch.zeros(1, 5, dtype=torch.float64))[0][:, 0]
    expected = ((torch.arange(16) + 0.5) / 16 - 0.5).double()
    for column in u.T:
        torch.testing.assert_close(column.sort().values, expected)
    assert len({tuple(c.tolist()) for c in u.T}) == 5


def test_float32_rows_hit_float32_lattices_and_samples_match_storage():
    values = np.round(np.random.default_rng(8).normal(20, 3, 400), 2).astype(np.float32)
    columns = one(Lattice(0.01), values.astype(float), "float32", torch.float32)
    assert columns.encode(torch.from_numpy(values)[:, None])[1].isfinite().all()
    decoded = columns.decode(columns.encode(rows(values))[0][3])
    assert torch.equal(decoded, rows(values))


def test_the_delta_method_matches_repeated_draws():
    generator = torch.Generator().manual_seed(0)
    draws = 0.5 * torch.randn(64, 4000, generator=generator, dtype=torch.float64)
    log_prob, error = delta_method(draws)
    assert log_prob.std().item() == pytest.approx(error.mean().item(), rel=0.1)
    dead = delta_method(torch.full((4, 1), -math.inf))
    assert dead[0].item() == -math.inf
    assert dead[1].item() == 0
    assert delta_method(torch.tensor([[1.0], [math.nan]]))[0].isnan().all()


# -- a kind of several coordinates --------------------------------------------------------------


@dataclass(frozen=True)
class Direction(Kind):
    """Angles as points of a plane: the direction is the angle, the distance is drawn from Rayleigh's density.

    With the density ``p`` of the plane, that of the angle is ``int p(r cos, r sin) r dr``, the mean of
    ``p exp(r^2 / 2)`` over the draws.
    """

    turn: float
    standardized: ClassVar[bool] = False

    @property
    def width(self) -> int:
        return 2

    @property
    def noise(self) -> int:
        return 1

    @property
    def support(self) -> tuple[float, float]:
        return 0.0, self.turn

    def encode(self, x, noise, eps):
        outside = self._outside(x)
        radius = (-2 * (0.5 - noise).log()).sqrt()
        angle = x.masked_fill(outside, 0.0) * (2 * math.pi / self.turn)
        log_weight = radius**2 / 2 + math.log(2 * math.pi / self.turn)
        return radius * torch.cat([angle.cos(), angle.sin()], -1), log_weight.masked_fill(outside, -math.inf)

    def decode(self, real):
        angle = torch.atan2(real[..., 1:], real[..., :1])
        return torch.remainder(angle * (self.turn / (2 * math.pi)), self.turn)


class Affine(Bijection):
    """A shift and a scale of each coordinate."""

    def __init__(self, shift, scale):
        super().__init__((len(shift),))
        self.shift, self.scale = (torch.tensor(t, dtype=torch.float64) for t in (shift, scale))

    def forward(self, x, context=None):
        return (x - self.shift) / self.scale, -self.scale.log().sum().expand(x.shape[:-1])

    def inverse(self, y, context=None):
        return self.shift + self.scale * y, self.scale.log().sum().expand(y.shape[:-1])


def with_directions(draws: int = 16) -> Columns:
    """Two angles among others, behind and before kinds of one coordinate and of none."""
    columns = [
        Column("n", Integer(), "int64", loc=2.0, scale=3.0),
        Column("a", Direction(360.0)),
        Column("same", Constant(4.5)),
        Column("b", Direction(24.0), "float32"),
        Column("x", Continuous(), loc=1.0, scale=2.0),
        Column("c", Direction(360.0)),
    ]
    return Columns(columns, num_draws=draws).double().eval()


def test_a_kind_may_take_two_latent_coordinates(monkeypatch):
    monkeypatch.setitem(COLUMN_KINDS, "direction", Direction)
    columns = with_directions()
    rng = np.random.default_rng(0)
    x = np.stack([rng.poisson(3, 50), 360 * rng.random(50), np.full(50, 4.5), 24 * rng.random(50),
                  rng.normal(size=50), 360 * rng.random(50)], 1)  # fmt: skip
    x[:, 3] = x[:, 3].astype(np.float32)
    check_encoding(columns, torch.from_numpy(x[:8]), outside=torch.from_numpy(x[:1] + 400))
    v, log_weight = columns.encode(torch.from_numpy(x))
    assert v.shape == (16, 50, 8)
    assert log_weight.shape == (16, 50)
    assert columns.circular == (False,) * 8
    # each column's coordinates stand together, in the order of the columns
    for place, column, turn in ((1, 1, 360), (3, 3, 24), (6, 5, 360)):
        angle = torch.atan2(v[..., place + 1], v[..., place]) * turn / (2 * math.pi) % turn
        torch.testing.assert_close(angle, torch.from_numpy(x[:, column]).expand(16, 50))
    torch.testing.assert_close(v[..., 5] * 2 + 1, torch.from_numpy(x[:, 4]).expand(16, 50))
    torch.testing.assert_close(v[..., 0].mean(0) * 3 + 2, torch.from_numpy(x[:, 0]))


def test_the_density_of_a_kind_of_two_coordinates_integrates_to_one():
    columns = Columns([Column("a", Direction(360.0))], num_draws=4096).double().eval()
    a = torch.linspace(0, 360, 721, dtype=torch.float64)[:-1, None]
    round_about = Flow(Identity((2,)), Normal((2,)), columns).double().eval()
    torch.testing.assert_close(round_about.log_prob(a), torch.full((720,), -math.log(360.0)).double())
    # not round: the density of the angle by a sum over distances
    pushed = Flow(Affine([0.8, -0.3], [0.6, 0.9]), Normal((2,)), columns).double().eval()
    density = pushed.log_prob(a).exp()
    assert density.sum().item() * 0.5 == pytest.approx(1, abs=2e-3)
    radius = (torch.arange(4000, dtype=torch.float64) + 0.5) / 500
    angle = a * math.pi / 180
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    plane = pushed.without_encoding().log_prob(points).exp()
    exact = (plane * radius).sum(-1) / 500 * math.pi / 180
    torch.testing.assert_close(density, exact, rtol=0.02, atol=1e-5)
    # and what is sampled has it
    drawn = pushed.sample(20_000, generator=torch.Generator().manual_seed(0))[:, 0]
    share = torch.histc(drawn, 12, 0, 360) / len(drawn)
    torch.testing.assert_close(share, density.reshape(12, 60).sum(1) * 0.5, rtol=0, atol=0.015)


def test_a_kind_says_itself_how_it_is_written(monkeypatch):
    with pytest.raises(ConfigError, match="is not a kind of column"):
        parse_kind("direction(360)")
    monkeypatch.setitem(COLUMN_KINDS, "direction", Direction)
    assert declarable_kinds().endswith("circular(low, high), direction(turn)")
    assert parse_kind("direction(360)") == Direction(360.0)
    assert parse_kind(str(Direction(24.0))) == Direction(24.0)
    with pytest.raises(ConfigError, match=r"wrong values in its brackets; there are: .*direction\(turn\)"):
        parse_kind("direction(0, 360)")
    columns = with_directions()
    again = Columns.from_json(json.loads(json.dumps(columns.to_json())))
    assert again.columns == columns.columns


# -- files --------------------------------------------------------------------------------------


def saved() -> dict:
    columns, _ = mixed(np.random.default_rng(9))
    return Columns(columns.columns, given=["g"], weights="w", num_draws=8).to_json()


def test_json_rebuilds_the_encoding_exactly():
    spec = json.loads(json.dumps(saved(), allow_nan=False))
    columns = Columns.from_json(spec)
    assert columns.to_json() == saved()
    assert (columns.given, columns.weights, columns.num_draws) == (("g",), "w", 8)
    original, x = mixed(np.random.default_rng(9))
    rebuilt = Columns.from_json({**spec, "draws": 16}).double().eval()
    assert torch.equal(original.encode(x)[0], rebuilt.encode(x)[0])


def _column(**changes):
    def change(spec):
        spec["columns"][0] |= changes

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s.pop("draws"),
        lambda s: s.update(more=1),
        lambda s: s.update(num_draws=10**9),
        lambda s: s.update(num_draws=True),
        lambda s: s.update(num_draws=0),
        lambda s: s.update(columns="abc"),
        lambda s: s.update(columns=[]),
        lambda s: s.update(columns=[None]),
        lambda s: s.update(columns=[s["columns"][0]] * 2),
        lambda s: s.update(given=[1]),
        lambda s: s.update(given=[s["columns"][0]["name"]]),
        lambda s: s.update(weights={}),
        _column(loc=math.nan),
        _column(loc=10**400),
        _column(loc="1"),
        _column(scale=0),
        _column(scale=-1.0),
        _column(scale=math.inf),
        _column(dtype="object"),
        _column(dtype=["float64"]),
        _column(name=3),
        _column(name="x" * 10**6),
        _column(kind={"kind": "exec"}),
        _column(kind={"kind": "lattice", "step": 0.0, "offset": 0.0}),
        _column(kind={"kind": "bounded", "low": 1.0, "high": 0.0}),
        _column(kind={"kind": "bounded", "low": 1.0}),
        _column(kind={"kind": "integer", "step": 2.0, "offset": 0.0}),
        _column(kind={"kind": "circular", "low": 0.0, "high": 1.0}, scale=2.0),
        _column(kind="continuous"),
        _column(kind={"kind": ["continuous"]}),
    ],
)
def test_a_hostile_file_is_refused(damage):
    spec = saved()
    damage(spec)
    with pytest.raises(FormatError):
        Columns.from_json(spec)


@pytest.mark.parametrize("spec", [None, [], "x", 3])
def test_a_foreign_spec_is_refused(spec):
    with pytest.raises(FormatError):
        Columns.from_json(spec)


# -- kinds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("positive", Positive()),
        (" Bounded( 0,1 )", Bounded(0, 1)),
        ("circular(-180,180)", Circular(-180, 180)),
        ("lattice(0.05)", Lattice(0.05)),
        ("lattice(0.5,0.25)", Lattice(0.5, 0.25)),
        ("integer", Integer()),
        ("integer(0)", Integer(0)),
        ("integer(1, 31)", Integer(1, 31)),
        ("continuous", Continuous()),
    ],
)
def test_kinds_are_parsed(text, kind):
    assert parse_kind(text) == kind


@pytest.mark.parametrize("text", [
    "", "real", "bounded", "bounded(1)", "bounded(1,0)", "bounded(0,0)", "bounded(a,b)", "positive(1)",
    "lattice", "lattice(0)", "lattice(nan)", "integer(2,0)", "integer(1.5)", "integer(0,inf)", "constant(3)",
    "circular(0,inf)", "bounded(0,1", "bounded(0,1))",
])  # fmt: skip
def test_bad_kinds_are_refused_with_the_choice(text):
    says = r"there are: .*circular|two finite ends|a step above zero|two whole numbers, the lower first"
    with pytest.raises(ConfigError, match=says):
        parse_kind(text)


def test_every_kind_is_covered_here():
    assert set(COLUMN_KINDS) == {*EVERY, "constant"}


def test_columns_need_something_to_model_and_distinct_names():
    with pytest.raises(DataError, match="no column varies"):
        Columns([Column("a", Constant(1.0))])
    with pytest.raises(DataError, match="'a' is used for two"):
        Columns([Column("a", Continuous())], given=["a"])
    with pytest.raises(DataError, match=r"column 'a' is positive, but row 2 holds -1 \(2 rows") as caught:
        Column.fit("a", Positive(), "float64", np.array([1.0, -1.0, 0.0]))
    assert str(caught.value).endswith("declare the column differently: columns={'a': 'continuous'}.")
    assert caught.value.cure == Cure("columns", {"a": "continuous"})
