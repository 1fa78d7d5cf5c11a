"""Residual blocks and transport along a field: the kernels against the stages' plain meaning."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffeo import nets
from diffeo.bijections import LU, Chain, Contractive, Inverse, RouletteLogDet
from diffeo.functional import fields, native
from diffeo.functional.programs import Program
from diffeo.functional.stages import Stage
from diffeo.testing import randomize_
from diffeo.testing.points import generator

pytestmark = pytest.mark.skipif(native.native is None, reason="built without kernels")
ACTIVATIONS = [nets.Sine, nets.Tanh, nets.SiLU, nets.LipSwish]


def net_of(features: int, hidden: Sequence[int], context: int, activation: type[nets.Activation], seed: int):
    torch.manual_seed(seed)
    reach = 1.5 if seed % 2 else 0.0
    net = nets.SmoothMLP(
        features, features, hidden, context_features=context, activation=activation, reach=reach
    )
    randomize_(net, seed, 0.2)
    with torch.no_grad():
        net.layers[-1].weight.mul_(0.2)
    return net


def gradients(value: Tensor, log_det: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    g = generator(5)
    weights = [torch.randn(t.shape, generator=g, dtype=torch.float64).to(t) for t in (value, log_det)]
    total = (weights[0] * value).sum() + (weights[1] * log_det).sum()
    grads = torch.autograd.grad(total, tensors, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(t) if grad is None else grad for t, grad in zip(tensors, grads, strict=True)]


def compare(stage: Stage, x: Tensor, tensors: Sequence[Tensor], eps: float) -> None:
    done = Program([stage]).run(x)
    assert done is not None
    wanted = stage.plain(x, stage.records, 0)
    pairs = [*zip(done, wanted, strict=True)]
    pairs += zip(gradients(*done, tensors), gradients(*wanted, tensors), strict=True)
    for found, expected in pairs:
        scale = float(expected.detach().abs().max()) if expected.numel() else 0.0
        torch.testing.assert_close(found, expected, rtol=eps, atol=eps * (1 + scale))


@settings(max_examples=40)
@given(
    st.sampled_from(ACTIVATIONS), st.integers(1, 8), st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.integers(0, 2), st.sampled_from([0, 1, 63, 64, 130]), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_against_plain(
    activation, features: int, hidden: list[int], context: int, rows: int, ode: bool, seed: int
):
    for dtype, eps in ((torch.float64, 1e-13), (torch.float32, 3e-5)):
        net = net_of(features, hidden, context, activation, seed).to(dtype)
        x = torch.randn(rows, features, dtype=dtype, requires_grad=True)
        c = torch.randn(rows, context, dtype=dtype, requires_grad=True) if context else None
        stack, table = net.smooth_stack(c), torch.randn(7, hidden[0], dtype=dtype, requires_grad=True)
        assert stack is not None
        stage = (
            fields.transport(stack, table, 0.7, seed % 3 > 0) if ode else fields.residual(stack, 1e-12, 1000)
        )
        compare(stage, x, [x, *net.parameters(), *([table] if ode else []), *([] if c is None else [c])], eps)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_net_alone(activation: type[nets.Activation], seed: int):
    net = net_of(3, (8, 5), 2, activation, seed).double()
    x, c = (torch.randn(70, n, dtype=torch.float64, requires_grad=True) for n in (3, 2))
    value = net(x, c)
    wanted = net._forward(x, c)
    torch.testing.assert_close(value, wanted)
    tensors, none = [x, c, *net.parameters()], torch.zeros((), dtype=torch.float64)
    found = zip(gradients(value, none, tensors), gradients(wanted, none, tensors), strict=True)
    assert type(value.grad_fn).__name__ == "_RunBackward"
    for a, b in found:
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_activations_far_out(activation: type[nets.Activation], dtype: torch.dtype):
    """One unit, weights 1: the block is x + a(x) and its log-det log(1 + a'(x)), out to 1e6."""
    net = nets.SmoothMLP(1, 1, (1,), activation=activation).to(dtype)
    with torch.no_grad():
        for layer in net.layers:
            layer.weight.fill_(0.5)
            layer.bias.zero_()
    far = torch.logspace(-3, 6, 400, dtype=torch.float64)
    x = torch.cat([far, -far, torch.zeros(1)]).to(dtype).unsqueeze(1)
    y, log_det = Program([fields.residual(net.smooth_stack(), 1e-12, 1000)]).run(x)
    half = 0.5 * x.double()
    value, slope = net.activations[0].double().with_slope(half)
    eps = 8 * torch.finfo(dtype).eps
    assert ((y - x.double() - 0.5 * value).abs() <= eps * (1 + x.abs())).all()
    assert ((log_det - (0.25 * slope[:, 0]).log1p()).abs() <= eps * (1 + x.abs()[:, 0] * 1e-2)).all()


def test_transport_is_of_fourth_order_and_comes_back():
    net = net_of(2, (16,), 0, nets.Tanh, 0).double()
    x = torch.randn(50, 2, generator=generator(0), dtype=torch.float64)

    def run(steps: int, inverse: bool = False, start: Tensor = x) -> tuple[Tensor, Tensor]:
        times = torch.linspace(0, 1, 3 * steps + 1, dtype=torch.float64).unsqueeze(1)
        table = net.layers[0].bias + torch.sin(3 * times)
        with torch.no_grad():
            done = Program([fields.transport(net.smooth_stack(), table, 1.0)]).run(start, inverse=inverse)
        assert done is not None
        return done

    best = run(256)
    for i in range(2):
        errors = [float((run(steps)[i] - best[i]).abs().max()) for steps in (8, 16, 32)]
        assert 10 < errors[0] / errors[1] < 24, errors
        assert 10 < errors[1] / errors[2] < 24, errors
    back, log_det = run(256, inverse=True, start=best[0])
    assert (back - x).abs().max() < 1e-10
    assert (log_det + best[1]).abs().max() < 1e-10


def contractive_chain() -> Chain:
    torch.manual_seed(0)
    blocks = [Contractive(nets.LipschitzMLP(2, (8,), activation=nets.Sine, lipschitz=0.8)) for _ in range(2)]
    return randomize_(Chain([blocks[0], LU(2), blocks[1]]).double())


@pytest.mark.parametrize("features", [1, 2, 5, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_is_solved_and_certified(features: int, dtype: torch.dtype):
    """Beside the plain iteration, from blocks at their bound, on points near and far."""
    torch.manual_seed(features)
    layer = Contractive(nets.LipschitzMLP(features, (16, 16), lipschitz=0.97))
    with torch.no_grad():
        layer.net.layers[-1].weight.normal_()
    layer.net.project_()
    layer = layer.to(dtype)
    x = (torch.logspace(-3, 5, 130).unsqueeze(1) * torch.randn(130, features)).to(dtype)
    with torch.no_grad():
        y, log_det = layer(x)
        back, log_det_back = layer.inverse(y)
        with_plain = layer.pull(y)
    size = 1 + x.norm(dim=1)
    factor = torch.finfo(dtype).eps * 1e3 + (2e-8 if dtype == torch.float32 else 2e-11)
    assert ((back - x).norm(dim=1) <= factor * size / (1 - 0.97)).all()
    assert ((back - with_plain).norm(dim=1) <= (factor * size)).all()
    assert ((log_det_back + log_det).abs() <= 1e4 * factor * size).all()


def test_a_goal_that_is_missed_is_not_passed_over():
    net = net_of(2, (8,), 0, nets.Sine, 0).double()
    x = torch.randn(5, 2, dtype=torch.float64)
    with torch.no_grad():
        assert Program([fields.residual(net.smooth_stack(), 1e-12, 100)]).run(x, inverse=True) is not None
        assert Program([fields.residual(net.smooth_stack(), 1e-12, 1)]).run(x, inverse=True) is None


def test_weights_computed_from_parameters_are_computed_anew():
    """LipSwish's rate goes into the weights around it: a kept description would be of the old rate."""
    flow = Chain([Contractive(nets.LipschitzMLP(2, (8,))), LU(2)])
    with torch.no_grad():
        flow.parts[0].net.layers[-1].weight.fill_(0.1)
        x = torch.randn(5, 2)
        before = flow(x)[1].clone()
        flow.parts[0].net.activations[0].rate.add_(1.0)
        after = flow(x)[1]
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, flow.parts[0]._forward(x, None)[1])


def test_a_chain_of_blocks_is_one_call_and_so_is_its_inverse():
    chain = contractive_chain()
    x = torch.randn(70, 2, dtype=torch.float64, requires_grad=True)
    y, log_det = chain(x)
    assert type(y.grad_fn).__name__ == "_RunBackward"
    assert y.grad_fn is log_det.grad_fn
    back, log_det_back = chain.inverse(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_det_back, -log_det)
    z, other = Inverse(chain)(y.detach())
    torch.testing.assert_close(z, x)
    torch.testing.assert_close(other, -log_det)


def test_nan_stays_in_its_row():
    x = torch.randn(70, 2, dtype=torch.float64)
    x[3, 1] = torch.nan
    y, log_det = contractive_chain()(x)
    assert y[3].isnan().any()
    assert log_det[3].isnan()
    assert y[[*range(3), *range(4, 70)]].isfinite().all()


def test_second_derivatives_go_through_the_plain_meaning():
    chain = contractive_chain()
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda t: chain(t)[1], x)


def test_what_the_kernels_do_not_know_is_plain():
    assert nets.SmoothMLP(9, 9, (4,)).smooth_stack() is None  # more columns than tangents
    assert nets.SmoothMLP(2, 2, (4,), activation=nets.ELU).smooth_stack() is None
    assert nets.SmoothMLP(2, 2, ()).smooth_stack() is None
    roulette = Contractive(nets.LipschitzMLP(2, (4,)), RouletteLogDet())
    assert roulette.train().as_stages() is None
    assert roulette.eval().as_stages() is not None
