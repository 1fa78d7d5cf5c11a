"""Encodings of contexts that are images."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from diffeo.bases import Normal
from diffeo.bijections.base import Bijection
from diffeo.encodings import ImageContext
from diffeo.errors import ContextError, DataError, ShapeError
from diffeo.flow import Flow


class Brightness(Bijection):
    """A number moved by the mean of the image it is conditioned on."""

    def __init__(self):
        super().__init__((1,), context_shape=(3, 2, 2))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert context is not None
        return x - context.mean((-3, -2, -1)).unsqueeze(-1), x.new_zeros(x.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert context is not None
        return y + context.mean((-3, -2, -1)).unsqueeze(-1), y.new_zeros(y.shape[:-1])


@pytest.mark.parametrize(
    "pixels", [torch.uint8, torch.int64, torch.bfloat16, torch.float32, torch.float64], ids=str
)
@pytest.mark.parametrize("model", [torch.float32, torch.float64], ids=str)
def test_every_pixel_lands_in_its_place(pixels: torch.dtype, model: torch.dtype):
    """-1 to 1 in even steps, the same for each dtype that can hold the pixels, in the model's own."""
    context = torch.arange(256).reshape(2, 2, 8, 8)
    found = ImageContext((2, 8, 8)).to(model)(context.to(pixels))
    assert found.dtype == model
    assert found.shape == context.shape
    torch.testing.assert_close(found.flatten(), torch.linspace(-1, 1, 256, dtype=model), rtol=1e-6, atol=1e-6)


def test_nothing_is_learned():
    encoding = ImageContext((1, 2, 2))
    before, context = copy.deepcopy(encoding), torch.full((4, 1, 2, 2), 17.0)
    encoding.initialize(context)
    assert not encoding.state_dict()
    assert torch.equal(encoding(context), before(context))
    assert encoding.event_shape == encoding.latent_shape == (1, 2, 2)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_pixels_that_are_not_finite(value: float):
    context = torch.zeros(3, 1, 2, 2)
    context[2, 0, 1, 0] = value
    with pytest.raises(DataError, match=rf"{value} at index \(2, 0, 1, 0\)"):
        ImageContext((1, 2, 2)).initialize(context)
    ImageContext((1, 2, 2)).initialize(context[:2])
    ImageContext((1, 2, 2)).initialize(context[:0])


@pytest.mark.parametrize("shape", [(), (3,), (4, 4), (1, 3, 4, 4), (0, 4, 4), (1, -2, 4)], ids=str)
def test_shapes_that_are_no_image(shape: tuple[int, ...]):
    with pytest.raises(ShapeError, match="channels, height, width"):
        ImageContext(shape)


def test_behind_a_flow():
    """Shapes are checked and broadcast where they enter the flow; the layers see the scaled image."""
    flow = Flow(Brightness(), Normal((1,)), context_encoding=ImageContext((3, 2, 2)))
    assert flow.context_shape == (3, 2, 2)
    images = torch.randint(256, (5, 3, 2, 2), dtype=torch.uint8)
    x = torch.randn(4, 1, 1)
    mean = images.double().mean((1, 2, 3)) / 127.5 - 1
    expected = torch.distributions.Normal(mean.float(), 1.0).log_prob(x[..., 0])
    torch.testing.assert_close(flow.log_prob(x, images), expected)
    assert flow.sample(7, images).shape == (7, 5, 1)
    flow.initialize(x, images)
    with pytest.raises(ContextError, match="3, 2, 2"):
        flow.log_prob(x)
    with pytest.raises(ShapeError, match="context has shape"):
        flow.log_prob(x, images[..., :1])
    with pytest.raises(DataError, match="finite"):
        flow.initialize(x, images / torch.zeros(()))
