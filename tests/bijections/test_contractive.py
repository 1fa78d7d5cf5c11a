"""Contractive residual blocks: certificates, inverses, estimators."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffeo import Flow, bases, fit, nets
from diffeo.bijections import Chain, Contractive, Standardize
from diffeo.errors import ConfigError, NotConverged
from diffeo.functional.fixed_point import fixed_point
from diffeo.functional.log_dets import RouletteLogDet, SeriesLogDet, remainder
from diffeo.functional.norms import conv_norm_bound, norm_bound
from diffeo.targets import TOYS
from diffeo.testing import check_bijection, randomize_
from diffeo.train import OptimizerSettings


def rotation(dtype: torch.dtype = torch.float64, lipschitz: float = 0.97, features: int = 64) -> Contractive:
    """``y = x + L Q x`` with Q orthogonal: the slowest contraction there is."""
    g = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(features, features, generator=g, dtype=torch.float64))[0]
    layer = Contractive(nets.LipschitzMLP(features, (), lipschitz=lipschitz)).to(dtype)
    with torch.no_grad():
        layer.net.layers[0].weight.copy_(lipschitz * (1 - 1e-7) * q)
        layer.net.layers[0].bias.zero_()
    return layer


# -- certificates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (5, 2), (2, 5), (64, 64)])
def test_norm_bound_is_above_and_tight(shape: tuple[int, int], dtype: torch.dtype):
    for seed in range(20):
        w = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
        exact = torch.linalg.svdvals(w.double())[0]
        bound = norm_bound(w).double()
        assert exact <= bound <= exact * (1 + 1e-3)


@pytest.mark.parametrize("size", [(5, 4), (1, 1), (7, 7)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_conv_norm_bound_is_above_the_exact_norm(size: tuple[int, int], kernel: int):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(2, 3, kernel, padding=kernel // 2, bias=False).double()
    inputs = torch.eye(2 * math.prod(size), dtype=torch.float64).reshape(-1, 2, *size)
    matrix = conv(inputs).reshape(len(inputs), -1)
    exact = torch.linalg.svdvals(matrix)[0]
    bound = conv_norm_bound(conv.weight, size)
    assert exact <= bound
    assert bound <= 1.5 * exact or min(size) < 4, "not tight"
    if kernel == 1:
        torch.testing.assert_close(exact, bound)


def test_power_iteration_would_certify_nothing():
    """Two singular values close together: some steps of power iteration stay below the norm."""
    torch.manual_seed(0)
    w = torch.diag(torch.tensor([1.0, 0.999, 0.999, 0.999], dtype=torch.float64))
    v = torch.tensor([1e-3, 1.0, 1.0, 1.0], dtype=torch.float64)
    for _ in range(5):
        v = w.T @ (w @ v)
        v = v / v.norm()
    assert (w @ v).norm() < 1 - 1e-4 < 1 <= norm_bound(w)


@pytest.mark.parametrize(
    "net",
    [
        nets.LipschitzMLP(3, (16, 16), lipschitz=0.9),
        nets.LipschitzMLP(3, (16,), activation=nets.Sine, lipschitz=0.5, context_features=2),
        nets.LipschitzConvNet((2, 4, 3), (5, 4), lipschitz=0.9),
    ],
    ids=["mlp", "context", "conv"],
)
def test_projection_certifies_the_constant(net: nets.LipschitzNet):
    net = randomize_(net.double(), scale=1.0)
    assert net.bound() <= net.lipschitz
    g = torch.Generator().manual_seed(0)
    context = torch.randn(500, 2, generator=g, dtype=torch.float64) if net.context_features else None
    x, way = (torch.randn(500, *net.event_shape, generator=g, dtype=torch.float64) for _ in range(2))
    steps = [1e-3, 1.0, 100.0]
    gaps = [(net(x + h * way, context) - net(x, context)).flatten(1).norm(dim=1) for h in steps]
    slopes = torch.stack([gap / (h * way.flatten(1).norm(dim=1)) for gap, h in zip(gaps, steps, strict=True)])
    assert 0 < slopes.max() <= net.lipschitz
    before = [p.clone() for p in net.parameters()]
    net.project_()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)), "projecting twice"


def test_training_keeps_the_constant():
    flow = Flow(Chain([Standardize((2,)), Contractive(nets.LipschitzMLP(2, (16, 16)))]), bases.Normal((2,)))
    rows = TOYS["moons"].sample(2000, torch.Generator().manual_seed(0))
    fit(flow, rows, max_steps=60, optimizer=OptimizerSettings(learning_rate=0.05))
    net = flow.bijection.parts[1].net
    assert 0.9 < net.bound() <= net.lipschitz


@pytest.mark.parametrize("lipschitz", [0.0, 1.0, 1.5])
def test_a_bound_that_is_none_is_refused(lipschitz: float):
    with pytest.raises(ConfigError, match="lipschitz must be in"):
        nets.LipschitzMLP(2, lipschitz=lipschitz)


def test_an_activation_too_steep_is_refused():
    with pytest.raises(ConfigError, match=r"SiLU has slopes up to 1\.1"):
        nets.LipschitzMLP(2, activation=nets.SiLU)


# -- inverses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_slowest_contraction_comes_back(dtype: torch.dtype, bound: float):
    """Fixed-point inverses elsewhere stop early: 6e-2 off."""
    layer = rotation(dtype)
    x = torch.randn(256, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    y = layer.push(x)
    assert (layer.pull(y) - x).abs().max() <= bound
    fast, plain = layer.solve(y).iterations, layer.solve(y, memory=0).iterations
    assert fast <= 75 < 500 < plain


def test_the_certificate_bounds_the_error():
    layer = randomize_(Contractive(nets.LipschitzMLP(3, (16, 16), lipschitz=0.95)).double(), scale=1.0)
    x = 3 * torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solved = layer.solve(layer.push(x))
    error = (solved.x - x).norm(dim=1)
    assert (error <= solved.residual / (1 - 0.95) + 1e-14 * (1 + x.norm(dim=1))).all()


def test_a_map_that_is_no_contraction_is_not_inverted_silently():
    layer = Contractive(nets.LipschitzMLP(2, ())).double()
    with torch.no_grad():
        layer.net.layers[0].weight.copy_(-torch.eye(2))  # y = 0 whatever x: not projected
    with pytest.raises(NotConverged, match="Contractive"):
        layer.inverse(torch.ones(3, 2, dtype=torch.float64))


def test_acceleration_falls_back_where_it_does_not_help():
    """A kink in every direction: secants mislead, and the iteration still ends at the fixed point."""
    y = torch.linspace(-3, 3, 61, dtype=torch.float64).unsqueeze(1)

    def zigzag(x: Tensor, rows: Tensor | None) -> Tensor:
        return 0.9 * (x - x.round()).abs()

    solved = fixed_point(zigzag, y, 0.9, "a zigzag")
    assert (solved.x + zigzag(solved.x, None) - y).abs().max() <= 1e-10


def test_nan_stays_in_its_row():
    layer = rotation()
    y = torch.randn(4, 64, dtype=torch.float64)
    y[1, 3] = math.nan
    x = layer.pull(y)
    assert x[1].isnan().any()
    assert x[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("features", [3, 70])
def test_implicit_gradients(features: int):
    """Below 65 features by the Jacobian, above by iteration: both against finite differences."""
    layer = randomize_(
        Contractive(nets.LipschitzMLP(features, (8,), context_features=1, lipschitz=0.8)).double()
    )
    y = torch.randn(2, features, dtype=torch.float64, requires_grad=True)
    context = torch.randn(2, 1, dtype=torch.float64, requires_grad=True)
    probe = torch.randn(2, features, dtype=torch.float64)
    bias = layer.net.layers[0].bias

    def total(y: Tensor, context: Tensor) -> Tensor:
        return (layer.pull(y, context) * probe).sum()

    grads = torch.autograd.grad(total(y, context), [y, context, bias])
    for tensor, grad in zip([y, context, bias], grads, strict=True):
        way = torch.randn_like(tensor)
        with torch.no_grad():
            tensor.add_(1e-5 * way)
            up = total(y, context)
            tensor.sub_(2e-5 * way)
            down = total(y, context)
            tensor.add_(1e-5 * way)
        torch.testing.assert_close((grad * way).sum(), (up - down) / 2e-5, rtol=1e-5, atol=1e-7)


def test_under_vmap_values_and_gradients_hold():
    layer = randomize_(Contractive(nets.LipschitzMLP(2, (8,), lipschitz=0.5)).double())
    y = torch.randn(5, 2, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(layer.pull)(y), layer.pull(y))
    wanted = torch.linalg.inv(torch.func.vmap(torch.func.jacrev(layer.push))(layer.pull(y)))
    torch.testing.assert_close(torch.func.vmap(torch.func.jacrev(layer.pull))(y), wanted)


# -- log-determinants ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> Contractive:
    """A block after 200 training steps with roulette."""
    torch.manual_seed(0)
    block = Contractive(nets.LipschitzMLP(2, (16, 16), lipschitz=0.9), RouletteLogDet(2))
    flow = Flow(Chain([Standardize((2,)), block]), bases.Normal((2,)))
    report = fit(flow, TOYS["moons"].sample(4000, torch.Generator().manual_seed(0)), max_steps=200)
    assert report.steps == 200
    assert block.net.bound() > 0.8, "it did not learn to bend"
    return block


@pytest.mark.parametrize("log_det", [RouletteLogDet(1), RouletteLogDet(4), RouletteLogDet(2, stop=0.15)])
def test_the_roulette_is_unbiased_after_training(trained: Contractive, log_det: RouletteLogDet):
    check_bijection(Contractive(trained.net, log_det), randomize=False, capture=False)


@pytest.mark.parametrize("log_det", [RouletteLogDet(1, stop=0.15), RouletteLogDet(3)])
def test_the_roulette_weighs_what_it_seldom_reaches(log_det: RouletteLogDet):
    """``x - 0.85 x``: all terms of the series have one sign, and the late ones count for much."""
    layer = Contractive(nets.LipschitzMLP(2, (), lipschitz=0.9), log_det).double().train()
    weight = layer.net.weights()[0]
    with torch.no_grad():
        weight.copy_(-0.85 * torch.eye(2))
    torch.manual_seed(0)
    draws = []
    for _ in range(4000):
        value = layer(torch.zeros(1, 2, dtype=torch.float64))[1].sum()
        draws.append(torch.stack([value.detach(), torch.autograd.grad(value, weight)[0].trace()]))
    found = torch.stack(draws)
    error = found.std(0) / len(found) ** 0.5
    wanted = torch.tensor([2 * math.log(0.15), 2 / 0.15], dtype=torch.float64)
    assert (error < 0.05 * wanted.abs()).all(), "too noisy to tell"
    assert ((found.mean(0) - wanted).abs() <= 4 * error).all()


def test_the_series_is_as_close_as_its_bound(trained: Contractive):
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = Contractive(trained.net).double()(x)[1]
    for tolerance in (0.5, 1e-2):
        layer = Contractive(trained.net, SeriesLogDet(tolerance, probes=500)).double().eval()
        estimate = layer.estimate(x)
        assert estimate.remainder <= 2 * tolerance
        assert ((estimate.log_det - exact).abs() <= estimate.remainder + 5 * estimate.standard_error).all()
        assert torch.equal(layer(x)[1], layer(x)[1]), "evaluation is random"


def test_more_than_64_features_are_evaluated_by_a_fixed_series():
    layer = randomize_(
        Contractive(nets.LipschitzMLP(70, (8,), lipschitz=0.7), RouletteLogDet()).double()
    ).eval()
    x = torch.randn(5, 70, dtype=torch.float64)
    estimate = layer.estimate(x)
    exact = Contractive(layer.net).double()(x)[1]
    assert estimate.standard_error.min() > 0
    assert ((estimate.log_det - exact).abs() <= estimate.remainder + 4 * estimate.standard_error).all()
    twin = Contractive(nets.LipschitzMLP(70, (8,), lipschitz=0.7), RouletteLogDet()).double().eval()
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(twin(x)[1], layer(x)[1])
    assert remainder(0.7, 10, 70) < remainder(0.7, 9, 70)


def test_a_roulette_of_infinite_variance_is_refused():
    layer = Contractive(nets.LipschitzMLP(2, lipschitz=0.9), RouletteLogDet(stop=0.5)).train()
    with pytest.raises(ConfigError, match="infinite variance"):
        layer(torch.zeros(3, 2))


def test_a_weight_that_scaling_would_not_reach_is_refused():
    net = nets.LipschitzMLP(2, (8,))
    torch.nn.utils.parametrizations.spectral_norm(net.linears[-1])
    with pytest.raises(ConfigError, match="computed from others"):
        net.project_()
