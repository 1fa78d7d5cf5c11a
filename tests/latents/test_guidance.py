"""Classifier-free guidance: the formula in means and scales, and the exact flow that it gives."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import diffeo
from diffeo.bijections import AutoregressiveTokens, Jacobi, Uncached
from diffeo.contexts import Classes
from diffeo.elementwise import Affine, RationalQuadratic
from diffeo.errors import ConfigError
from diffeo.latents import Guided, guided
from diffeo.nets import CausalTransformer
from diffeo.presets import MAF, TarFlow
from diffeo.testing import check_bijection, check_flow, randomize_
from diffeo.testing.points import generator

FULL = torch.float64
PRESET = TarFlow((1, 2, 4), Classes(3), patch=2, hidden=8, heads=2, blocks=2, layers=1, drop=0.2)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=FULL)


def net(length: int = 4) -> CausalTransformer:
    torch.manual_seed(0)
    return randomize_(CausalTransformer(length, 2, 2, 8, 1, 2, context_shape=(3,)).double())


def flow() -> diffeo.Flow:
    torch.manual_seed(0)
    return randomize_(PRESET.build().double().eval())


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("weight", [0.0, 0.7, 3.0])
def test_means_and_log_scales_are_extrapolated(weight: float, rising: bool):
    family, own, x, c = Affine(), net(), normal(5, 4, 2), normal(5, 3, seed=1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)

    def generative(params: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of x, were y standard normal."""
        mean = family.inverse(zero, params)[0]
        return mean, family.inverse(one, params)[0] - mean

    (mean, deviation), (mean0, deviation0) = generative(own(x, c)), generative(own(x, torch.zeros_like(c)))
    w = weight * (torch.arange(4) / 3 if rising else torch.ones(4)).double()[:, None]
    found = generative(Guided(own, weight, family, rising=rising)(x, c))
    torch.testing.assert_close(found[0], (1 + w) * mean - w * mean0)
    torch.testing.assert_close(found[1], deviation ** (1 + w) * deviation0**-w)


@pytest.mark.parametrize("rising", [False, True])
def test_it_is_a_causal_net_like_any(rising: bool):
    layer = AutoregressiveTokens(Guided(net(), 1.5, rising=rising), Affine())
    check_bijection(layer, capture=False)
    y, c = normal(3, 4, 2), normal(3, 3, seed=1)
    with torch.no_grad():
        plain = layer.solve(y, c, Uncached())
        for sampler in (layer.sampler, Jacobi(1e-12), Jacobi(1e-12, window=3)):
            found = layer.solve(y, c, sampler)
            torch.testing.assert_close(found.x, plain.x)
            torch.testing.assert_close(found.log_det, plain.log_det)


def test_scales_stay_bounded():
    own = randomize_(net(), scale=3.0)
    x, c = normal(50, 4, 2), normal(50, 3, seed=1)
    params = Guided(own, 50.0)(x, c)
    log_slope = Affine().forward(x, params)[1]
    assert params.isfinite().all()
    assert log_slope.abs().max() < math.log(1000)
    assert log_slope.abs().max() > 6


def test_a_guided_flow_is_a_flow():
    """Of two pixels, so that the density is integrated."""
    torch.manual_seed(0)
    preset = replace(PRESET, shape=(1, 1, 2), patch=1)
    check_flow(guided(preset.build().eval(), 0.5))


def test_without_weight_nothing_changes():
    own = flow()
    still = guided(own, 0.0)
    classes = torch.tensor([0, 1, 2])
    x = normal(3, 1, 2, 4)
    torch.testing.assert_close(still.log_prob(x, classes), own.log_prob(x, classes))
    assert not torch.allclose(guided(own, 1.0).log_prob(x, classes), own.log_prob(x, classes))


def test_no_class_is_led_nowhere():
    own, x, none = flow(), normal(3, 1, 2, 4), torch.full((3,), -1)
    torch.testing.assert_close(guided(own, 2.0).log_prob(x, none), own.log_prob(x, none))


def test_the_flow_itself_stays_and_save_refuses_the_guided(tmp_path):
    own = flow()
    before = own.log_prob(normal(3, 1, 2, 4), torch.tensor([0, 1, 2]))
    led = guided(own, 2.0)
    randomize_(led)
    assert torch.equal(own.log_prob(normal(3, 1, 2, 4), torch.tensor([0, 1, 2])), before)
    with pytest.raises(diffeo.errors.DiffeoError):
        diffeo.save(led, tmp_path / "led.safetensors")


def test_what_cannot_be():
    with pytest.raises(ConfigError, match="has none"):
        guided(MAF(2, 3, hidden=(8,)).build(), 1.0)
    for context in (None, Classes(3), 2):  # none, none forgotten in training, no class at all
        with pytest.raises(ConfigError, match="never saw an unknown class"):
            guided(TarFlow((1, 2, 2), context, patch=1, hidden=8, heads=2).build(), 1.0)
    with pytest.raises(ConfigError, match="takes none"):
        Guided(CausalTransformer(2, 1, 2, 8), 1.0)
    for weight in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="weight of guidance"):
            Guided(net(), weight)
    other = AutoregressiveTokens(
        CausalTransformer(2, 1, RationalQuadratic(4).num_params, 8, context_shape=(1,)), RationalQuadratic(4)
    )
    with pytest.raises(ConfigError, match="only AutoregressiveTokens layers of Affine"):
        guided(diffeo.Flow(other, diffeo.bases.Normal((2, 1))), 1.0)
