"""Tweedie's formula against posterior means in closed form, and samples that go through it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diffeo import Flow
from diffeo.bases import Normal
from diffeo.bases.base import Base
from diffeo.bijections import Reverse, Standardize
from diffeo.contexts import Classes
from diffeo.encodings import Dequantization
from diffeo.errors import ConfigError
from diffeo.latents import denoise, sample_denoised
from diffeo.presets import MAF, TarFlow
from diffeo.testing import randomize_
from diffeo.testing.points import generator


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def test_of_normal_data_it_is_the_posterior_mean():
    """Clean N(m, s^2) and noise sigma: the mean of the clean is m + (v - m) s^2 / (s^2 + sigma^2)."""
    mean, deviation, sigma = torch.tensor([1.0, -4.0]), torch.tensor([2.0, 0.5]), 0.7
    layer = Standardize((2,)).double()
    noisy = normal(5000, 2)
    noisy = (noisy - noisy.mean(0)) / noisy.std(0, unbiased=False)
    layer.initialize(mean + noisy * (deviation.square() + sigma**2).sqrt())
    v = 3 * normal(7, 2, seed=1)
    wanted = mean + (v - mean) * deviation.square() / (deviation.square() + sigma**2)
    found = denoise(Flow(layer, Normal((2,))).double().eval(), v, sigma)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


class TwoPoints(Base):
    """Clean data at -1 and 1, with noise of 0.4."""

    def __init__(self) -> None:
        super().__init__((1,))
        self.anchor = nn.Parameter(torch.zeros(()))

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        parts = [-((z - c) ** 2) / (2 * 0.4**2) for c in (-1.0, 1.0)]
        return torch.logaddexp(*parts).sum(-1)

    def sample(self, *args: object, **more: object) -> Tensor:
        raise NotImplementedError


def test_of_two_points_it_is_the_posterior_mean():
    v = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    found = denoise(Flow(Reverse(1), TwoPoints()).double().eval(), v, 0.4)
    torch.testing.assert_close(found, torch.tanh(v / 0.4**2))


def test_samples_behind_an_encoding_are_decoded():
    preset = TarFlow((1, 2, 2), Classes(3), patch=1, hidden=8, heads=2, blocks=2, layers=1)
    flow = randomize_(preset.build(Dequantization((1, 2, 2))).eval(), scale=0.1)
    classes = torch.tensor([0, 2])
    images = sample_denoised(flow, 0.05, 3, classes, generator=generator(1))
    assert images.shape == (3, 2, 1, 2, 2)
    assert images.dtype == torch.uint8
    inner = flow.without_encoding()
    v = inner.sample(3, classes, generator=generator(1))
    score = torch.autograd.functional.jacobian(lambda t: inner.log_prob(t, classes).sum(), v)
    assert flow.encoding is not None
    assert torch.equal(images, flow.encoding.decode(v + 0.05**2 * score))
    assert not torch.equal(images, flow.sample(3, classes, generator=generator(1)))


def test_it_leaves_no_gradients_behind():
    flow, v = MAF(2, hidden=(8,)).build().eval(), torch.zeros(3, 2, requires_grad=True)
    assert not denoise(flow, v, 0.1).requires_grad
    assert v.grad is None
    assert all(p.grad is None for p in flow.parameters())
    with torch.no_grad():
        assert denoise(flow, v + 1, 0.5).tolist() == [[0.75, 0.75]] * 3


def test_what_cannot_be():
    flow = MAF(2, hidden=(8,)).build()
    for sigma in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="sigma must be"):
            denoise(flow, torch.zeros(2), sigma)
    behind = TarFlow((1, 2, 2), patch=1, hidden=8, heads=2).build(Dequantization((1, 2, 2)))
    with pytest.raises(ConfigError, match="without_encoding"):
        denoise(behind, torch.zeros(1, 2, 2), 0.1)


def test_without_its_encoding_a_flow_is_that_of_the_vectors():
    preset = TarFlow((1, 2, 2), Classes(3), patch=1, hidden=8, heads=2)
    flow = randomize_(preset.build(Dequantization((1, 2, 2), num_draws=2)).eval(), scale=0.1)
    assert flow.encoding is not None
    x, classes = torch.randint(0, 256, (5, 1, 2, 2), dtype=torch.uint8), torch.arange(5) % 3
    v, log_weight = flow.encoding.encode(x)
    inner = flow.without_encoding()
    assert (inner.encoding, inner.preset, inner.training) == (None, None, False)
    torch.testing.assert_close(inner.log_prob(v, classes) + log_weight, flow.draw_log_probs(x, classes))
    assert {id(p) for p in inner.parameters()} == {id(p) for p in flow.parameters()}
    assert flow.train().without_encoding().training
    flow.bijection.eval()
    flow.without_encoding()
    assert not flow.bijection.training
