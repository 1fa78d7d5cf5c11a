"""Densities of bases as far as floats go: -inf only where the density itself underflows, NaN nowhere."""

from __future__ import annotations

import math

import pytest
import torch

from diffeo.bases import StudentT
from diffeo.presets import Gaussianization
from diffeo.testing import randomize_


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_students_tail_is_a_power_as_far_as_floats_go(dtype: torch.dtype) -> None:
    base = StudentT((1,), 4.0).to(dtype)
    largest = torch.finfo(dtype).max
    z = torch.tensor([[1e6], [largest**0.5], [largest**0.9], [-largest]], dtype=dtype, requires_grad=True)
    found = base.log_prob(z)
    constant = math.lgamma(2.5) - math.lgamma(2.0) - 0.5 * math.log(4 * math.pi)
    expected = constant - 2.5 * (2 * z.detach().abs().double().log() - math.log(4.0)).squeeze(-1)
    torch.testing.assert_close(found, expected.to(dtype), rtol=1e-5, atol=1e-5)
    (g,) = torch.autograd.grad(found.sum(), z)
    torch.testing.assert_close(g, -5 / z.detach(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("dtype", "sizes"), [(torch.float32, (1.8e19, 1e30, 1e38)), (torch.float64, (1e155, 1e300))]
)
@pytest.mark.parametrize("stirred", [False, True])
def test_a_gaussianization_is_never_nan(dtype: torch.dtype, sizes: tuple[float, ...], stirred: bool) -> None:
    flow = Gaussianization(3, layers=2, components=4).build()
    if stirred:
        randomize_(flow, seed=1, scale=0.3)
    flow = flow.to(dtype).eval()
    signs = torch.tensor([[1, 1, 1], [-1, 1, -1], [1, 0, 0], [1, -0.5, 0.3]], dtype=dtype)
    for size in sizes:
        assert not flow.log_prob(size * signs).isnan().any()
