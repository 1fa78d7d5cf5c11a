"""What exact draws of a target say about a flow, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from diffeo.errors import ShapeError
from diffeo.inference import ForwardCheck, forward_check, importance
from diffeo.presets import MAF
from diffeo.targets import FromTorch


def draws(rows: int, features: int) -> Tensor:
    return torch.randn(rows, features, dtype=torch.float64, generator=Generator().manual_seed(0))


def gaussian(scale: float, log_z: float) -> FromTorch:
    return FromTorch(
        lambda x: (
            -0.5 * (x / scale).square().sum(-1)
            - x.shape[-1] * (math.log(scale) + 0.5 * math.log(2 * math.pi))
            + log_z
        )
    )


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("scale", [0.8, 1.1])
def test_normals(scale, known):
    """A column: KL of N(0, s^2) is ``(s^2 - 1) / 2 - log s``, ``E_q w^2`` is ``1 / (s sqrt(2 - s^2))``."""
    flow = MAF(features=3).build()
    found = forward_check(flow, gaussian(scale, 5.0), scale * draws(40000, 3), 5.0 if known else None)
    assert found.forward_ess == pytest.approx((scale * math.sqrt(2 - scale**2)) ** 3, abs=0.02)
    log_q = -3 * (0.5 * math.log(2 * math.pi) + 0.5 * scale**2)
    assert abs(found.mean_log_prob - log_q) < 4 * found.mean_log_prob_error
    if known:
        assert found.forward_kl == pytest.approx(3 * ((scale**2 - 1) / 2 - math.log(scale)), abs=0.02)
    else:
        assert found.forward_kl is None


def test_a_dropped_mode_is_seen():
    """Two peaks, one of them under the flow: the flow's own draws see nothing."""

    def log_prob(x: Tensor) -> Tensor:
        parts = [-0.5 * (x - c).square().sum(-1) for c in (0.0, 12.0)]
        return torch.logaddexp(*parts)

    flow, target = MAF(features=2).build(), FromTorch(log_prob)
    x = draws(2000, 2) + 12.0 * (torch.arange(2000) % 2).unsqueeze(1)
    assert importance(flow, target, 2000).ess > 0.99
    assert forward_check(flow, target, x).forward_ess < 1e-6
    assert forward_check(flow, target, x, math.log(4 * math.pi)).forward_ess < 1e-6


@pytest.mark.parametrize("size", [1e5, -1e5])
def test_weights_of_any_size(size):
    log_flow = torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64)
    log_target = torch.tensor([-1.5, -2.0, -2.5], dtype=torch.float64)
    plain, moved = ForwardCheck(log_flow, log_target), ForwardCheck(log_flow, log_target + size, size)
    assert moved.forward_kl == pytest.approx(0.0, abs=1e-9)
    w = (log_target - log_flow).exp()
    assert plain.forward_ess == pytest.approx(float(1 / (w.mean() * (1 / w).mean())))
    assert moved.forward_ess == pytest.approx(float(1 / w.mean()))


def test_a_flow_without_density_there():
    assert ForwardCheck(torch.tensor([0.0, -math.inf]), torch.zeros(2)).forward_ess == 0.0


def test_what_are_no_draws():
    with pytest.raises(ShapeError, match="at least two"):
        forward_check(MAF(features=2).build(), gaussian(1.0, 0.0), torch.zeros(2))
