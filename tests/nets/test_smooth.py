"""Smooth nets: slopes, second derivatives and products with the Jacobian against autograd."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffeo import nets
from diffeo.functional.linearize import jacobian, linearize, trace
from diffeo.testing import randomize_

ACTIVATIONS = [nets.ELU, nets.LipSwish, nets.SiLU, nets.Sine, nets.Tanh]


@pytest.mark.parametrize("make", ACTIVATIONS)
def test_slope_and_curve(make: type[nets.Activation]):
    activation = make().double()
    h = torch.linspace(-6, 6, 400, dtype=torch.float64).requires_grad_()
    value, slope = activation.with_slope(h)
    torch.testing.assert_close(activation(h), value)
    wanted = torch.autograd.grad(activation(h).sum(), h, create_graph=True)[0]
    torch.testing.assert_close(slope, wanted)
    curve = torch.autograd.grad(slope.sum(), h, create_graph=True)[0]
    plain = h.detach().requires_grad_()
    low, high = activation(plain - 1e-4), activation(plain + 1e-4)
    torch.testing.assert_close(
        curve.detach(), ((high - 2 * activation(plain) + low) / 1e-8).detach(), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(activation.curve(h, value, slope), curve)
    assert slope.abs().max() <= activation.lipschitz
    assert torch.autograd.gradgradcheck(
        lambda t: activation.with_slope(t)[1], h[::40].detach().requires_grad_()
    )


@pytest.mark.parametrize("make", ACTIVATIONS)
def test_slope_is_bounded_everywhere(make: type[nets.Activation]):
    activation = make().double()
    if isinstance(activation, nets.LipSwish):
        nn.init.constant_(activation.rate, 3.0)
    h = torch.linspace(-50, 50, 1_000_001, dtype=torch.float64)
    assert activation.with_slope(h)[1].abs().max() <= activation.lipschitz
    assert activation.with_slope(h)[1].abs().max() > 0.9


@pytest.mark.parametrize("make", ACTIVATIONS)
def test_products_against_autograd(make: type[nets.Activation]):
    net = nets.SmoothMLP(
        3, 3, (8, 8), context_features=2, activation=make, reach=2.0 if make in ACTIVATIONS[:3] else 0.0
    )
    net = randomize_(net.double())
    x, c = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    value, product = linearize(net, x, c)
    plain, pull = linearize(lambda x, c: net(x, c), x, c)
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(jacobian(product, x), jacobian(pull, x).mT)
    torch.testing.assert_close(trace(product, x), trace(pull, x))
    wanted = torch.func.vmap(torch.func.jacrev(lambda p, q: net(p, q)))(x, c)
    torch.testing.assert_close(jacobian(product, x).mT, wanted)
