"""``Tabular`` with circular columns: continuous at the seam, normalized, and close to the truth."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, VonMises

import diffeo
from diffeo.errors import ConfigError
from diffeo.io.recipes import from_recipe, to_recipe
from diffeo.presets import NSF, Tabular, choose
from diffeo.tables.schema import Schema
from diffeo.tables.table import Table
from diffeo.testing import check_flow, randomize_


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


small = {"layers": 2, "hidden": 16, "blocks": 1, "bins": 4}
SHAPES = [
    Tabular(1, circular=(0,), **small),
    Tabular(1, 2, circular=(0,), **small),
    Tabular(2, circular=(0,), **small),
    Tabular(2, circular=(1, 0), **small),
    Tabular(4, 1, circular=(3, 1), marginal=4, **small),
]
some = pytest.mark.parametrize("preset", SHAPES, ids=lambda p: f"{p.features}, circular {p.circular}")


def rows_for(preset: Tabular, n: int = 50) -> tuple[Tensor, Tensor | None]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n, preset.features, generator=g, dtype=torch.float64)
    angles = list(preset.circular)
    x[:, angles] = (torch.rand(n, len(angles), generator=g, dtype=torch.float64) * 2 - 1) * math.pi
    shape = None if preset.context is None else (n, preset.context.size)  # type: ignore[union-attr]
    return x, None if shape is None else torch.randn(shape, generator=g, dtype=torch.float64)


@some
def test_the_flow_keeps_the_contract(preset: Tabular):
    check_flow(preset.build(), samples=8000)


@some
def test_round_trip_and_log_det(preset: Tabular):
    x, context = rows_for(preset, 6)
    flow = randomize_(preset.build()).double()
    flow.initialize(x, context)
    z, log_det = flow.bijection(x, context)
    back, log_det_back = flow.bijection.inverse(z, context)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_det_back, -log_det)
    for i in range(len(x)):
        own = None if context is None else context[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(lambda p: flow.bijection(p, own)[0], x[i : i + 1])
        wanted = torch.linalg.slogdet(jacobian[0, :, 0])[1]
        torch.testing.assert_close(log_det[i], wanted)


@some
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_density_is_continuous_across_each_seam(preset: Tabular, dtype: torch.dtype):
    flow = randomize_(preset.build(), scale=0.2).to(dtype)
    x, context = (None if t is None else t.to(dtype) for t in rows_for(preset))
    assert x is not None
    for i in preset.circular:

        def at(angle: float) -> Tensor:
            return flow.log_prob(x.index_fill(1, torch.tensor([i]), angle), context)

        here, tol = at(-math.pi), 1e-12 if dtype == torch.float64 else 2e-5
        torch.testing.assert_close(at(math.pi), here, rtol=tol, atol=tol)
        if dtype == torch.float64:
            for angle in (1e-9 - math.pi, math.pi - 1e-9):
                torch.testing.assert_close(at(angle), here, rtol=0, atol=1e-4)


def test_angles_stay_angles():
    flow = randomize_(Tabular(2, circular=(1,), **small).build(), scale=1.0)
    x = flow.sample(20_000)
    assert x[:, 1].abs().max() <= torch.tensor(math.pi)
    beyond = torch.tensor([[0.0, 3.2], [0.0, -3.2], [0.0, 3.0], [9.0, 3.0]])
    assert flow.log_prob(beyond).isfinite().tolist() == [False, False, True, True]


def test_untrained_angles_are_uniform_and_independent():
    preset = Tabular(3, circular=(0, 2), **small)
    x, _ = rows_for(preset)
    wanted = Tabular(1, **small).build().double().log_prob(x[:, 1:2]) - 2 * math.log(2 * math.pi)
    torch.testing.assert_close(preset.build().double().log_prob(x), wanted)


def test_real_columns_do_not_see_angles():
    flow = randomize_(Tabular(3, circular=(1,), **small).build()).double()
    x, _ = rows_for(SHAPES[0], 1)
    jacobian = torch.autograd.functional.jacobian(
        flow.to_latent, torch.tensor([0.3, float(x), -0.2]).double()
    )
    assert torch.equal(jacobian[[0, 2], 1], torch.zeros(2).double())
    assert (jacobian[1] != 0).all()


# -- the truth ------------------------------------------------------------------------------------------


def mixture(location: Tensor) -> tuple[VonMises, VonMises]:
    return VonMises(location, torch.tensor(4.0)), VonMises(torch.tensor(0.5), torch.tensor(20.0))


def draw(n: int, slope: float) -> tuple[Tensor, Tensor, Tensor]:
    """Angles of two clusters, one across the seam and moving with a real column; the exact log-density."""
    x = 100 + 20 * torch.randn(n)
    wide, narrow = mixture(3.0 + slope * (x - 100) / 20)
    angle = torch.where(torch.rand(n) < 0.6, wide.sample(), narrow.sample((n,)))
    exact = torch.logaddexp(wide.log_prob(angle) + math.log(0.6), narrow.log_prob(angle) + math.log(0.4))
    return angle.unsqueeze(1), x.unsqueeze(1), exact


@pytest.mark.parametrize("how", ["alone", "context", "joint"])
def test_gap_to_a_mixture_of_von_mises(how: str):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        slope = 0.0 if how == "alone" else 1.0
        angle, x, _ = draw(6000, slope)
        test_angle, test_x, exact = draw(10_000, slope)
        sizes = {"layers": 1, "hidden": 48, "circular": (0,)}
        if how == "joint":
            flow = Tabular(2, **sizes).build()
            train, test = (torch.cat([angle, x], 1),), (torch.cat([test_angle, test_x], 1),)
            exact = exact + Normal(100.0, 20.0).log_prob(test_x[:, 0])
        elif how == "context":
            flow, train, test = Tabular(1, 1, **sizes).build(), (angle, x), (test_angle, test_x)
        else:
            flow, train, test = Tabular(1, **sizes).build(), (angle,), (test_angle,)
    diffeo.fit(flow, *train, max_steps=400)
    with torch.no_grad():
        gap = (exact - flow.log_prob(*test)).mean().item()
    assert gap < (0.02 if how == "alone" else 0.06)


# -- tables and fields ------------------------------------------------------------------------------------


def table() -> Table:
    rng = np.random.default_rng(0)
    hour = (rng.normal(0, 2, 800)) % 24
    return Table.from_columns({"temperature": rng.normal(size=800), "hour": hour, "site": np.full(800, 3)})


KINDS = {"hour": "circular(0, 24)"}


def test_fit_table_takes_hours_for_a_circle():
    preset = Tabular(2, circular=(1,), layers=1, hidden=32, blocks=1)
    flow, report = diffeo.fit_table(table(), columns=KINDS, preset=preset, max_seconds=4)
    assert report.baselines["flow"] > report.baselines["gaussian"] + 0.3
    rows = torch.tensor([[0.0, 0.0, 3.0], [0.0, 24.0, 3.0], [0.0, 23.99999, 3.0], [0.0, 12.0, 3.0]]).double()
    log_prob = flow.log_prob(rows)
    torch.testing.assert_close(log_prob[1:3], log_prob[:1].expand(2), rtol=0, atol=1e-3)
    assert log_prob[0] > log_prob[3]  # how much more is a matter of time
    samples = flow.sample(20_000)[:, 1]
    assert samples.min() >= 0
    assert samples.max() < 24
    assert abs(((samples < 12).double().mean() - 0.5).item()) < 0.15


def test_the_chosen_flow_knows_the_circle():
    flow, _ = diffeo.fit_table(table(), columns=KINDS, max_seconds=0.5)
    assert isinstance(flow.preset, Tabular)
    assert flow.preset.circular == (1,)


def test_presets_must_know_the_circle():
    data = table()
    with pytest.raises(ConfigError, match=r"Tabular\(..., circular=\(1,\)\)"):
        diffeo.fit_table(data, columns=KINDS, preset=NSF(2), max_seconds=1)
    with pytest.raises(ConfigError, match=r"circular=\(0,\)"):
        diffeo.fit_table(data, columns=KINDS, preset=Tabular(2, circular=(0,)), max_seconds=1)
    with pytest.raises(ConfigError, match=r"circular columns are \(\)"):
        diffeo.fit_table(data, preset=Tabular(2, circular=(1,)), max_seconds=1)
    assert Schema.infer(data, KINDS).circular == (1,)


def test_choose_passes_it_on():
    assert [p.circular for p in choose(10_000, 3, circular=(2,))] == [(2,), (2,)]
    assert [p.circular for p in choose(10_000, 2, circular=(0, 1))] == [(0, 1)]


def test_the_field():
    for wrong in ((3,), (-1,), (0, 0), "0", (0.0,), 1):
        with pytest.raises(ConfigError, match=r"Tabular.circular"):
            Tabular(3, circular=wrong)  # type: ignore[arg-type]
    preset = Tabular(3, circular=(2, 0))
    assert from_recipe(json.loads(json.dumps(to_recipe(preset)))) == preset
    assert NSF(2).circular == ()
