"""The maps that are set in closed form from training rows: Whiten, LogTails, Marginal."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffeo.bijections import (
    LU,
    ActNorm,
    Chain,
    Inverse,
    LogTails,
    Marginal,
    Multiscale,
    OnChannels,
    Reversible,
    Squeeze,
    Whiten,
)
from diffeo.bijections.base import Bijection
from diffeo.errors import ConfigError, DataError
from diffeo.functional import tails
from diffeo.testing import check_bijection

KINDS = [LogTails, Marginal, Whiten]


def rows(n: int = 4000) -> Tensor:
    """A skewed, a heavy-tailed and a correlated column, float64."""
    g = torch.Generator().manual_seed(0)
    z = torch.randn(n, 3, generator=g, dtype=torch.float64)
    u = torch.rand(n, generator=g, dtype=torch.float64)
    heavy = torch.tan(math.pi * (u - 0.5))
    return torch.stack([z[:, 0].exp(), heavy, z[:, 2] + 30 * z[:, 0]], 1)


@pytest.mark.parametrize("kind", KINDS)
def test_log_det_is_that_of_the_jacobian_once_set(kind: type[Bijection]):
    layer = kind(3).double()
    x = rows()
    layer.initialize(x)
    points = torch.cat([x[:20], 1e3 * torch.ones(1, 3, dtype=x.dtype)])
    jacobian = torch.func.vmap(torch.func.jacrev(layer.push))(points)
    z, log_det = layer(points)
    assert torch.allclose(torch.linalg.slogdet(jacobian)[1], log_det, atol=1e-8)
    back, back_det = layer.inverse(z)
    assert torch.allclose(back, points, rtol=1e-9, atol=1e-9)
    assert torch.allclose(back_det, -log_det, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_set_once_and_the_flag_is_saved(kind: type[Bijection]):
    layer, other = kind(3), kind(3)
    layer.initialize(rows().float())
    kept = {k: v.clone() for k, v in layer.state_dict().items()}
    layer.initialize(rows().float() * 7 + 1)
    other.load_state_dict(layer.state_dict())
    other.initialize(rows().float() * 7 + 1)
    for state in (layer.state_dict(), other.state_dict()):
        assert all(torch.equal(state[k], kept[k]) for k in kept)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("x", [torch.zeros(0, 3), torch.tensor([[0.0, math.nan, 1.0]])], ids=["empty", "nan"])
def test_rows_that_cannot_be_used_are_refused(kind: type[Bijection], x: Tensor):
    with pytest.raises(DataError, match="set from finite data"):
        kind(3).initialize(x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 50])
def test_constant_columns_and_few_rows_stay_finite(kind: type[Bijection], n: int):
    layer = kind(3)
    x = torch.stack([torch.full((n,), 5.0), torch.arange(n) * 1.0, torch.full((n,), -1e6)], 1)
    layer.initialize(x)
    z, log_det = layer(x)
    assert z.isfinite().all()
    assert log_det.isfinite().all()
    assert torch.allclose(layer.inverse(z)[0], x, rtol=1e-5, atol=1e-4)


def test_whitened_rows_are_uncorrelated_with_unit_variance():
    layer = Whiten(3).double()
    mix = torch.tensor([[2.0, 1.5, -3.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.7]], dtype=torch.float64)
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) @ mix + 5
    layer.initialize(x)
    z = layer.push(x)
    assert torch.allclose(torch.cov(z.T), torch.eye(3, dtype=x.dtype), atol=1e-3)
    assert z.mean(0).abs().max() < 1e-9


def test_whitening_few_rows_does_not_trust_their_covariance():
    x = torch.randn(10, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    layer = Whiten(20).double()
    layer.initialize(x)
    assert layer.matrix.abs().max() < 10


def test_marginals_are_normal_afterwards():
    layer = Chain([LogTails(3), Marginal(3, bins=32)]).double()
    x = rows()
    layer.initialize(x)
    z = layer.push(x).sort(0).values
    wanted = torch.special.ndtri((torch.arange(len(z), dtype=z.dtype) + 0.5) / len(z))
    assert (torch.special.ndtr(z) - torch.special.ndtr(wanted)[:, None]).abs().max() < 0.02


def test_log_tails_leave_the_middle_and_shorten_the_rest():
    layer = LogTails(1).double()
    x = rows()[:, [1]]
    layer.initialize(x)
    assert layer.push(x).abs().max() < 5.0
    assert x.abs().max() > 500
    middle = layer.loc + layer.scale * torch.linspace(-1.9, 1.9, 9, dtype=x.dtype)[:, None]
    assert torch.allclose(layer.push(middle), (middle - layer.loc) / layer.scale)


def test_normal_rows_keep_their_tails():
    layer = LogTails(1).double()
    x = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    layer.initialize(x)
    assert (layer.push(x) - (x - layer.loc) / layer.scale).abs().max() < 0.35


def test_log_tails_are_linear_beyond_the_outermost_row():
    x = torch.cat([torch.zeros(300), torch.randn(700, generator=torch.Generator().manual_seed(1)).exp()])
    x = x.double()[:, None]
    layer = LogTails(1).double()
    layer.initialize(x)
    end = layer.push(x).max()
    z = (end + torch.tensor([0.0, 1.0, 2.0, 10.0], dtype=torch.float64))[:, None]
    with torch.no_grad():
        back, log_det = layer.inverse(z)
    step = back.diff(dim=0)[:, 0] / z.diff(dim=0)[:, 0]
    torch.testing.assert_close(step, log_det[1:].exp(), rtol=1e-9, atol=0)
    torch.testing.assert_close(step, step[:1].expand(3), rtol=1e-9, atol=0)
    assert back[0] == pytest.approx(float(x.max()), rel=1e-9)
    assert back[-1] < 30 * x.max()
    unbounded = tails.inverse(z, layer.log_rates.detach().exp(), 2.0)[0] * layer.scale
    assert unbounded[-1] > 1000 * x.max()
    torch.testing.assert_close(layer.push(back), z)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_tails_never_overflow_and_have_clean_slopes(dtype: torch.dtype):
    rates = torch.tensor([[1e-3], [1e3]], dtype=dtype)
    y = torch.tensor(
        [[-1e6], [-2.5], [2.0], [2.019], [2.0201], [3.0], [1e6]], dtype=dtype, requires_grad=True
    )
    x, log_slope = tails.inverse(y, rates, 2.0)
    (slope,) = torch.autograd.grad(x.sum(), y)
    assert x.isfinite().all()
    assert torch.allclose(slope.log(), log_slope, atol=1e-4 if dtype == torch.float32 else 1e-10)
    back, back_slope = tails.forward(x, rates, 2.0)
    assert torch.allclose(back, y, rtol=1e-5 if dtype == torch.float32 else 1e-12)
    assert torch.allclose(back_slope, -log_slope, atol=1e-4)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda part: OnChannels(part, (6, 2, 2)),
        lambda part: Multiscale([Squeeze((3, 4, 4)), OnChannels(part, (6, 2, 2))]),
        lambda part: Reversible(OnChannels(part, (6, 2, 2))),
    ],
)
def test_inverse_takes_what_only_hands_data_on_and_refuses_what_is_set(wrap):
    check_bijection(Inverse(wrap(LU(6))))
    with pytest.raises(ConfigError, match="ActNorm is set from data"):
        Inverse(wrap(ActNorm((6,))))
