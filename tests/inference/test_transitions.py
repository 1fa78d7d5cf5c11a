"""Transitions: which density they leave alone, what they accept, and how their steps go wrong."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffeo.errors import ConfigError
from diffeo.inference import Hamiltonian, RandomWalk, Transition
from diffeo.inference.transitions import ChainState, fastest, leapfrog
from diffeo.targets import Evaluator, FromNumPy, FromTorch

INF = math.inf
Density = Callable[[Tensor], Tensor]


def terms_of(*densities: Density):
    """An ``Evaluate`` from log-densities, with gradients by autograd."""

    def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            values = [f(leaf) for f in densities]
            grads = [torch.autograd.grad(v.sum(), leaf)[0] for v in values]
        return torch.stack(values).detach(), torch.stack(grads)

    return evaluate


def normal(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum(-1)


def gamma(x: Tensor) -> Tensor:
    """The logarithm of a gamma variable of shape 3: skewed."""
    return 3 * x[:, 0] - x[:, 0].exp()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(terms: list[list[float]], coefficients: list[float], grads: Tensor | None = None) -> ChainState:
    values = torch.tensor(terms, dtype=torch.float64)
    x = torch.zeros(values.shape[1], 2, dtype=torch.float64)
    if grads is None:
        grads = torch.zeros(*values.shape, 2, dtype=torch.float64)
    return ChainState(x, values, grads, torch.tensor(coefficients, dtype=torch.float64))


# -- points ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coefficients", "wanted"),
    [
        ([1.0, 1.0], [3.0, -INF, -INF, -INF]),
        ([0.5, 2.0], [4.5, -INF, -INF, -INF]),
        ([0.0, 1.0], [2.0, 2.0, -INF, -INF]),
        ([1.0, 0.0], [1.0, -INF, 1.0, -INF]),
        ([-1.0, 2.0], [3.0, -INF, -INF, -INF]),  # never +inf
        ([0.0, 0.0], [0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_log_density_of_terms(coefficients: list[float], wanted: list[float]):
    found = points([[1.0, -INF, 1.0, -INF], [2.0, 2.0, -INF, -INF]], coefficients)
    assert found.log_prob.tolist() == wanted


def test_nan_stays_nan_unless_it_does_not_count():
    found = points([[math.nan, 1.0], [1.0, 1.0]], [1.0, 1.0])
    assert found.log_prob[0].isnan()
    assert found.weighted(torch.tensor([0.0, 1.0], dtype=torch.float64)).log_prob.tolist() == [1.0, 1.0]


def test_gradient_of_terms():
    grads = torch.arange(8.0, dtype=torch.float64).reshape(2, 2, 2)
    found = points([[1.0, 1.0], [1.0, 1.0]], [0.5, 2.0], grads)
    torch.testing.assert_close(found.grad, 0.5 * grads[0] + 2 * grads[1])
    grads[0] = math.nan  # a term that does not count may say anything
    found = points([[1.0, 1.0], [1.0, 1.0]], [0.0, 2.0], grads)
    torch.testing.assert_close(found.grad, 2 * grads[1])


def test_rows_of_points():
    evaluate = terms_of(normal, lambda x: x.sum(-1))
    x, y = torch.randn(5, 2, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    one, two = ChainState.at(evaluate, x, half), ChainState.at(evaluate, y, half)
    assert len(one) == 5
    torch.testing.assert_close(one.log_prob, 0.5 * normal(x) + 0.5 * x.sum(-1))
    torch.testing.assert_close(ChainState.at(evaluate, x).log_prob, normal(x) + x.sum(-1))
    accept = torch.tensor([True, False, True, False, False])
    mixed = one.where(accept, two)
    again = ChainState.at(evaluate, torch.where(accept[:, None], y, x), half)
    index = torch.tensor([3, 3, 0])
    for found, wanted in ((mixed, again), (mixed.take(index), ChainState.at(evaluate, again.x[index], half))):
        assert torch.equal(found.x, wanted.x)
        torch.testing.assert_close(found.terms, wanted.terms)
        torch.testing.assert_close(found.grads, wanted.grads)
        assert torch.equal(found.coefficients, half)


# -- invariance -----------------------------------------------------------------------------------

TRIL = torch.tensor([[0.5, 0.0], [0.4, 0.7]], dtype=torch.float64)


def settled(transition: Transition, density: Density, x: Tensor, size: float, tril: Tensor, times: int = 12):
    """The points after so many transitions, and the mean probability of acceptance."""
    now, total = ChainState.at(terms_of(density), x), 0.0
    random = generator(5)
    for _ in range(times):
        now, accepted = transition.step(terms_of(density), now, torch.tensor(size), tril, random)
        assert ((accepted >= 0) & (accepted <= 1)).all()
        total += float(accepted.mean()) / times
    torch.testing.assert_close(now.terms, terms_of(density)(now.x)[0])  # x and what is known of it agree
    return now.x, total


def check_moments(x: Tensor, exact: Tensor, functions: list[Callable[[Tensor], Tensor]]) -> None:
    """Means over x within 4 standard errors of those over far more exact draws."""
    for f in functions:
        error = float(f(exact).std()) * math.sqrt(1 / len(x) + 1 / len(exact))
        assert abs(float(f(x).mean() - f(exact).mean())) < 4 * error


BOTH = pytest.mark.parametrize("transition", [Hamiltonian(4), RandomWalk(4)], ids=lambda t: type(t).__name__)


@BOTH
def test_a_skewed_density_is_left_alone(transition: Transition):
    draws = torch.distributions.Gamma(torch.tensor(3.0).double(), 1.0).sample((210_000, 1)).log()
    x, exact = draws[:10_000], draws[10_000:]
    tril = torch.tensor([[0.6]], dtype=torch.float64)
    found, accepted = settled(transition, gamma, x, 0.9, tril)
    assert 0.2 < accepted < 0.99  # rejections happen, and moves
    assert float((found - x).abs().mean()) > 0.2
    check_moments(found, exact, [lambda x: x[:, 0], lambda x: x[:, 0] ** 2, lambda x: x[:, 0] ** 3])


@BOTH
def test_a_banana_is_left_alone_under_a_correlated_scale(transition: Transition):
    def banana(x: Tensor) -> Tensor:
        return -0.5 * x[:, 0] ** 2 - 0.5 * ((x[:, 1] - x[:, 0] ** 2) / 0.5) ** 2

    z = torch.randn(210_000, 2, dtype=torch.float64)
    draws = torch.stack([z[:, 0], z[:, 0] ** 2 + 0.5 * z[:, 1]], -1)
    found, accepted = settled(transition, banana, draws[:10_000], 0.5, TRIL)
    assert 0.2 < accepted < 0.99
    check_moments(
        found,
        draws[10_000:],
        [lambda x: x[:, 0], lambda x: x[:, 0] ** 2, lambda x: x[:, 1], lambda x: x[:, 0] ** 2 * x[:, 1]],
    )


@BOTH
def test_coefficients_make_the_density(transition: Transition):
    """A quarter of one normal's term and three of another's are a normal again."""

    def narrow(x: Tensor) -> Tensor:
        return -2.0 * (x - 1).square().sum(-1)

    evaluate = terms_of(normal, narrow)
    coefficients = torch.tensor([0.25, 0.5], dtype=torch.float64)
    precision = 0.25 + 0.5 * 4
    mean = 0.5 * 4 / precision
    x = mean + torch.randn(10_000, 2, dtype=torch.float64) / precision**0.5
    now, random = ChainState.at(evaluate, x, coefficients), generator()
    accepted = torch.zeros(0)
    for _ in range(10):
        now, accepted = transition.step(evaluate, now, torch.tensor(1.0), TRIL, random)
    assert 0.1 < float(accepted.mean()) < 0.99
    assert torch.equal(now.coefficients, coefficients)
    error = precision**-0.5 / 100
    assert (now.x.mean(0) - mean).abs().max() < 4 * error
    assert (now.x.var(0) * precision - 1).abs().max() < 4 * math.sqrt(2 / 10_000)


@BOTH
def test_it_gets_there_from_elsewhere(transition: Transition):
    """Invariance alone would be had by standing still."""
    x = torch.full((5000, 2), 3.0, dtype=torch.float64)
    found, _ = settled(transition, normal, x, 0.7, torch.eye(2).double(), times=80)
    assert found.mean(0).abs().max() < 4 / math.sqrt(5000)
    assert (found.var(0) - 1).abs().max() < 4 * math.sqrt(2 / 5000)


def test_a_random_walk_moves_by_size_and_scale():
    """Where everything is accepted the steps add up: covariance walks size^2 L L^T."""
    flat = terms_of(lambda x: 0 * x.sum(-1))
    start = ChainState.at(flat, torch.zeros(40_000, 2, dtype=torch.float64))
    found, accepted = RandomWalk(3).step(flat, start, torch.tensor(0.5), TRIL, generator())
    assert (accepted == 1).all()
    torch.testing.assert_close(found.x.T.cov(), 3 * 0.25 * TRIL @ TRIL.T, atol=0.01, rtol=0.03)


# -- leapfrog -------------------------------------------------------------------------------------


def ends(size: float, leaps: int) -> tuple[ChainState, Tensor, ChainState, Tensor]:
    def well(x: Tensor) -> Tensor:
        return -(x**4).sum(-1) / 4 + x.prod(-1)

    random = generator()
    x = 0.7 * torch.randn(50, 2, dtype=torch.float64, generator=random)
    p = torch.randn(50, 2, dtype=torch.float64, generator=random)
    start = ChainState.at(terms_of(well), x)
    end, q = leapfrog(terms_of(well), start, p, torch.tensor(size).double(), leaps, TRIL)
    return start, p, end, q


def energy(points: ChainState, p: Tensor) -> Tensor:
    return -points.log_prob + 0.5 * p.square().sum(-1)


def test_leapfrog_is_its_own_inverse():
    start, p, end, q = ends(0.3, 7)
    assert (end.x - start.x).abs().max() > 0.3

    def well(x: Tensor) -> Tensor:
        return -(x**4).sum(-1) / 4 + x.prod(-1)

    back, r = leapfrog(terms_of(well), end, -q, torch.tensor(0.3).double(), 7, TRIL)
    torch.testing.assert_close(back.x, start.x, atol=1e-10, rtol=0)
    torch.testing.assert_close(-r, p, atol=1e-10, rtol=0)


def test_its_energy_error_is_of_second_order():
    errors = []
    for halvings in (0, 1, 2):
        start, p, end, q = ends(0.1 / 2**halvings, 10 * 2**halvings)
        errors.append(float((energy(end, q) - energy(start, p)).square().mean().sqrt()))
    assert 3.7 < errors[0] / errors[1] < 4.3
    assert 3.7 < errors[1] / errors[2] < 4.3


def test_leapfrog_preserves_volume():
    def well(x: Tensor) -> Tensor:
        return -(x**4).sum(-1) / 4 + x.prod(-1)

    def grads(x: Tensor) -> tuple[Tensor, Tensor]:  # differentiable itself
        return well(x)[None], torch.stack([-(x[:, 0] ** 3) + x[:, 1], -(x[:, 1] ** 3) + x[:, 0]], -1)[None]

    def flow(state: Tensor) -> Tensor:
        end, q = leapfrog(
            grads, ChainState.at(grads, state[None, :2]), state[None, 2:], torch.tensor(0.3), 3, TRIL
        )
        return torch.cat([end.x, q], -1)[0]

    state = torch.tensor([0.3, -0.8, 1.1, 0.4], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(flow, state)
    assert isinstance(jacobian, Tensor)
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1.0, abs=1e-10)


# -- what is refused ------------------------------------------------------------------------------


def boxed(x: Tensor) -> Tensor:
    """Uniform on the square of half side 1."""
    return torch.where((x.abs() < 1).all(-1), 0 * x.sum(-1), -INF)


@BOTH
def test_rows_move_into_the_support_and_never_out(transition: Transition):
    x = torch.cat([2 * torch.rand(3000, 2) - 1, torch.full((300, 2), 1.5)]).double()
    now, random = ChainState.at(terms_of(boxed), x), generator()
    inside = now.log_prob == 0
    assert int(inside.sum()) == 3000
    for _ in range(60):
        now, accepted = transition.step(terms_of(boxed), now, torch.tensor(0.8), TRIL, random)
        assert accepted.isfinite().all()
        assert (now.log_prob[inside] == 0).all()
        inside = now.log_prob == 0
        assert torch.equal(inside, (now.x.abs() < 1).all(-1))
    assert inside.double().mean() > 0.98
    square = now.x[:3000]  # these were spread evenly to begin with
    assert (square.square().mean(0) - 1 / 3).abs().max() < 4 * math.sqrt(4 / 45 / 3000)


@BOTH
def test_nan_is_never_accepted(transition: Transition):
    def holey(x: Tensor) -> tuple[Tensor, Tensor]:
        value, grad = terms_of(normal)(x)
        hole = x[:, 0] > 0.5
        return torch.where(hole, math.nan, value), torch.where(hole[:, None], math.nan, grad)

    now, random = ChainState.at(holey, torch.zeros(500, 2, dtype=torch.float64)), generator()
    total = 0.0
    for _ in range(30):
        now, accepted = transition.step(holey, now, torch.tensor(0.5), TRIL, random)
        assert accepted.isfinite().all()
        assert now.x.isfinite().all()
        assert (now.x[:, 0] <= 0.5).all()
        total += float(accepted.mean())
    assert 1 < total < 29


@BOTH
def test_overflow_is_a_refusal(transition: Transition):
    """Steps a thousand times too long throw rows to infinity; they stay where they were."""
    quartic = terms_of(lambda x: -(x**4).sum(-1))
    start = ChainState.at(quartic, torch.ones(50, 2, dtype=torch.float64))
    found, accepted = transition.step(quartic, start, torch.tensor(1e3), torch.eye(2).double(), generator())
    assert (accepted == 0).all()
    assert torch.equal(found.x, start.x)


@BOTH
def test_one_seed_is_one_step(transition: Transition):
    start = ChainState.at(terms_of(normal), torch.zeros(20, 2, dtype=torch.float64))

    def step(seed: int) -> Tensor:
        return transition.step(terms_of(normal), start, torch.tensor(0.5), TRIL, generator(seed))[0].x

    assert torch.equal(step(1), step(1))
    assert not torch.equal(step(1), step(2))


def test_step_sizes_may_differ_by_row():
    start = ChainState.at(terms_of(normal), torch.zeros(4000, 2, dtype=torch.float64))
    size = torch.cat([torch.full((2000, 1), 0.1), torch.full((2000, 1), 1.0)]).double()
    for transition in (Hamiltonian(1), RandomWalk(1)):
        moved = transition.step(terms_of(normal), start, size, torch.eye(2).double(), generator())[0].x
        assert float(moved[2000:].std() / moved[:2000].std()) > 4


def test_lengths_vary():
    """From 1 to ``leaps`` evaluations a transition, every number among them."""
    seen = []

    def counting(x: Tensor) -> tuple[Tensor, Tensor]:
        seen[-1] += 1
        return terms_of(normal)(x)

    start, random = ChainState.at(terms_of(normal), torch.zeros(2, 2, dtype=torch.float64)), generator()
    for _ in range(60):
        seen.append(0)
        Hamiltonian(4).step(counting, start, torch.tensor(0.1), TRIL, random)
    assert set(seen) == {1, 2, 3, 4}


def test_wrong_fields():
    with pytest.raises(ConfigError, match="Hamiltonian.steps must be at least 1, not 0"):
        Hamiltonian(0)
    with pytest.raises(ConfigError, match="RandomWalk.steps must be at least 1, not -1"):
        RandomWalk(-1)


def test_gradients_decide_the_transition():
    x = torch.zeros(3, 2, dtype=torch.float64)
    assert isinstance(fastest(Evaluator(FromTorch(normal)), x), Hamiltonian)
    assert isinstance(fastest(Evaluator(FromNumPy(lambda x: -(x**2).sum(-1))), x), RandomWalk)
