"""Numbers that begin at any byte, as those of a NumPy array may: right, and no load that is not aligned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffeo import presets
from diffeo.elementwise import RationalQuadratic
from diffeo.functional.convolutions import three_convolutions
from tests.cases import stirred


def odd(x: Tensor, offset: int) -> Tensor:
    """The same numbers, from a byte that is no multiple of anything."""
    room = np.zeros(x.numel() * x.element_size() + offset, np.uint8)
    room[offset:] = np.frombuffer(x.detach().contiguous().numpy().tobytes(), np.uint8)
    found = torch.from_numpy(room[offset:].view(x.detach().numpy().dtype)).view(x.shape)
    assert found.data_ptr() % x.element_size()
    return found


@pytest.mark.parametrize("offset", [1, 2, 3, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("preset", [presets.NSF(features=3), presets.RealNVP(features=3), presets.Tabular(3)])
def test_rows_at_any_byte(preset: presets.Preset, dtype: torch.dtype, offset: int):
    flow = stirred(preset.build()).to(dtype).eval()
    x, near = torch.randn(70, 3, dtype=dtype), 1e-2 if dtype is torch.float32 else 1e-7
    for run in (flow.log_prob, flow.to_latent, flow.to_data):
        with torch.no_grad():
            torch.testing.assert_close(run(odd(x, offset)), run(x), rtol=near, atol=near)
    x, other = x.requires_grad_(), odd(x, offset).requires_grad_()
    for rows in (x, other):
        flow.log_prob(rows).sum().backward()
    torch.testing.assert_close(other.grad, x.grad, rtol=near, atol=near)


@pytest.mark.parametrize("offset", [1, 2, 4])
def test_weights_and_gradients_at_any_byte(offset: int):
    flow = stirred(presets.NSF(features=3).build()).double().eval()
    x = torch.randn(70, 3, dtype=torch.float64)
    wanted = flow.log_prob(x)
    for module in flow.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(odd(value.data, offset)))
    found = flow.log_prob(x)
    torch.testing.assert_close(found, wanted)
    found.backward(odd(torch.ones(70, dtype=torch.float64), offset))
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in flow.parameters())


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_scalar_maps_and_convolutions_at_any_byte(offset: int):
    spline = RationalQuadratic(4)
    x, params = torch.randn(50), torch.randn(50, spline.num_params)
    wanted = spline.forward(x, params)
    for pair in ((odd(x, offset), params), (x, odd(params, offset))):
        torch.testing.assert_close(spline.forward(*pair), wanted)
    image = torch.randn(2, 3, 5, 5)
    convolutions = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 3, padding=1)
    weights = [w.detach() for layer in convolutions for w in (layer.weight, layer.bias) if w is not None]
    wanted = three_convolutions(image, tuple(weights))
    torch.testing.assert_close(three_convolutions(odd(image, offset), tuple(weights)), wanted)
    weights[0] = odd(weights[0], offset)
    torch.testing.assert_close(three_convolutions(image, tuple(weights)), wanted)
