"""Independence Metropolis leaves its target unchanged, takes what it should, says when it stands still."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from diffeo.errors import ConfigError, DataError
from diffeo.inference import importance, independence_metropolis
from diffeo.inference.metropolis import choose
from diffeo.presets import MAF
from diffeo.targets import Evaluator, FromNumPy, FromTorch


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def skewed(x: Tensor) -> Tensor:
    """``(1 + sin a) N(a; 0, 1)`` in the first column, a narrow peak and a wide one in the second."""
    a, b = x.unbind(-1)
    return (
        torch.log1p(a.sin())
        - 0.5 * a.square()
        + torch.logaddexp(-0.5 * ((b + 1) / 0.3) ** 2, -0.5 * ((b - 1) / 0.6) ** 2)
    )


def test_moments_are_the_targets():
    """As E sin a = 0, E a sin a = exp(-1/2): E a = exp(-1/2), E a^2 = 1, E a^4 = 3; peaks 1/3 and 2/3."""
    found = independence_metropolis(
        MAF(features=2).build(), FromTorch(skewed), chains=8, num_draws=4000, generator=generator()
    )
    assert found.max_rhat < 1.01
    a, b = found.flat().unbind(-1)
    error = 1 / found.ess.sqrt()
    assert abs(a.mean() - math.exp(-0.5)) < 4 * a.std() * error[0]
    assert abs(b.mean() - 1 / 3) < 4 * b.std() * error[1]
    assert abs(a.square().mean() - 1) < 4 * math.sqrt(2) * error[0]
    torch.testing.assert_close(found.log_prob, skewed(found.flat()).reshape(8, 4000))


def test_a_perfect_flow_is_always_taken():
    target = Evaluator(FromNumPy(lambda x: -0.5 * (x**2).sum(-1)))
    found = independence_metropolis(
        MAF(features=2).build(), target, chains=3, num_draws=50, starts=10, generator=generator()
    )
    assert found.x.shape == (3, 50, 2)
    torch.testing.assert_close(found.acceptance, torch.ones(3, dtype=torch.float64))
    assert len(found.flat().unique(dim=0)) == 150
    assert found.evaluations == target.evaluations == 3 * 60
    assert found.gradients == 0


def test_acceptance_is_that_of_independent_pairs():
    """At equilibrium it is ``E min(1, w(x') / w(x))``, x from the target and x' from the flow."""
    flow, target = MAF(features=2).build(), FromTorch(skewed)
    found = independence_metropolis(flow, target, chains=8, num_draws=4000, generator=generator())
    weights = importance(flow, target, 2000, generator=generator(1))
    w = weights.normalized
    pairs = torch.minimum(w.unsqueeze(0), w.unsqueeze(1)).sum() / len(w)
    assert float(found.acceptance.mean()) == pytest.approx(float(pairs), abs=0.02)


def test_chains_that_stand_still_are_seen():
    """A target wider than the flow: a far draw has more weight than all others together."""
    target = FromTorch(lambda x: -0.5 * (x / 6).square().sum(-1))
    found = independence_metropolis(MAF(features=4).build(), target, generator=generator())
    assert any("R-hat" in doubt for doubt in found.doubts)


def test_the_choice_of_a_start_is_by_weight():
    log_weights = torch.tensor([[0.0, math.log(3.0), -math.inf]]).expand(8000, 3)
    share = torch.bincount(choose(log_weights, generator()), minlength=3) / 8000
    assert (share - torch.tensor([0.25, 0.75, 0.0])).abs().max() < 4 * math.sqrt(0.1875 / 8000)


def test_what_cannot_start():
    nowhere = FromTorch(lambda x: torch.full_like(x[:, 0], -math.inf))
    with pytest.raises(DataError, match="4 of 4 chains found no starting point"):
        independence_metropolis(MAF(features=2).build(), nowhere)
    with pytest.raises(ConfigError, match="at least 1"):
        independence_metropolis(MAF(features=2).build(), nowhere, chains=0)
