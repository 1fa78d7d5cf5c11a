"""The likelihood of noisy data, and forgetting the class."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffeo import Flow
from diffeo.bases import LearnedNormal
from diffeo.bijections import Reverse
from diffeo.contexts import Classes
from diffeo.encodings import Dequantization, OneHotContext, VariationalNoise
from diffeo.errors import ConfigError
from diffeo.objectives import Batch, Likelihood, NoisyLikelihood
from diffeo.presets import TarFlow


def batch(x: Tensor, context: Tensor | None = None, weights: Tensor | None = None) -> Batch:
    return Batch(x, context, weights, torch.arange(len(x)))


def of_scale(deviation: float) -> Flow:
    flow = Flow(Reverse(1), LearnedNormal((1,)))
    with torch.no_grad():
        flow.base.log_scale.fill_(math.log(deviation))  # type: ignore[union-attr, operator]
    return flow


def test_learned_noise_is_refused():
    shape = (1, 2, 2)
    door = Dequantization(shape, noise=VariationalNoise(shape))
    flow = TarFlow(shape, patch=1, hidden=8, heads=2, noise=0.1).build(door)
    with pytest.raises(ConfigError, match="uniform noise"):
        NoisyLikelihood(0.1)(flow, batch(torch.zeros(3, *shape)))


@pytest.mark.parametrize("training", [False, True])
def test_it_is_the_likelihood_of_noisy_points(training: bool):
    flow = of_scale(2.0).train(training)
    scale = flow.base.loc_and_log_scale()[1].exp().item()  # type: ignore[operator, union-attr]
    x = torch.randn(40_000, 1, generator=torch.Generator().manual_seed(1))
    found = NoisyLikelihood(1.5)(flow, batch(x)).item()
    square = x.square().mean().item() + 1.5**2
    wanted = 0.5 * math.log(2 * math.pi * scale**2) + square / (2 * scale**2)
    assert abs(found - wanted) < 0.02
    assert abs(found - Likelihood()(flow, batch(x)).item()) > 0.2


def test_noise_is_fresh_in_training_and_fixed_in_evaluation():
    flow, x = of_scale(1.0), batch(torch.zeros(5, 1))
    objective = NoisyLikelihood(0.5)
    torch.manual_seed(0)
    assert objective(flow.train(), x) != objective(flow, x)
    state = torch.get_rng_state()
    assert objective(flow.eval(), x) == objective(flow, x)
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_count():
    flow = of_scale(1.0).eval()
    x = torch.tensor([[0.0], [9.0]])
    light, heavy = (
        NoisyLikelihood(0.01)(flow, batch(x, weights=torch.tensor(w))) for w in ([1.0, 0.0], [0.0, 1.0])
    )
    assert light < 1 < 30 < heavy


def test_pixels_get_their_noise_behind_the_encoding():
    flow = TarFlow((1, 2, 2), patch=1, hidden=8, heads=2).build(Dequantization((1, 2, 2))).eval()
    x = torch.randint(0, 256, (500, 1, 2, 2), dtype=torch.uint8)
    loss = NoisyLikelihood(0.1)(flow, batch(x))
    v = x / 255 - 0.5
    wanted = 2 * math.log(2 * math.pi) + (v.square().flatten(1).sum(1).mean() + 4 * 0.01) / 2
    assert abs(loss - wanted) < 0.02


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_noise_that_cannot_be(sigma: float):
    with pytest.raises(ConfigError, match="sigma must be"):
        NoisyLikelihood(sigma)


def test_a_preset_with_noise_trains_by_it():
    assert TarFlow((1, 4, 4), noise=0.05).objective() == NoisyLikelihood(0.05)
    assert TarFlow((1, 4, 4)).objective() == Likelihood()


# -- forgetting the class -------------------------------------------------------------------------


def test_classes_are_forgotten_in_training_only():
    torch.manual_seed(0)
    encoding, classes = OneHotContext(4, drop=0.25), torch.arange(4).repeat(2500)
    kept = encoding.train()(classes).sum(-1)
    assert set(kept.tolist()) == {0.0, 1.0}
    assert abs(kept.mean() - 0.75) < 4 * math.sqrt(0.25 * 0.75 / 10_000)
    one_hot = encoding(classes)
    assert torch.equal(one_hot[one_hot.sum(-1) == 1].argmax(-1), classes[one_hot.sum(-1) == 1])
    state = torch.get_rng_state()
    assert torch.equal(encoding.eval()(classes), torch.nn.functional.one_hot(classes, 4).float())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_preset_says_how_often():
    flow = TarFlow((1, 2, 2), Classes(3), patch=1, hidden=8, heads=2, drop=0.3).build()
    assert isinstance(flow.context_encoding, OneHotContext)
    assert flow.context_encoding.drop == 0.3
    for context, drop in ((Classes(3), 1.0), (None, 0.1), (2, 0.1)):
        with pytest.raises(ConfigError, match="TarFlow.drop must be"):
            TarFlow((1, 2, 2), context, drop=drop)
