"""DeepSigmoid, MixtureCDF, SumOfSquares, Bernstein, MonotonicNet: certified inverses, slopes, starts."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from diffeo.elementwise import Bernstein, DeepSigmoid, MixtureCDF, MonotonicNet, SumOfSquares
from diffeo.elementwise.base import Elementwise
from diffeo.errors import ConfigError
from diffeo.testing import check_elementwise, randomize_
from diffeo.testing.scalar import require_certified, stress_params


def net(embedding: int = 4, scale: float = 0.5) -> MonotonicNet:
    torch.manual_seed(0)
    return randomize_(MonotonicNet(embedding, (8, 8)), scale=scale)


FAMILIES: dict[str, Callable[[], Elementwise]] = {
    "DeepSigmoid": lambda: DeepSigmoid(8),
    "DeepSigmoid, one": lambda: DeepSigmoid(1),
    "MixtureCDF": lambda: MixtureCDF(6),
    "SumOfSquares": lambda: SumOfSquares(4, 3),
    "SumOfSquares, high degree": lambda: SumOfSquares(12, 2, 10.0),
    "Bernstein": lambda: Bernstein(12),
    "Bernstein, high degree": lambda: Bernstein(60, 10.0),
    "MonotonicNet": net,
}
families = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES.keys())
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def cast(family: Elementwise, dtype: torch.dtype) -> Elementwise:
    return copy.deepcopy(family).to(dtype) if isinstance(family, nn.Module) else family


def stressed(family: Elementwise, points: Tensor) -> tuple[Tensor, Tensor]:
    """Every point with every set of parameters: zeros, moderate ones and +-10."""
    params = stress_params(family.num_params, 0).to(points).unsqueeze(1)
    return params.expand(-1, len(points), -1), points.expand(len(params), -1)


FAR = [1e-30, 1e-6, 1e-3, 0.1, 1.0, 3.0, 10.0, 30.0, 300.0, 1e3, 1e4, 1e5, 1e6]


@families
@dtypes
def test_inverses_are_certified_under_stress(make: Callable[[], Elementwise], dtype: torch.dtype):
    family = cast(make(), dtype)
    y = torch.cat([torch.linspace(-20, 20, 81), torch.tensor([*FAR, 0.0]), -torch.tensor(FAR)]).to(dtype)
    with torch.no_grad():
        require_certified(family, *stressed(family, y))


@pytest.mark.parametrize("make", [DeepSigmoid, MixtureCDF], ids=["DeepSigmoid", "MixtureCDF"])
@dtypes
def test_a_root_where_center_and_reach_cancel(make: Callable[[int], Elementwise], dtype: torch.dtype):
    """The bracket is then known less well than its ends are small."""
    torch.manual_seed(0)
    family = make(3)
    params = torch.randn(2000, family.num_params, dtype=dtype)
    params[:, 3:6] = 1e3 * torch.randn(2000, 1, dtype=dtype) + 1e-3 * torch.randn(2000, 3, dtype=dtype)
    y = family.forward(1e-3 * torch.randn(2000, dtype=dtype), params)[0]
    require_certified(family, params, y)


@families
@dtypes
def test_finite_at_a_million_with_its_gradients(make: Callable[[], Elementwise], dtype: torch.dtype):
    family = cast(make(), dtype)
    params, x = stressed(family, torch.tensor([-1e6, -1e3, 0.0, 1e3, 1e6], dtype=dtype))
    params, x = params.clone().requires_grad_(), x.clone().requires_grad_()
    y, log_slope = family.forward(x, params)
    assert y.isfinite().all()
    assert log_slope.isfinite().all()
    for t in (y, log_slope):
        for g in torch.autograd.grad(t.sum(), [x, params], retain_graph=True):
            assert g.isfinite().all()
    assert (y.diff(dim=-1) >= 0).all()


@families
def test_tails_are_lines(make: Callable[[], Elementwise]):
    family = cast(make(), torch.float64)
    params, x = stressed(family, torch.tensor([-3e8, -2e8, -1e8, 1e8, 2e8, 3e8], dtype=torch.float64))
    y, log_slope = family.forward(x, params)
    left, right = y[:, :3].diff(dim=-1), y[:, 3:].diff(dim=-1)
    for steps, slopes in ((left, log_slope[:, :3]), (right, log_slope[:, 3:])):
        torch.testing.assert_close(steps[:, 0], steps[:, 1], rtol=1e-6, atol=0)
        torch.testing.assert_close(steps / 1e8, slopes[:, 1:].exp(), rtol=1e-6, atol=0)


@families
def test_the_slope_is_the_derivative_of_the_value(make: Callable[[], Elementwise]):
    """Under stress: where exp(log_slope) does not underflow."""
    family = cast(make(), torch.float64)
    params, x = stressed(family, torch.linspace(-15, 15, 201, dtype=torch.float64))
    x = x.clone().requires_grad_()
    y, log_slope = family.forward(x, params)
    (slope,) = torch.autograd.grad(y.sum(), x)
    keep = log_slope > -20  # a difference of two sums of shares: absolute round-off
    torch.testing.assert_close(slope[keep], log_slope.exp()[keep], rtol=1e-6, atol=1e-11)


@families
def test_derivatives_of_both_maps_to_both_inputs(make: Callable[[], Elementwise]):
    family = cast(make(), torch.float64)
    torch.manual_seed(0)
    x = (3 * torch.randn(7, dtype=torch.float64)).requires_grad_()
    params = torch.randn(7, family.num_params, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(family.forward, (x, params), atol=1e-6)
    assert torch.autograd.gradcheck(family.inverse, (x, params), atol=1e-5)


@families
def test_second_derivatives_of_the_forward_map(make: Callable[[], Elementwise]):
    family = cast(make(), torch.float64)
    torch.manual_seed(0)
    x = torch.randn(5, dtype=torch.float64).requires_grad_()
    params = torch.randn(5, family.num_params, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(family.forward, (x, params), atol=1e-5)


@families
def test_torch_func_sees_through(make: Callable[[], Elementwise]):
    family = cast(make(), torch.float64)
    torch.manual_seed(0)
    x = torch.linspace(-6, 6, 9, dtype=torch.float64)
    params = torch.randn(9, family.num_params, dtype=torch.float64)
    for apply in (family.forward, family.inverse):
        value, log_slope = apply(x, params)
        mapped = torch.func.vmap(apply)(x, params)
        torch.testing.assert_close(mapped[0], value, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(mapped[1], log_slope, rtol=1e-8, atol=1e-8)
        jacobian = torch.func.jacrev(lambda t: apply(t, params)[0])(x)
        torch.testing.assert_close(jacobian.diagonal().log(), log_slope, rtol=1e-7, atol=1e-7)


@families
def test_a_density_integrates_to_one(make: Callable[[], Elementwise]):
    """In cells that are even in y, where the density is normal, and no wider than it takes in x."""
    family = cast(make(), torch.float64)
    for seed in range(3):
        torch.manual_seed(seed)
        params = 2 * torch.randn(family.num_params, dtype=torch.float64)
        edges = torch.linspace(-9, 9, 2001, dtype=torch.float64)
        x = family.inverse(edges, params.expand(2001, -1))[0].detach()
        x = (
            torch.cat([x, torch.linspace(-15, 15, 4001, dtype=torch.float64)])
            .clamp(x[0], x[-1])
            .sort()
            .values
        )
        w = x.diff()
        nodes = torch.tensor([-(0.6**0.5), 0.0, 0.6**0.5], dtype=torch.float64)
        points = x[:-1, None] + 0.5 * w[:, None] * (1 + nodes)
        y, log_slope = family.forward(points, params.expand(*points.shape, -1))
        density = (-0.5 * y * y + log_slope).exp() / math.sqrt(2 * math.pi)
        total = (0.5 * w * (density @ torch.tensor([5 / 9, 8 / 9, 5 / 9], dtype=torch.float64))).sum()
        assert abs(total - 1) < 1e-4, seed


@families
def test_nan_stays_in_its_row(make: Callable[[], Elementwise]):
    family = make()
    x, params = torch.tensor([0.5, math.nan, 0.5, -1.0]), torch.zeros(4, family.num_params)
    params[2] = math.nan
    for apply in (family.forward, family.inverse):
        value, log_slope = apply(x, params)
        assert value.isnan().tolist() == [False, True, True, False]
        assert not log_slope.isinf().any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: DeepSigmoid(0),
        lambda: MixtureCDF(1000),
        lambda: SumOfSquares(0),
        lambda: SumOfSquares(2, 0),
        lambda: SumOfSquares(2, 1, -1.0),
        lambda: Bernstein(0),
        lambda: Bernstein(4, math.inf),
        lambda: MonotonicNet(0),
        lambda: MonotonicNet(2, ()),
        lambda: MonotonicNet(2, (8,), 0.0),
    ],
)
def test_values_out_of_range_are_refused(make: Callable[[], Elementwise]):
    with pytest.raises(ConfigError, match="must be"):
        make()


# -- starts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [DeepSigmoid, MixtureCDF], ids=["DeepSigmoid", "MixtureCDF"])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 32])
def test_mixtures_start_near_the_identity(make: Callable[[int], Elementwise], count: int):
    """Within 0.05 nats of the normal itself; one unit is the identity exactly."""
    family = make(count)
    x = torch.linspace(-9, 9, 3001, dtype=torch.float64)
    y, log_slope = family.forward(x, torch.zeros(3001, family.num_params, dtype=torch.float64))
    density = (-0.5 * x * x).exp() / math.sqrt(2 * math.pi)
    gap = torch.trapezoid(density * (-0.5 * x * x + 0.5 * y * y - log_slope), x)
    assert -1e-9 <= gap < 0.05
    if count == 1:
        torch.testing.assert_close(y, x, rtol=0, atol=1e-12)
    else:
        assert gap > 1e-5


def train(family: Elementwise, x: Tensor, steps: int = 200) -> tuple[Tensor, float]:
    """Parameters and the likelihood after some steps from zero."""
    params = torch.zeros(family.num_params, requires_grad=True)
    own = list(family.parameters()) if isinstance(family, nn.Module) else []
    optimizer = torch.optim.Adam([params, *own], lr=0.05)
    loss = torch.zeros(())
    for _ in range(steps):
        y, log_slope = family.forward(x, params.expand(len(x), -1))
        loss = (0.5 * y * y - log_slope).mean() + 0.5 * math.log(2 * math.pi)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return params.detach(), -loss.item()


def bimodal() -> tuple[Tensor, float]:
    """Two narrow modes, and their mean log-density."""
    g = torch.Generator().manual_seed(0)
    modes = torch.tensor([-1.5, 1.5])
    x = modes[torch.randint(2, (2000,), generator=g)] + 0.3 * torch.randn(2000, generator=g)
    parts = -0.5 * ((x[:, None] - modes) / 0.3).square() - math.log(0.3 * 2 * math.sqrt(2 * math.pi))
    return x, parts.logsumexp(1).mean().item()


@pytest.mark.parametrize(
    "make, one, parts",
    [
        (DeepSigmoid, DeepSigmoid(1), 3),
        (MixtureCDF, MixtureCDF(1), 3),
        (lambda k: SumOfSquares(8, k, 3.0), SumOfSquares(1, 1), None),
        (lambda k: Bernstein(8 * k), Bernstein(1), None),
    ],
    ids=["DeepSigmoid", "MixtureCDF", "SumOfSquares", "Bernstein"],
)
def test_training_from_zero_separates_the_parts(
    make: Callable[[int], Elementwise], one: Elementwise, parts: int | None
):
    x, truth = bimodal()
    family = make(4)
    params, likelihood = train(family, x)
    alone = train(one, x)[1]
    assert likelihood > alone + 0.1
    assert likelihood > truth - 0.15
    if isinstance(family, SumOfSquares):
        learned = params[1:].reshape(4, -1)
    elif parts is None:
        return
    else:
        learned = params.reshape(parts, -1).T
    assert torch.pdist(learned).min() > 0.1  # no two have moved alike


def test_a_net_learns_two_modes_from_its_zero_start():
    x, truth = bimodal()
    torch.manual_seed(0)
    family = MonotonicNet(2, (16, 16))
    assert train(family, x)[1] > truth - 0.15


# -- each by its definition -------------------------------------------------------------------------


def test_deep_sigmoid_is_its_formula():
    family = DeepSigmoid(5)
    torch.manual_seed(0)
    params, x = torch.randn(15, dtype=torch.float64), torch.linspace(-4, 4, 50, dtype=torch.float64)
    logits, centers, log_rates = (t[:, 0] for t in family._units(x, params))
    s = (torch.sigmoid(log_rates.exp() * (x[:, None] - centers)) * logits.softmax(0)).sum(1)
    torch.testing.assert_close(family.forward(x, params.expand(50, -1))[0], torch.logit(s))


def test_mixture_cdf_is_its_formula():
    family = MixtureCDF(5)
    torch.manual_seed(0)
    params, x = torch.randn(15, dtype=torch.float64), torch.linspace(-3, 3, 50, dtype=torch.float64)
    logits, centers, log_rates = (t[:, 0] for t in family._units(x, params))
    s = (torch.special.ndtr(log_rates.exp() * (x[:, None] - centers)) * logits.softmax(0)).sum(1)
    torch.testing.assert_close(
        family.forward(x, params.expand(50, -1))[0], torch.special.ndtri(s), rtol=1e-6, atol=1e-6
    )


def test_a_net_agrees_with_a_fine_sum():
    """Also where the integrand is rough: then more nodes are taken, for those points alone."""
    for scale in (0.5, 3.0):
        family = net(scale=scale).double()
        params = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        x = torch.tensor([-4.0, -1.0, 0.3, 2.0, 4.0], dtype=torch.float64)
        y = family.forward(x, params.expand(5, -1))[0]
        for i, end in enumerate(x):
            grid = torch.linspace(0, end.item(), 20001, dtype=torch.float64)
            slopes = family.forward(grid, params.expand(20001, -1))[1].exp()
            h = end / 20000
            simpson = h / 3 * (slopes[0] + slopes[-1] + 4 * slopes[1::2].sum() + 2 * slopes[2:-1:2].sum())
            torch.testing.assert_close(y[i], simpson + params[0], rtol=1e-10, atol=1e-10)


def test_a_net_gives_a_point_the_same_alone():
    """The number of nodes is each scalar's own, not the batch's."""
    family = net(scale=3.0)
    x, params = 3 * torch.randn(50), torch.randn(50, 5)
    y = family.forward(x, params)[0]
    alone = torch.cat([family.forward(x[i : i + 1], params[i : i + 1])[0] for i in range(50)])
    torch.testing.assert_close(alone, y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_other_sizes_keep_the_contract(seed: int):
    for family in (SumOfSquares(2, 5, 1.0), Bernstein(3, 0.5)):
        check_elementwise(family, seed=seed, capture=False)


@families
def test_both_maps_rise(make: Callable[[], Elementwise]):
    """In float32, up to the round-off of item 10: where a map is flat its inverse is known that badly."""
    family = cast(make(), torch.float32)
    eps, s = torch.finfo(torch.float32).eps, family.scale
    points = torch.cat([torch.linspace(-20, 20, 201), torch.tensor(FAR), -torch.tensor(FAR)]).sort().values
    params, points = stressed(family, points)
    with torch.no_grad():
        for apply in (family.forward, family.inverse):
            value, log_slope = apply(points, params)
            known = value.abs().clamp_min(s) + points.abs().clamp_min(s) * log_slope.exp()
            assert (value.diff(dim=-1) >= -64 * eps * known[:, 1:].maximum(known[:, :-1])).all()
