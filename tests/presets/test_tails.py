"""Draws of trained spline flows far out: a conditional density is as narrow there as the data say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import diffeo
from diffeo import presets
from diffeo.functional.seeding import generator

NOISE = 0.1


def posterior(preset: Any) -> tuple[Tensor, float]:
    """Draws of theta after training, in deviations of the exact posterior, and the density at 20 of these.

    theta is uniform on (-3, 3)^2 and x is theta and noise; away from the ends theta given x is normal.
    """
    g = generator(0)
    theta = 6 * torch.rand(5000, 2, generator=g) - 3
    x = theta + NOISE * torch.randn(5000, 2, generator=g)
    flow = preset.build()
    diffeo.fit(flow, theta, context=x, max_steps=300, batch_size=256, seed=0, progress=False)
    flow.eval()
    x = 4 * torch.rand(300, 2, generator=g) - 2
    with torch.no_grad():
        draws = flow.sample((50,), x, generator=g)
        beyond = flow.log_prob(x + 20 * NOISE * torch.tensor([1.0, 0.0]), x) - flow.log_prob(x, x)
    return (draws - x) / NOISE, float(beyond.median())


SMALL = {"layers": 3, "hidden": 32, "blocks": 1}


@pytest.mark.parametrize("kind", [presets.NSF, presets.CouplingNSF, presets.Tabular])
def test_draws_of_a_narrow_posterior_stay_with_it(kind: Any):
    z, beyond = posterior(kind(2, 2, **SMALL))
    assert 0.9 < float(z.std()) < 1.25
    assert float((z.abs() > 5).float().mean()) < 2e-3  # a normal density: 6e-7
    assert float(z.abs().max()) < 12
    assert beyond < -15


def test_published_splines_throw_some_of_them_far():
    """Their tails keep the width of all rows: what the location and scale behind each spline are for."""
    z, _ = posterior(presets.NSF(2, 2, max_scale=1.0, **SMALL))
    assert float(z.abs().max()) > 25
    assert math.isfinite(float(z.std()))
