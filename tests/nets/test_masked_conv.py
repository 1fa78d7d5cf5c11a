"""Masked convolutions: against full ones with a mask, what they see, and neighboring levels told apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo.bijections import AutoregressiveTokens, Stepwise, Uncached
from diffeo.elementwise import PiecewiseLinear
from diffeo.errors import ShapeError
from diffeo.nets import MaskedConvNet
from diffeo.nets.masked_conv import _Causal
from diffeo.testing import randomize_
from diffeo.testing.points import generator

FULL = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=FULL)


def conv(height: int = 3, width: int = 4, params: int = 3, **options: Any) -> MaskedConvNet:
    torch.manual_seed(0)
    sizes = {"hidden": 8, "blocks": 2, "kernel": 3}
    return randomize_(MaskedConvNet(height, width, params, **(sizes | options)).double())


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kernel, dilation", [(1, 1), (3, 1), (3, 2), (5, 1)])
def test_a_causal_convolution_is_a_full_one_with_a_mask(kernel: int, dilation: int, strict: bool):
    made = randomize_(_Causal(2, 3, kernel, dilation, strict=strict).double())
    h = normal(2, 6, 7, 2)
    seen = made.places
    full = torch.zeros(3, 2, kernel * kernel, dtype=FULL)
    full[..., :seen] = made.weight.detach()
    middle = kernel * kernel // 2
    assert seen == (middle if strict else middle + 1)
    wanted = F.conv2d(
        h.movedim(-1, 1), full.unflatten(-1, (kernel, kernel)), made.bias,
        padding=dilation * (kernel // 2), dilation=dilation,
    )  # fmt: skip
    torch.testing.assert_close(made(h), wanted.movedim(1, -1))


@pytest.mark.parametrize("means", [False, True])
def test_means_over_rows_see_what_convolutions_do_not(means: bool):
    """Pixels at the upper right are beyond the convolutions, however many, and distant ones beyond few."""
    net = conv(8, 8, 1, blocks=2)
    if not means:
        for block in net.blocks:
            block.above.weight.data.zero_()
    x = normal(3, 64, 1).requires_grad_()
    (slope,) = torch.autograd.grad(net(x)[:, 7 * 8 + 3].square().sum(), x)
    seen = (slope.abs().sum((0, 2)) > 0).view(8, 8)
    assert not seen[7, 3:].any()
    if means:
        assert seen[:6].all()
    else:
        assert not any(seen[7 - up, 4 + up :].any() for up in range(1, 8))
        assert not seen[:3].any()


def test_positions_matter():
    """Away from the edges nothing but the bias of every pixel tells them apart."""
    net = conv(9, 9, 1, blocks=0)
    params = net(torch.zeros(1, 81, 1, dtype=FULL)).view(9, 9)
    assert (params[4, 4] - params[5, 4]).abs() > 1e-3


def test_levels_tell_neighbors_apart():
    """A pixel at either side of a level's end moves what comes after; within a level only its value does."""
    net = conv(levels=4)
    net.first.weight.data[:, 0] = 0  # the value itself
    x = torch.full((1, 12, 1), 0.1, dtype=FULL)
    inside, across, far = x.clone(), x.clone(), x.clone()
    inside[0, 5], across[0, 5], far[0, 5] = 0.2, -1e-9, -7.0
    assert torch.equal(net(inside), net(x))
    assert torch.equal(net(across)[:, :6], net(x)[:, :6])
    assert (net(across)[:, 6:] != net(x)[:, 6:]).any()
    far[0, 6] = 7.0
    assert net(far).isfinite().all()


def test_gradients_of_the_inverse_do_not_depend_on_the_cache():
    family = PiecewiseLinear(4)
    layer = AutoregressiveTokens(conv(2, 3, 4, context_shape=(2,)), family)
    y, context = torch.rand(2, 6, 1, generator=generator(0), dtype=FULL), normal(2, 2, seed=1)
    answers = []
    for sampler in (Stepwise(), Uncached()):
        inputs = [y.clone().requires_grad_(), context.clone().requires_grad_(), *layer.parameters()]
        found = layer.solve(inputs[0], inputs[1], sampler)
        total = (found.x * normal(*y.shape, seed=2)).sum() + found.log_det.sum()
        answers.append([total, *torch.autograd.grad(total, inputs)])
    for found, wanted in zip(*answers, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_parameters_are_not_copied():
    """They are the largest tensor by far: the output layer's own memory, pixel by pixel."""
    net, x = conv(), normal(2, 12, 1)
    params = net(x)
    assert params.is_contiguous()
    assert params._base is not None


def test_contexts_that_cannot_be():
    with pytest.raises(ShapeError, match="neither a vector"):
        MaskedConvNet(3, 3, 2, 8, context_shape=(2, 2))
