"""NAF, UNAF, SOSPF, BPF and Gaussianization: what they are built of, and that each learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import diffeo
from diffeo.bijections import Autoregressive, Chain, Coupling, Orthogonal, Pointwise
from diffeo.elementwise import MonotonicNet
from diffeo.presets import BPF, NAF, SOSPF, UNAF, Gaussianization
from diffeo.targets import TOYS

PRESETS: dict[str, Any] = {
    "NAF": NAF(2, layers=2, hidden=32, blocks=1, units=8),
    "UNAF": UNAF(2, layers=1, hidden=32, blocks=1, embedding=8, width=16),
    "SOSPF": SOSPF(2, layers=2, hidden=32, blocks=1, degree=4, polynomials=2),
    "BPF": BPF(2, layers=2, hidden=32, blocks=1, degree=12),
    "Gaussianization": Gaussianization(2, layers=5, components=6),
}


def parts(flow: diffeo.Flow) -> list[Any]:
    assert isinstance(flow.bijection, Chain)
    return list(flow.bijection.parts)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
def test_each_learns_two_moons(preset: Any):
    """Beyond what any normal distribution reaches, in a few steps."""
    generator = torch.Generator().manual_seed(0)
    rows = TOYS["moons"].sample(2000, generator)
    normal = torch.distributions.MultivariateNormal(rows.mean(0), torch.cov(rows.T))
    torch.manual_seed(0)
    flow = preset.build()
    diffeo.fit(flow, rows, max_steps=400, seed=0)
    fresh = TOYS["moons"].sample(2000, generator)
    with torch.no_grad():
        assert flow.log_prob(fresh).mean() > normal.log_prob(fresh).mean() + 0.2
        drawn = flow.sample(500)
        back = flow.to_data(flow.to_latent(drawn))
    torch.testing.assert_close(back, drawn, rtol=1e-3, atol=1e-3)


def test_every_layer_of_unaf_has_a_net_of_its_own():
    families = [p.family for p in parts(UNAF(2, layers=3).build()) if isinstance(p, Autoregressive)]
    assert len({id(f) for f in families}) == 3
    assert all(isinstance(f, MonotonicNet) for f in families)
    assert sum("place" in name for name, _ in UNAF(2, layers=3).build().named_parameters()) == 3


def test_gaussianization_is_mixtures_and_rotations():
    kinds = [type(p) for p in parts(Gaussianization(3, layers=3).build())][1:]
    assert kinds == [Pointwise, Orthogonal, Pointwise, Orthogonal, Pointwise]
    assert [type(p) for p in parts(Gaussianization(1, layers=2).build())][1:] == [Pointwise, Pointwise]


def test_gaussianization_of_a_context_depends_on_it():
    flow = Gaussianization(2, 3, layers=2, components=3, hidden=(8,)).build()
    assert sum(isinstance(p, Coupling) for p in parts(flow)) == 2
    diffeo.testing.randomize_(flow)
    x = torch.zeros(2, 2)
    one, two = flow.log_prob(x, torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]))
    assert one != two


def test_one_unit_starts_at_the_base():
    x = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for preset in (NAF(2, units=1), Gaussianization(2, components=1)):
        flow = preset.build().double()
        torch.testing.assert_close(flow.log_prob(x), flow.base.log_prob(x))


@pytest.mark.parametrize("preset", [NAF(2), Gaussianization(2), NAF(5, layers=8)], ids=str)
def test_mixtures_start_near_the_base(preset: Any):
    """Also far out, where many layers could multiply what one adds."""
    flow = preset.build().double()
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2000, preset.features, dtype=torch.float64, generator=g)
    gap = flow.log_prob(x) - flow.base.log_prob(x)
    assert abs(gap.mean()) < 0.15 * preset.features
    far = flow.to_latent(1e3 * x.sign())
    assert (far.abs() < 2e3).all()
