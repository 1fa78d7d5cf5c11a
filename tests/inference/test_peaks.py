"""Peaks that chains starve: found by ascents, given their draws, and doubted where the flow lacks them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from diffeo.bases import Normal
from diffeo.bijections import Standardize
from diffeo.flow import Flow
from diffeo.inference import Annealing, Hamiltonian, Population, fit, peaks
from diffeo.inference.peaks import Beside, Peaks, Search, Trail, dark_mass
from diffeo.inference.survey import survey
from diffeo.targets import Evaluator, FromNumPy, FromTorch, Target
from diffeo.train.options import Options


def normal(x: Tensor, at: float, scale: float) -> Tensor:
    center = torch.zeros(x.shape[-1], dtype=x.dtype)
    center[0] = at
    return MultivariateNormal(center, scale_tril=scale * torch.eye(len(center), dtype=x.dtype)).log_prob(x)


def two(narrow: float, share: float = 0.5, apart: float = 6.0) -> Callable[[Tensor], Tensor]:
    """A standard normal and one so many times as narrow; together they have mass 1."""

    def log_prob(x: Tensor) -> Tensor:
        wide = math.log(1 - share) + normal(x, -apart / 2, 1.0)
        return torch.logaddexp(wide, math.log(share) + normal(x, apart / 2, 1 / narrow))

    return log_prob


def without_gradients(log_prob: Callable[[Tensor], Tensor]) -> Target:
    return FromNumPy(lambda x: log_prob(torch.from_numpy(x)).numpy())


def broad(features: int) -> Flow:
    flow = Flow(Standardize((features,)), Normal((features,))).double()
    flow.initialize(2 * torch.tensor([[-1.0], [1.0]]).expand(2, features).double())
    return flow


@pytest.mark.parametrize("wrap", [FromTorch, without_gradients])
@pytest.mark.parametrize(("features", "narrow"), [(2, 20.0), (5, 5.0), (10, 2.0)])
def test_a_survey_has_both_peaks_in_proportion(wrap, features: int, narrow: float):
    """In 10 dimensions chains alone leave a peak half as wide 2^-9 of themselves, four of them, or none."""
    torch.manual_seed(0)
    found = survey(Evaluator(wrap(two(narrow))), features, 2.0, 1000, Options())
    assert 0.2 < float((found.x[:, 0] > 0).double().mean()) < 0.8  # half; the flow sees to the rest


def test_a_spike_in_a_wide_peak_is_found_without_the_other():
    """Five times as narrow in 10 dimensions: the wide peak's top is in its basin, so it is the only one."""
    torch.manual_seed(0)
    found = survey(Evaluator(FromTorch(two(5.0, 0.9, 1.0))), 10, 2.0, 1000, Options())
    near = (found.x - torch.tensor([0.5] + [0.0] * 9)).norm(dim=1) < 1.2  # six deviations
    assert 0.7 < float(near.double().mean()) < 0.95


def test_chains_alone_starve_a_narrow_peak():
    torch.manual_seed(0)
    alone = Annealing(keep=0.9).run(broad(10), FromTorch(two(3.0)), 2048)
    assert float(alone.normalized @ (alone.x[:, 0] > 0).double()) < 0.05
    assert alone.log_z == pytest.approx(math.log(0.5), abs=0.1)  # and their evidence is sure of it


def test_peaks_have_the_mass_and_width_of_their_normals():
    """A correlated normal of mass 0.3 and a narrow one of mass 0.7."""
    tril = torch.tensor([[0.5, 0.0], [0.9, 0.3]], dtype=torch.float64)
    center = torch.tensor([2.0, -1.0], dtype=torch.float64)

    def log_prob(x: Tensor) -> Tensor:
        wide = math.log(0.3) + MultivariateNormal(center, scale_tril=tril).log_prob(x)
        return torch.logaddexp(wide, math.log(0.7) + normal(x, -4, 0.05))

    torch.manual_seed(0)
    evaluator, trail = Evaluator(FromTorch(log_prob)), Trail()
    x = 3 * torch.randn(4000, 2, dtype=torch.float64)
    trail.add(x, evaluator(x))
    found = Search(evaluator, gradients=True).run(trail, torch.eye(2, dtype=torch.float64)).largest(2)
    assert found.log_mass.exp().tolist() == pytest.approx([0.7, 0.3], rel=0.02)
    assert torch.allclose(found.center[1], center, atol=0.01)
    covariance = found.scale_tril[1] @ found.scale_tril[1].T
    assert torch.allclose(covariance, tril @ tril.T, rtol=0.05)


def test_the_normals_at_peaks_are_a_mixture():
    tril = torch.tensor([[[1.0, 0.0], [0.3, 0.5]], [[0.1, 0.0], [0.0, 2.0]]], dtype=torch.float64)
    center = torch.tensor([[0.0, 1.0], [4.0, -3.0]], dtype=torch.float64)
    known = Peaks(center, torch.tensor([3.0, -8.0], dtype=torch.float64), tril)
    exact = MixtureSameFamily(
        Categorical(torch.ones(2).double()), MultivariateNormal(center, scale_tril=peaks.WIDER * tril)
    )
    torch.manual_seed(0)
    x = known.sample(40_000)
    assert torch.allclose(known.log_density(x[:100]), exact.log_prob(x[:100]))
    assert torch.allclose(x.mean(0), exact.mean, atol=0.05)
    assert torch.allclose(x.var(0), exact.variance, rtol=0.03)
    base = Beside(broad(2), known)
    half = torch.logaddexp(broad(2).log_prob(x[:100]), exact.log_prob(x[:100])) - math.log(2)
    assert torch.allclose(base.log_prob(x[:100]), half)
    assert base.sample((7,)).shape == (7, 2)


def test_a_trail_is_thinned_evenly(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peaks, "HELD", 1000)
    trail = Trail()
    for step in range(100):
        trail.add(torch.full((50, 1), float(step)), torch.zeros(50))
    x, log_prob = trail.points()
    assert 300 < len(x) == len(log_prob) <= 1000
    times = torch.bincount(x[:, 0].long(), minlength=100)
    assert times.min() >= 2
    assert times.max() <= 8


def test_mass_that_a_flow_lacks_is_measured():
    """A peak of nine tenths in a normal that the flow is: nine tenths are dark, and none once it is known."""
    target, features = two(50.0, 0.9, 1.0), 3
    at = torch.tensor([[0.5, 0.0, 0.0]], dtype=torch.float64)
    scale = 0.02 * torch.eye(features, dtype=torch.float64)[None]
    known = Peaks(at, target(at), scale)
    log_mass = dark_mass(known, target, lambda x: normal(x, -0.5, 1.0) + math.log(0.1) + 5, 4000)
    assert math.exp(log_mass) == pytest.approx(0.9, abs=0.02)
    assert dark_mass(known, target, lambda x: target(x) + 5, 4000) == -math.inf


def test_what_chains_came_by_is_looked_at_again():
    """They pass through the peak and leave: a step that falls into it comes out with too much energy."""
    features = 2
    target = FromTorch(two(50.0, 0.9, 1.0))
    torch.manual_seed(0)
    x = torch.randn(500, features, dtype=torch.float64)
    x[:, 0] -= 0.5
    x = x[(x[:, 0] - 0.5).abs() > 0.3]  # none of them in the peak
    flow = Flow(Standardize((features,)), Normal((features,))).double()
    flow.initialize(x)
    chains = Population(target, x, transition=Hamiltonian(5))
    for _ in range(30):
        chains.draw(flow)
    chains.points = chains.points.take(((chains.points.x[:, 0] - 0.5).abs() > 0.3).nonzero()[:, 0])
    assert fit._dark(flow, chains, math.log(0.1), 4000) == pytest.approx(0.9, abs=0.05)
    assert fit._dark(flow, Population(FromTorch(lambda x: normal(x, -0.5, 1.0)), x), 0.0, 4000) == 0.0
