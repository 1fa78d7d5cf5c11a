"""Decoders against independent computations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import diffeo
from diffeo.autoencoders import Bernoulli, DiscretizedLogistic, FlowDecoder
from diffeo.errors import ConfigError, ShapeError

F64 = torch.float64


class Given(nn.Module):
    """A net that gives the same numbers for every z."""

    def __init__(self, *numbers: Tensor):
        super().__init__()
        self.numbers = nn.Parameter(torch.stack(numbers))

    def forward(self, z: Tensor) -> Tensor:
        return self.numbers.expand(len(z), *self.numbers.shape)


def logistic(mean: float, raw: float, levels: int = 256, dtype: torch.dtype = F64) -> DiscretizedLogistic:
    return DiscretizedLogistic(Given(torch.tensor([mean]), torch.tensor([raw])).to(dtype), (1,), 2, levels)


def masses(decoder: DiscretizedLogistic, dtype: torch.dtype = F64) -> Tensor:
    x = torch.arange(decoder.levels).unsqueeze(-1)
    return decoder.log_prob(x, torch.zeros(decoder.levels, 2, dtype=dtype))


def test_bernoulli_is_torchs():
    torch.manual_seed(0)
    logits = 3 * torch.randn(2, 3, dtype=F64)
    decoder = Bernoulli(Given(logits), (2, 3), 4)
    x = (torch.rand(7, 2, 3) < 0.5).to(torch.uint8)
    wanted = torch.distributions.Bernoulli(logits=logits).log_prob(x.double()).sum((-2, -1))
    assert torch.allclose(decoder.log_prob(x, torch.zeros(7, 4, dtype=F64)), wanted, atol=1e-12)
    # draws broadcast over latent vectors, not over data
    many = decoder.log_prob(x, torch.zeros(5, 7, 4, dtype=F64))
    assert torch.allclose(many, wanted.expand(5, 7), atol=1e-12)


def test_bernoulli_draws_what_it_says():
    logits = torch.tensor([-2.0, 0.0, 3.0])
    decoder = Bernoulli(Given(logits), (3,), 1)
    drawn = decoder.sample(torch.zeros(20_000, 1), generator=torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.uint8
    p = logits.sigmoid()
    assert ((drawn.double().mean(0) - p).abs() < 4 * (p * (1 - p) / 20_000).sqrt()).all()
    assert torch.allclose(decoder.mean(torch.zeros(1, 1)), p)


@pytest.mark.parametrize("levels", [2, 16, 256])
@pytest.mark.parametrize(("mean", "raw"), [(0.0, 0.0), (0.3, -2.0), (-1.2, -4.0), (5.0, 1.0), (0.99, -6.0)])
def test_discretized_logistic_masses_sum_to_one(mean: float, raw: float, levels: int):
    total = masses(logistic(mean, raw, levels)).exp().sum()
    assert abs(total.item() - 1) < 1e-12
    total = masses(logistic(mean, raw, levels, torch.float32), torch.float32).exp().sum()
    assert abs(total.item() - 1) < 1e-5


def test_discretized_logistic_is_the_logistics_mass():
    decoder = logistic(0.2, -1.5)
    scale = decoder._mean_and_log_scale(torch.zeros(1, 2, dtype=F64))[1].exp().item()
    edges = (torch.arange(1, 256, dtype=F64) - 0.5) / 127.5 - 1
    cdf = torch.cat([torch.zeros(1), torch.sigmoid((edges - 0.2) / scale), torch.ones(1)])
    assert torch.allclose(masses(decoder).exp(), cdf.diff(), atol=1e-14)


def test_discretized_logistic_keeps_its_digits_far_out():
    """The smallest scale, all cells: a difference of two sigmoids is 0 or 1 - 1 there."""
    far, near = (masses(logistic(-0.7, -50.0, dtype=d), d) for d in (F64, torch.float32))
    assert far.isfinite().all()
    assert far.min() < -500
    assert torch.allclose(near.double(), far, rtol=1e-4, atol=1e-4)
    decoder = logistic(-0.7, -50.0, dtype=torch.float32)
    masses(decoder, torch.float32).sum().backward()
    grad = decoder.net.numbers.grad
    assert isinstance(grad, Tensor)
    assert grad.isfinite().all()


def test_discretized_logistic_draws_what_it_says():
    decoder = logistic(0.8, -1.0, levels=8)
    z = torch.zeros(40_000, 2, dtype=F64)
    drawn = decoder.sample(z, generator=torch.Generator().manual_seed(0))
    p = masses(decoder).exp().detach()
    found = torch.bincount(drawn.flatten().long(), minlength=8) / 40_000
    assert ((found - p).abs() < 4.5 * (p * (1 - p) / 40_000).sqrt()).all()
    assert decoder.mean(z[:1]).item() == pytest.approx(1.8 * 3.5)


@pytest.mark.parametrize("value", [2.0, -1.0, 0.5])
def test_numbers_outside_the_support_have_no_probability(value: float):
    decoder = Bernoulli(Given(torch.zeros(2)), (2,), 1)
    x = torch.tensor([[1.0, value], [1.0, 0.0], [math.nan, 0.0]])
    found = decoder.log_prob(x, torch.zeros(3, 1))
    assert found[0] == -math.inf
    assert found[1].item() == pytest.approx(-2 * math.log(2))
    assert found[2].isnan()
    other = logistic(0.0, 0.0, levels=2)
    assert other.log_prob(torch.tensor([[value]]), torch.zeros(1, 2, dtype=F64)) == -math.inf


def test_what_the_encoder_sees():
    pixels = torch.tensor([0, 255], dtype=torch.uint8)
    assert DiscretizedLogistic(nn.Identity(), (2,), 2).seen(pixels).tolist() == [-1.0, 1.0]
    assert torch.equal(Bernoulli(nn.Identity(), (2,), 2).seen(pixels), pixels)


def test_flow_decoder_is_its_flow():
    torch.manual_seed(0)
    flow = diffeo.presets.MAF(features=3, context=2, layers=2, hidden=(8,)).build().double()
    decoder = FlowDecoder(flow)
    x, z = torch.randn(5, 3, dtype=F64), torch.randn(4, 5, 2, dtype=F64)
    decoder.initialize(5 + 2 * x, z[0])
    assert decoder.log_prob(x, z).shape == (4, 5)
    assert torch.equal(decoder.log_prob(x, z)[1], flow.log_prob(x, z[1]))
    # a flow that was not set from the data would have its samples around 0
    drawn = decoder.sample(z, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (4, 5, 3)
    assert drawn.mean() > 3
    assert decoder.mean(z).shape == (4, 5, 3)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="levels must be a whole number from 2 to 256, not 257"):
        logistic(0.0, 0.0, levels=257)
    with pytest.raises(ShapeError, match=r"gives \(2,\) for one latent vector.* need 6 numbers: 1 for each"):
        Bernoulli(nn.Linear(2, 2), (6,), 2).log_prob(torch.zeros(3, 6), torch.zeros(3, 2))
    with pytest.raises(ShapeError, match="context shape is None"):
        FlowDecoder(diffeo.presets.MAF(features=3).build())
