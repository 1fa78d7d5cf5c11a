"""PixelFlow: the order of its numbers, its likelihood as that of a discrete image, its cached inverse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffeo.bijections import AutoregressiveTokens, Interleave, Uncached
from diffeo.contexts import Classes
from diffeo.encodings import Dequantization
from diffeo.errors import ConfigError, ShapeError
from diffeo.presets import PixelFlow
from diffeo.testing import randomize_

FULL = torch.float64
SMALL: dict[str, Any] = {"hidden": 8, "blocks": 1, "kernel": 3}


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=FULL) - 0.5


def test_numbers_go_channel_by_channel_along_the_rows():
    x = uniform(2, 3, 2, 4)
    z, log_det = Interleave((3, 2, 4))(x)
    assert z.shape == (2, 24, 1)
    assert (log_det == 0).all()
    for i in range(2):
        for j in range(4):
            for c in range(3):
                assert torch.equal(z[:, 3 * (4 * i + j) + c, 0], x[:, c, i, j])
    with pytest.raises(ShapeError, match="channels, height, width"):
        Interleave((4, 4))


def test_every_number_depends_on_those_before_it():
    """Green on red, blue on both, none on what comes later."""
    torch.manual_seed(0)
    flow = randomize_(PixelFlow((3, 2, 2), bins=4, **SMALL).build().double())
    x = uniform(3, 2, 2)
    jacobian = torch.autograd.functional.jacobian(lambda t: flow.bijection(t)[0], x)
    tokens = jacobian.movedim((0, 3), (2, 5)).reshape(12, 12)
    assert (tokens.triu(1) == 0).all()
    assert (tokens.diagonal() > 0).all()
    within = tokens.diagonal(-1)[[i for i in range(11) if i % 3 < 2]]
    assert (within != 0).all()  # a color on the one before it


@pytest.mark.parametrize("bits", [1, 2])
def test_the_bound_is_the_likelihood_itself(bits: int):
    """With a bin for each level the masses of all images sum to one, whatever the noise."""
    torch.manual_seed(0)
    shape = (1, 1, 3)
    flow = randomize_(PixelFlow(shape, bins=2**bits, **SMALL).build(Dequantization(shape, bits)).double())
    levels = torch.arange(2**bits) * 2 ** (8 - bits)
    images = torch.cartesian_prod(levels, levels, levels).view(-1, *shape).to(torch.uint8)
    flow.encoding.num_draws = 1
    # an image's pixels reach the net with their noise, which the sum sees as the average over it
    first = next(m for m in flow.modules() if isinstance(m, AutoregressiveTokens))
    first.net.first.weight.data.zero_()
    masses = flow.eval().log_prob(images).exp()
    torch.testing.assert_close(masses.sum(), torch.ones((), dtype=FULL))
    assert masses.std() > 1e-3
    flow.encoding.num_draws = 5
    torch.testing.assert_close(flow.log_prob(images), masses.log())


def test_a_level_can_have_nearly_all_the_mass():
    flow = PixelFlow((1, 1, 1), **SMALL).build(Dequantization((1, 1, 1))).eval()
    layer = next(m for m in flow.modules() if isinstance(m, AutoregressiveTokens))
    with torch.no_grad():
        layer.net.output.bias[7] = 60
    assert 0 < -flow.log_prob(torch.full((1, 1, 1), 7.0)) < 2e-5
    assert flow.log_prob(torch.full((1, 1, 1), 8.0)) > math.log(1e-8)


@torch.no_grad()
@pytest.mark.parametrize("context", [None, Classes(3)], ids=str)
@pytest.mark.parametrize("layers", [1, 2])
def test_the_cached_inverse_is_the_plain_one(layers: int, context: Any):
    torch.manual_seed(0)
    flow = randomize_(PixelFlow((2, 3, 4), context, layers=layers, bins=6, **SMALL).build().double())
    given = None if context is None else torch.arange(5) % 3
    z = uniform(5, 2, 3, 4)
    x = flow.to_data(z, given)
    torch.testing.assert_close(flow.to_latent(x, given), z, rtol=0, atol=1e-12)
    for module in flow.modules():
        if isinstance(module, AutoregressiveTokens):
            module.sampler = Uncached()
    torch.testing.assert_close(flow.to_data(z, given), x, rtol=0, atol=1e-12)


def test_layers_alternate():
    flow = PixelFlow((1, 2, 2), layers=3, bins=4, **SMALL).build()
    made = [m.reverse for m in flow.modules() if isinstance(m, AutoregressiveTokens)]
    assert made == [False, True, False]


def test_what_cannot_be_built():
    with pytest.raises(ConfigError, match="kernel must be odd"):
        PixelFlow((1, 4, 4), kernel=4)
    with pytest.raises(ConfigError, match="use Dequantization without logit"):
        PixelFlow((1, 4, 4), **SMALL).build(Dequantization((1, 4, 4), logit=0.05))
