"""Layers of images beside what they are said to be, computed another way."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo.bases import Normal
from diffeo.bijections import (
    LU,
    ActNorm,
    Chain,
    Dense,
    Exp,
    Haar,
    ImageCoupling,
    Multiscale,
    OnChannels,
    Reversible,
    Squeeze,
    channel_mask,
    checkerboard,
)
from diffeo.elementwise import Affine, Mixed, PiecewiseLinear
from diffeo.errors import ConfigError, DomainError, ShapeError
from diffeo.flow import Flow
from diffeo.nets import ConvNet, ResidualConvNet
from diffeo.testing import randomize_


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- squeezing ------------------------------------------------------------------------------------


def test_squeeze_puts_every_value_where_it_says():
    x = images(3, 4, 6)
    y, log_det = Squeeze((3, 4, 6))(x)
    assert log_det == 0
    for c in range(3):
        for i in range(4):
            for j in range(6):
                channel = ((i % 2) * 2 + j % 2) * 3 + c
                assert y[channel, i // 2, j // 2] == x[c, i, j]


def test_squeeze_is_a_convolution_with_its_block():
    x = images(5, 2, 6, 9)
    y, _ = Squeeze((2, 6, 9), 3)(x)
    reference = F.pixel_unshuffle(x, 3).unflatten(1, (2, 9)).transpose(1, 2).flatten(1, 2)
    assert torch.equal(y, reference)


@pytest.mark.parametrize(
    "shape, block, says", [((1, 7, 8), 2, "8 x 8"), ((1, 6, 4), 4, "8 x 4"), ((1, 28, 7), 2, "28 x 8")]
)
def test_sizes_that_squares_do_not_fill(shape: tuple[int, int, int], block: int, says: str):
    with pytest.raises(ShapeError, match=says):
        Squeeze(shape, block)


def test_haar_is_orthogonal_and_starts_with_the_mean():
    layer = Haar((2, 4, 4))
    matrix = torch.autograd.functional.jacobian(lambda x: layer(x)[0].flatten(), images(2, 4, 4)).flatten(1)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(32, dtype=torch.float64))
    x = images(2, 4, 4)
    torch.testing.assert_close(layer(x)[0][:2], 2 * F.avg_pool2d(x, 2))
    with pytest.raises(ShapeError, match="pad or crop"):
        Haar((1, 3, 4))


# -- channels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [LU, Dense])
def test_a_linear_map_of_channels_is_a_1_x_1_convolution(kind: type[LU] | type[Dense]):
    layer = randomize_(OnChannels(kind(3), (3, 4, 5)).double(), scale=0.4)
    weight = torch.autograd.functional.jacobian(lambda v: layer.bijection(v)[0], torch.zeros(3).double())
    assert isinstance(layer.bijection.bias, Tensor)
    x = images(2, 3, 4, 5)
    y, log_det = layer(x)
    torch.testing.assert_close(y, F.conv2d(x, weight[:, :, None, None], layer.bijection.bias))
    torch.testing.assert_close(log_det, 20 * torch.linalg.slogdet(weight)[1].expand(2))


def test_a_dense_matrix_may_reflect():
    layer = Dense(2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 2.0], [3.0, 0.0]]))
    y, log_det = layer(torch.tensor([1.0, 1.0]))
    assert y.tolist() == [2.0, 3.0]
    assert log_det.item() == pytest.approx(math.log(6))
    assert layer.inverse(y)[0].tolist() == [1.0, 1.0]


def test_activation_normalization_of_channels():
    x = 3 * images(50, 2, 4, 4) + torch.tensor([1.0, -2.0])[:, None, None]
    layer = OnChannels(ActNorm((2,)), (2, 4, 4)).double()
    layer.initialize(x)
    y, _ = layer(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(2).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.ones(2).double(), atol=1e-5, rtol=0)


def test_bijections_that_are_not_of_channels():
    with pytest.raises(ShapeError, match="3 channels"):
        OnChannels(LU(2), (3, 4, 4))
    conditional = ImageCoupling(channel_mask(2), ConvNet((1, 1, 1), 2, 4, context_shape=(1,)), Affine())
    with pytest.raises(ShapeError):
        OnChannels(conditional, (2, 4, 4))


# -- couplings ------------------------------------------------------------------------------------


def test_masks():
    assert checkerboard(2, 3).int().tolist() == [[[1, 0, 1], [0, 1, 0]]]
    assert torch.equal(checkerboard(3, 3, odd=True), ~checkerboard(3, 3))
    assert channel_mask(5).flatten().tolist() == [True, True, False, False, False]
    assert channel_mask(4, 3).flatten().tolist() == [True, True, True, False]


@pytest.mark.parametrize("mask", [channel_mask(3), ~channel_mask(3), checkerboard(4, 4)], ids=["c", "C", "b"])
def test_only_what_passes_is_seen_and_only_the_rest_changes(mask: Tensor):
    by_channel = mask.shape[1:] == (1, 1)
    seen = int(mask.sum()) if by_channel else 3
    net = ConvNet((seen, 4, 4), 2 * ((3 - seen) if by_channel else 3), 8)
    layer = randomize_(ImageCoupling(mask, net, Affine()).double(), scale=0.3)
    x = images(3, 4, 4)
    matrix = torch.autograd.functional.jacobian(lambda x: layer(x)[0].flatten(), x).flatten(1)
    passes = mask.expand(3, 4, 4).flatten()
    torch.testing.assert_close(layer(x)[0].flatten()[passes], x.flatten()[passes])
    # what changes depends on itself and on what passes
    within = matrix[~passes][:, ~passes]
    assert (within - within.diag().diag()).abs().max() == 0
    assert matrix[~passes][:, passes].abs().max() > 0
    torch.testing.assert_close(layer(x)[1], torch.linalg.slogdet(matrix)[1])


def test_sizes_of_a_coupling_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"in_shape=\(1, 4, 4\), out_shape=\(4, 4, 4\)"):
        ImageCoupling(channel_mask(3), ConvNet((1, 4, 4), 3, 4), Affine())
    with pytest.raises(ShapeError, match="does not fit a net on images"):
        ImageCoupling(checkerboard(4, 5), ConvNet((1, 4, 4), 2, 4), Affine())
    with pytest.raises(ConfigError, match="everything"):
        ImageCoupling(torch.ones(2, 1, 1), ConvNet((2, 4, 4), 2, 4), Affine())
    mixed = Mixed([Affine(), PiecewiseLinear(4)] * 2)
    with pytest.raises(ShapeError, match="for each column"):
        ImageCoupling(channel_mask(4), ConvNet((2, 4, 4), 2 * mixed.num_params, 4), mixed)


@pytest.mark.parametrize("net", [ConvNet, ResidualConvNet])
def test_contexts_of_nets(net: type[ConvNet] | type[ResidualConvNet]):
    x = images(2, 1, 4, 6)
    vector = randomize_(net((1, 4, 6), 2, 8, context_shape=(3,)).double(), scale=0.3)
    image = randomize_(net((1, 4, 6), 2, 8, context_shape=(1, 8, 12)).double(), scale=0.3)
    given = images(2, 3, seed=1)
    assert not torch.equal(vector(x, given), vector(x, given.flip(0)))
    picture = images(2, 1, 8, 12, seed=1)
    changed = picture.clone()
    changed[:, :, :2, :2] += 1  # the first pixel of the net's size
    moved = (image(x, changed) - image(x, picture)).abs().amax((0, 1)) > 0
    assert moved[0, 0]
    assert not moved[3, 5]
    with pytest.raises(ShapeError, match="neither a vector"):
        net((1, 4, 4), 2, 8, context_shape=(3, 3))


# -- levels ---------------------------------------------------------------------------------------


def test_levels_are_the_layers_one_after_the_other():
    first, second = OnChannels(LU(4), (4, 2, 2)), OnChannels(LU(8), (8, 1, 1))
    flow = Multiscale([Chain([Squeeze((1, 4, 4)), first]), Chain([Squeeze((2, 2, 2)), second])])
    randomize_(flow.double(), scale=0.4)
    x = images(3, 1, 4, 4)
    z, log_det = flow(x)
    h = first(Squeeze((1, 4, 4))(x)[0])
    top = second(Squeeze((2, 2, 2))(h[0][:, :2])[0])
    leaves, stays = flow.split(z)
    torch.testing.assert_close(leaves, h[0][:, 2:])
    torch.testing.assert_close(stays, top[0])
    torch.testing.assert_close(log_det, h[1] + top[1])
    assert torch.equal(flow.join([leaves, stays]), z)
    matrix = torch.autograd.functional.jacobian(lambda x: flow(x)[0], x[0]).flatten(1)
    torch.testing.assert_close(log_det[0], torch.linalg.slogdet(matrix)[1])


def test_a_learned_prior_of_what_leaves_is_a_coupling_before_it():
    """``log N(z') + log|det|`` is the density of a normal whose mean and scale the rest gives."""
    net = randomize_(ConvNet((2, 2, 2), 4, 8).double(), scale=0.3)
    level = Chain([Squeeze((1, 4, 4)), ImageCoupling(channel_mask(4, 2), net, Affine())])
    flow = Flow(Multiscale([level, OnChannels(LU(2), (2, 2, 2))]).double(), Normal((16,)).double())
    x = images(1, 4, 4)
    stays, leaves = Squeeze((1, 4, 4))(x)[0].split(2)
    raw = net(stays).unflatten(0, (2, 2))
    shift, log_scale = raw[:, 0], raw[:, 1] / (1 + raw[:, 1].abs() / math.log(1000))
    prior = torch.distributions.Normal(-shift / log_scale.exp(), (-log_scale).exp())
    expected = prior.log_prob(leaves).sum() + torch.distributions.Normal(0, 1).log_prob(stays).sum()
    torch.testing.assert_close(flow.log_prob(x), expected)


def test_levels_that_do_not_fit():
    squeeze = Squeeze((1, 4, 4))
    with pytest.raises(ShapeError, match=r"level 0 lets \(2, 2, 2\) stay, but level 1 takes \(4, 2, 2\)"):
        Multiscale([squeeze, OnChannels(LU(4), (4, 2, 2))])
    with pytest.raises(ConfigError, match="keep between 1 and 3"):
        Multiscale([squeeze, OnChannels(LU(4), (4, 2, 2))], [4])
    with pytest.raises(ConfigError, match="at least one level"):
        Multiscale([])
    with pytest.raises(ConfigError, match="keep has 2 numbers"):
        Multiscale([squeeze, OnChannels(LU(2), (2, 2, 2))], [1, 1])
    given = [
        ImageCoupling(checkerboard(2, 2), ConvNet((c, 2, 2), 2 * c, 4, context_shape=(n,)), Affine())
        for c, n in ((2, 3), (1, 4))
    ]
    with pytest.raises(ShapeError, match=r"different contexts: \[\(3,\), \(4,\)\]"):
        Multiscale(given)
    with pytest.raises(ShapeError, match="levels are of images"):
        Multiscale([LU(3)])
    with pytest.raises(DomainError, match="one interval"):
        Multiscale([OnChannels(Exp((2,)), (2, 2, 2)), OnChannels(LU(1), (1, 2, 2))])


def test_levels_in_reversible_memory_give_the_same_gradients():
    def flow(reversible: bool) -> Multiscale:
        torch.manual_seed(0)
        net = ConvNet((2, 4, 4), 4, 8)
        coupling = ImageCoupling(channel_mask(4), net, Affine())
        level = Chain([Squeeze((1, 8, 8)), OnChannels(LU(4), (4, 4, 4)), coupling])
        levels = [level, OnChannels(LU(2), (2, 4, 4))]
        return randomize_(Multiscale([Reversible(x) for x in levels] if reversible else levels).double())

    x = images(5, 1, 8, 8)
    grads = []
    for reversible in (False, True):
        kind = flow(reversible)
        z, log_det = kind(x)
        (z.square().sum() - log_det.sum()).backward()
        grads.append(torch.cat([p.grad.flatten() for p in kind.parameters()]))
    torch.testing.assert_close(*grads)
