"""Fewer numbers than threads: the kernels deal out what there is."""

from __future__ import annotations

import pytest
import torch

from diffeo.elementwise import CircularRationalQuadratic, RationalQuadratic
from diffeo.functional import native
from diffeo.presets import Tabular
from diffeo.testing import randomize_

pytestmark = pytest.mark.skipif(native.native is None, reason="built without kernels")


@pytest.fixture(params=[2, 3], autouse=True)
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 260])
@pytest.mark.parametrize("family", [RationalQuadratic(5), CircularRationalQuadratic(5)])
def test_a_few_numbers_on_their_own(family, n, monkeypatch):
    x = torch.rand(n, dtype=torch.float64)
    params = torch.randn(n, family.num_params, dtype=torch.float64, requires_grad=True)
    y, log_slope = family.forward(x, params)
    (gradient,) = torch.autograd.grad((y + log_slope).sum(), params)
    back = family.inverse(y.detach(), params.detach())[0]
    monkeypatch.setattr(native, "native", None)
    expected, expected_slope = family.forward(x, params)
    (expected_gradient,) = torch.autograd.grad((expected + expected_slope).sum(), params)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(log_slope, expected_slope)
    torch.testing.assert_close(gradient, expected_gradient)
    torch.testing.assert_close(back, x)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_few_rows_of_a_table_with_angles(rows):
    flow = randomize_(Tabular(3, circular=(1,), layers=2, hidden=8, blocks=1).build(), scale=0.2).eval()
    x = flow.sample(rows, generator=torch.Generator().manual_seed(0))
    assert x.shape == (rows, 3)
    torch.testing.assert_close(flow.to_data(flow.to_latent(x)), x, atol=1e-3, rtol=1e-3)
