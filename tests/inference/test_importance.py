"""Importance weights against closed forms, NumPy, and draws whose tails are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from diffeo.errors import ConfigError, DataError, ShapeError
from diffeo.inference import Importance, importance
from diffeo.presets import MAF, NSF, TarFlow
from diffeo.targets import Evaluator, FromNumPy, FromTorch
from diffeo.testing import randomize_


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def gaussian(scale: float, log_z: float = 0.0) -> FromTorch:
    """A centered normal density times Z."""

    def log_prob(x: Tensor) -> Tensor:
        constant = x.shape[-1] * (math.log(scale) + 0.5 * math.log(2 * math.pi))
        return -0.5 * (x / scale).square().sum(-1) - constant + log_z

    return FromTorch(log_prob)


def weighted(log_weights: Tensor) -> Importance:
    return Importance(torch.arange(len(log_weights), dtype=torch.float64).unsqueeze(1), log_weights)


def pareto(k: float, rows: int = 20000) -> Tensor:
    """Log-weights whose density falls as that of a generalized Pareto variable of this shape."""
    u = torch.rand(rows, dtype=torch.float64, generator=generator(3))
    return ((u**-k - 1) / k).log()


@pytest.mark.parametrize("shift", [0.0, 1e5, -1e5])
def test_numbers_are_numpys_wherever_the_weights_are(shift):
    log_w = torch.randn(500, dtype=torch.float64, generator=generator())
    w = log_w.exp().numpy()
    found = weighted(log_w + shift)
    assert found.log_z - shift == pytest.approx(math.log(w.mean()), abs=1e-9)
    assert found.ess == pytest.approx(w.sum() ** 2 / (w**2).sum() / 500, rel=1e-9)
    plain = w.std(ddof=1) / w.mean() / math.sqrt(500)
    assert found.log_z_error == pytest.approx(math.hypot(plain, found.beyond), rel=1e-9)
    np.testing.assert_allclose(found.normalized, w / w.sum(), rtol=1e-9)
    values = found.x[:, 0].numpy()
    mean = np.average(values, weights=w)
    assert float(found.mean()) == pytest.approx(mean, rel=1e-9)
    assert float(found.std()) == pytest.approx(np.average((values - mean) ** 2, weights=w) ** 0.5, rel=1e-9)
    assert found.pareto_k == pytest.approx(weighted(log_w).pareto_k, abs=1e-6)


def test_the_error_of_log_z_is_its_spread():
    found = [weighted(0.7 * torch.randn(400, generator=generator(i))) for i in range(400)]
    scores = torch.tensor([(f.log_z - 0.5 * 0.7**2) / f.log_z_error for f in found])
    assert abs(scores.mean()) < 0.2
    assert 0.88 < scores.std() < 1.12


@pytest.mark.parametrize("k", [0.5, 0.7, 0.9])
def test_what_is_beyond_a_tail_is_its_integral(k):
    """Of weights u^-k, by quadrature over the probability to exceed, from 1 / (1000 N) to 1 / N."""
    rows = 20_000
    log_w = -k * torch.rand(rows, generator=generator(3), dtype=torch.float64).log()
    edge = 3 * math.sqrt(rows) / rows  # where the tail begins
    p = np.geomspace(1e-3 / rows, 1 / rows, 10_001)
    exact = np.trapezoid(p**-k - edge**-k, p) * (1 - k)  # over the mean weight, 1 / (1 - k)
    assert weighted(log_w).beyond == pytest.approx(exact, rel=0.5)


def test_heavy_tails_widen_the_error():
    """Of k = 0.7: the rows' own spread is 1.6 times too small on average, and 6% lie beyond 3 of it."""
    found = [
        weighted(-0.7 * torch.rand(4000, generator=generator(i), dtype=torch.float64).log())
        for i in range(200)
    ]
    off = np.array([f.log_z + math.log(0.3) for f in found])
    own = np.array([math.sqrt((1 / f.ess - 1) / 3999) for f in found])
    error = np.array([f.log_z_error for f in found])
    assert np.sqrt(np.mean((off / own) ** 2)) > 1.4
    assert np.sqrt(np.mean((off / error) ** 2)) < 1.2


def test_a_tail_that_cannot_matter_is_not_doubted():
    """Nearly equal weights may have any shape of tail on a scale of their own; a heavy one counts."""
    tail = (1e-7 * pareto(1.4, 10_000).exp()).log1p()
    found = weighted(tail)
    assert found.pareto_k > 1
    assert found.ess > 0.99
    assert found.beyond < 1e-3
    assert found.doubts == ()
    u = torch.rand(10_000, dtype=torch.float64, generator=generator(0))
    assert weighted((0.9 + 0.01 * u**-0.9).log()).doubts  # a tenth of the mean is a tail of k = 0.9


def test_draws_of_the_target_bound_what_is_beyond():
    """A weight that ends at 3 has no tail, whatever its shape below; one of k = 0.9 shows in such draws."""
    u = torch.rand(10_000, dtype=torch.float64, generator=generator(0))
    heavy, light = (0.9 + 0.01 * u**-0.9).log(), (0.99 + 0.001 * u**-0.9).clamp_max(3.0).log()
    for log_w in (heavy, light):
        alone = weighted(log_w)
        drawn = torch.multinomial(log_w.exp(), 3000, replacement=True, generator=generator(1))
        beside = alone.beside(log_w[drawn])
        assert beside.beyond == pytest.approx(min(alone.beyond, 3 / 3000))
    fresh = torch.rand(10**7, dtype=torch.float64, generator=generator(2))
    log_w = (0.9 + 0.01 * fresh**-0.9).log()
    drawn = log_w[torch.multinomial(log_w.exp()[::4], 3000, replacement=True, generator=generator(3)) * 4]
    assert weighted(heavy).beside(drawn).doubts  # a fortieth of the mass is above


def test_one_row_with_all_the_weight_is_said_so():
    log_w = torch.zeros(1000)
    log_w[7] = 100
    found = weighted(log_w)
    assert found.ess == pytest.approx(1 / 1000)
    assert found.log_z_error == pytest.approx(1.0)
    assert found.doubts


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_pareto_k_of_known_tails(k):
    found = weighted(pareto(k))
    assert found.pareto_k == pytest.approx(k, abs=0.12)  # 424 tail weights: sd about (1 + k) / sqrt(424)
    assert bool(found.doubts) == (k > 0.7)


@pytest.mark.parametrize("k", [0.3, 0.9])
def test_smoothing_keeps_the_order_the_body_and_the_scale(k):
    raw = weighted(pareto(k) + 1234.5)
    smooth = raw.smoothed()
    assert torch.equal(smooth.log_weights.argsort(), raw.log_weights.argsort())
    order = raw.log_weights.argsort()
    changed = (smooth.log_weights - raw.log_weights).abs()[order] > 1e-9
    tail = math.floor(3 * math.sqrt(len(raw)))
    assert not changed[:-tail].any()
    assert changed[-tail:].float().mean() > 0.9
    assert smooth.log_weights.max() <= raw.log_weights.max() + 1e-9
    assert smooth.log_z == pytest.approx(raw.log_z, abs=0.1 if k < 0.5 else 1.0)


def test_weights_of_zero_are_left_out_of_the_tail():
    some = torch.full((30000,), -math.inf, dtype=torch.float64)
    some[::3] = pareto(0.5, 10000)
    found, alone = weighted(some), weighted(pareto(0.5, 10000))
    assert found.pareto_k == pytest.approx(alone.pareto_k)
    assert found.log_z == pytest.approx(alone.log_z - math.log(3))
    assert torch.equal(found.smoothed().log_weights.isinf(), some.isinf())


@pytest.mark.parametrize(
    ("log_weights", "k"),
    [
        (torch.zeros(1000), 0.0),
        (torch.zeros(1000) + 1e-12 * torch.randn(1000).double(), 0.0),
        (torch.cat([torch.full((900,), -50.0), torch.zeros(100)]), 0.0),
        (torch.linspace(0, -3, 24), math.nan),
        (torch.cat([torch.full((1000,), -math.inf), torch.linspace(0, -3, 24)]), math.nan),
        (torch.arange(1000.0) * 100, math.inf),
        (torch.tan(math.pi * (torch.rand(2000, generator=generator()).double() - 0.5)), math.inf),  # Cauchy
        (torch.tensor([0.0]), math.nan),
    ],
)
def test_tails_that_cannot_be_fitted_are_said_so(log_weights, k):
    found = weighted(log_weights)
    assert found.pareto_k == k or (math.isnan(found.pareto_k) and math.isnan(k))
    assert torch.equal(found.smoothed().log_weights, log_weights.double())
    assert bool(found.doubts) == (k != 0.0)


def test_no_weight_at_all():
    found = weighted(torch.full((50,), -math.inf))
    assert (found.log_z, found.ess, found.log_z_error) == (-math.inf, 0.0, math.inf)
    assert "positive density" in found.doubts[0]
    for call in (lambda: found.resample(3), found.mean, found.std, lambda: found.normalized):
        with pytest.raises(DataError, match="every weight is zero"):
            call()


def test_resampling_is_as_even_as_can_be():
    log_w = torch.randn(40, generator=generator())
    log_w[[0, -1]] = -math.inf
    found = weighted(log_w)
    for n in (1, 7, 1000):
        counts = torch.bincount(found.resample(n, generator=generator(n))[:, 0].long(), minlength=40)
        share = n * found.normalized
        assert counts.sum() == n
        assert ((counts >= (share - 1e-9).floor()) & (counts <= (share + 1e-9).ceil())).all()
    assert len(found.resample(0)) == 0


def test_resampling_is_unbiased_and_in_random_order():
    found = weighted(torch.tensor([0.1, 0.2, 0.7]).log())
    first = torch.cat([found.resample(2, generator=generator(i)) for i in range(3000)])[:, 0].long()
    for rows in (first, first[::2]):
        share = torch.bincount(rows, minlength=3) / len(rows)
        assert (share - torch.tensor([0.1, 0.2, 0.7])).abs().max() < 4 * math.sqrt(0.21 / 3000)
    every = weighted(torch.zeros(100)).resample(100, generator=generator())[:, 0]
    assert torch.equal(every.sort().values, torch.arange(100.0, dtype=torch.float64))
    assert not torch.equal(every, torch.arange(100.0, dtype=torch.float64))
    assert torch.equal(every, weighted(torch.zeros(100)).resample(100, generator=generator())[:, 0])


@pytest.mark.parametrize(
    ("x", "log_weights", "error", "says"),
    [
        (torch.zeros(3, 2), torch.tensor([0.0, math.nan, 0.0]), DataError, "log-weight 1 is nan"),
        (torch.zeros(2, 2), torch.tensor([0.0, math.inf]), DataError, "log-weight 1 is inf"),
        (torch.zeros(3, 2), torch.zeros(2), ShapeError, "one log-weight a row"),
        (torch.zeros(3), torch.zeros(3), ShapeError, "rows"),
        (torch.zeros(0, 2), torch.zeros(0), ShapeError, "rows"),
    ],
)
def test_what_are_no_weights(x, log_weights, error, says):
    with pytest.raises(error, match=says):
        Importance(x, log_weights)


@pytest.mark.parametrize("scale", [0.8, 1.2])
def test_a_normal_as_proposal_of_another(scale):
    """``E_q w^2`` of normals of variances 1 and s^2 is ``(s sqrt(2 - s^2))^-D``."""
    found = importance(MAF(features=3).build(), gaussian(scale, 7.0), 20000, generator=generator())
    assert abs(found.log_z - 7) < 4 * found.log_z_error
    assert found.ess == pytest.approx((scale * math.sqrt(2 - scale**2)) ** 3, abs=0.02)
    assert (found.std() - scale).abs().max() < 0.03


def test_a_flow_with_shape_of_its_own():
    flow = NSF(features=2, layers=2, hidden=8, blocks=1).build()
    randomize_(flow)
    flow.train()
    calls = Evaluator(gaussian(1.0, -2.0))
    found = importance(flow, calls, 5000, generator=generator(), batch_size=700)
    assert abs(found.log_z + 2) < 4 * found.log_z_error
    assert found.x.dtype == torch.float64
    assert calls.evaluations == 5000
    assert calls.gradients == 0
    assert flow.training
    assert {p.dtype for p in flow.parameters()} == {torch.float32}
    twin = flow.double().eval()
    log_w = calls(found.x) - twin.log_prob(found.x)
    torch.testing.assert_close(found.log_weights, log_w.detach(), atol=1e-8, rtol=0)
    assert torch.equal(found.x, importance(flow, calls, 5000, generator=generator(), batch_size=700).x)


def test_a_target_of_numpy_and_one_that_is_nowhere():
    flow = MAF(features=2).build()
    found = importance(flow, FromNumPy(lambda x: -0.5 * (x**2).sum(-1)), 100, generator=generator())
    assert found.log_z == pytest.approx(math.log(2 * math.pi), abs=1e-9)
    nowhere = importance(flow, FromTorch(lambda x: torch.full_like(x[:, 0], -math.inf)), 100)
    assert nowhere.ess == 0


def test_what_cannot_be_weighted():
    target = gaussian(1.0)
    with pytest.raises(ConfigError, match="context"):
        importance(MAF(features=2, context=1).build(), target, 10)
    with pytest.raises(ConfigError, match="vectors"):
        importance(TarFlow((1, 2, 2), patch=1, hidden=8, heads=2, blocks=1, layers=1).build(), target, 10)
    with pytest.raises(ConfigError, match="at least 1"):
        importance(MAF(features=2).build(), target, 0)
