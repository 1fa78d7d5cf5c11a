"""Trained weights carried over: the same numbers in theirs and in ours give the same density.

What has to change on the way is what docs/migrating.md says: order of layers, layout and scale of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from diffeo import Flow, bases
from diffeo.bijections import Bijection, Chain, Coupling, Inverse, OnColumns, Pointwise
from diffeo.elementwise import Affine, RationalQuadratic
from diffeo.nets import MLP, ResidualMLP

FEATURES, BINS, BOUND, HIDDEN = 4, 5, 3.0, 16
X = 1.5 * torch.randn(200, FEATURES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
UNIT_SLOPE = math.log(math.expm1(1 - 1e-3))
"""What nflows adds to the parameters of no slope, and diffeo to those of all: zero means slope one here."""


@pytest.fixture(autouse=True)
def float64():
    """Weights keep their digits on the way."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def stir(module: nn.Module, by: float = 0.3) -> None:
    """Weights as after training, far from the start."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by * torch.randn_like(parameter))


def check(flow: Flow, theirs: Tensor) -> None:
    assert theirs.std() > 0.5
    torch.testing.assert_close(flow.log_prob(X), theirs, rtol=0, atol=1e-5)


def flow_of(parts: Sequence[Bijection]) -> Flow:
    return Flow(Chain(parts), bases.Normal((FEATURES,)))


# -- zuko ---------------------------------------------------------------------------------------------


def test_zukos_affine_couplings():
    """Nothing changes: the same mask, [shift, scale], the same soft clip of the log-scale at log 1000."""
    import zuko

    theirs = zuko.flows.RealNVP(FEATURES, transforms=3, hidden_features=(HIDDEN, HIDDEN), randmask=True)
    stir(theirs)
    family, parts = Affine(), []
    for layer in theirs.transform.transforms:
        mask = layer.mask.tolist()
        net = MLP(sum(mask), (FEATURES - sum(mask)) * 2, (HIDDEN, HIDDEN))
        copy(layer.hyper, [*net.layers, net.output])
        parts.append(Coupling(mask, net, family))
    check(flow_of(parts), theirs().log_prob(X))


def test_zukos_splines():
    """The same knots and slopes; the logits differ, since zuko bounds them and diffeo bounds the bins."""
    import zuko

    logits = torch.randn(FEATURES, 3 * BINS - 1)
    theirs = zuko.transforms.MonotonicRQSTransform(*logits.split([BINS, BINS, BINS - 1], -1), bound=BOUND)
    params = torch.cat(
        [
            _logits(theirs.horizontal.diff(dim=-1) / (2 * BOUND)),
            _logits(theirs.vertical.diff(dim=-1) / (2 * BOUND)),
            torch.log(torch.expm1(theirs.derivatives[..., 1:-1] - 1e-3)) - UNIT_SLOPE,
        ],
        -1,
    )
    y, log_slope = RationalQuadratic(BINS, BOUND).forward(X, params.expand(len(X), -1, -1))
    torch.testing.assert_close(y, theirs(X), rtol=0, atol=1e-5)
    torch.testing.assert_close(log_slope, theirs.log_abs_det_jacobian(X, y), rtol=0, atol=1e-5)


def _logits(fractions: Tensor) -> Tensor:
    """Those of diffeo, which gives every bin 1/1000 of the box and shares the rest."""
    return ((fractions - 1e-3) / (1 - BINS * 1e-3)).log()


# -- nflows -------------------------------------------------------------------------------------------


def test_nflows_spline_couplings():
    """The mask negated; logits of widths and heights over sqrt(hidden); slopes from zero."""
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow as Theirs
    from nflows.nn.nets import ResidualNet
    from nflows.transforms import CompositeTransform, PiecewiseRationalQuadraticCouplingTransform

    layers = [
        PiecewiseRationalQuadraticCouplingTransform(
            [1, 0, 1, 0] if k % 2 else [0, 1, 0, 1],
            lambda n, m: ResidualNet(n, m, hidden_features=HIDDEN),
            num_bins=BINS,
            tails="linear",
            tail_bound=BOUND,
        )
        for k in range(3)
    ]
    theirs = Theirs(CompositeTransform(layers), StandardNormal([FEATURES]))
    stir(theirs)
    check(flow_of([spline_coupling(layer) for layer in layers]), theirs.log_prob(X))


def spline_coupling(layer: nn.Module) -> Coupling:
    """diffeo's for nflows' layer, or normflows' copy of it."""
    mask = [i in layer.identity_features.tolist() for i in range(FEATURES)]
    family, theirs = RationalQuadratic(BINS, BOUND), layer.transform_net
    net = ResidualMLP(sum(mask), (FEATURES - sum(mask)) * family.num_params, HIDDEN, len(theirs.blocks))
    blocks = [linear for block in theirs.blocks for linear in block.linear_layers]
    ours = [net.input, *(linear for block in net.blocks for linear in block), net.output]
    copy([theirs.initial_layer, *blocks, theirs.final_layer], ours)
    with torch.no_grad():
        for parameter in net.output.parameters():
            rows = parameter.view(-1, family.num_params, *parameter.shape[1:])
            rows[:, : 2 * BINS] /= math.sqrt(HIDDEN)
        net.output.bias.view(-1, family.num_params)[:, 2 * BINS :] -= UNIT_SLOPE
    return Coupling(mask, net, family)


# -- normflows ----------------------------------------------------------------------------------------


def test_normflows_affine_couplings():
    """The list reversed, each layer inverted; two nets become one; the log-scale has no bound there."""
    import normflows as nf

    masks = [torch.tensor(m) for m in ([1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0])]
    nets = [nf.nets.MLP([FEATURES, HIDDEN, FEATURES], init_zeros=False) for _ in range(6)]
    layers = [nf.flows.MaskedAffineFlow(masks[k % 2], nets[2 * k], nets[2 * k + 1]) for k in range(3)]
    theirs = nf.NormalizingFlow(nf.distributions.DiagGaussian(FEATURES, trainable=False), layers)
    stir(theirs, 0.1)  # scales beyond 1000 cannot be carried over
    parts = []
    for layer in reversed(layers):
        mask = layer.b[0].bool()
        parts.append(Inverse(Coupling(mask.tolist(), ShiftAndScale(layer, mask), Affine())))
    check(flow_of(parts), theirs.log_prob(X))


class ShiftAndScale(nn.Module):
    """The two nets of a layer, which see every column, the changing ones as zeros."""

    context_features = 0

    def __init__(self, layer: nn.Module, mask: Tensor):
        super().__init__()
        self.shift, self.log_scale, self.mask = layer.t, layer.s, mask
        self.in_features, self.out_features = int(mask.sum()), 2 * int((~mask).sum())

    def forward(self, passing: Tensor, context: Tensor | None = None) -> Tensor:
        x = passing.new_zeros(*passing.shape[:-1], len(self.mask))
        x[..., self.mask] = passing
        shift, log_scale = (net(x)[..., ~self.mask] for net in (self.shift, self.log_scale))
        raw = log_scale / (1 - log_scale.abs() / math.log(1000))  # what Affine bounds again
        return torch.stack([shift, raw], -1).flatten(-2)


def test_normflows_spline_couplings():
    """As nflows' own, and a spline besides for the columns that pass."""
    import normflows as nf

    layers = [
        nf.flows.CoupledRationalQuadraticSpline(
            FEATURES, 2, HIDDEN, num_bins=BINS, tail_bound=BOUND, reverse_mask=bool(k % 2)
        )
        for k in range(3)
    ]
    theirs = nf.NormalizingFlow(nf.distributions.DiagGaussian(FEATURES, trainable=False), layers)
    stir(theirs)
    parts: list[Bijection] = []
    for layer in reversed(layers):  # `inverse` of their layer runs the spline forward
        coupling = layer.prqct
        alone, passing = coupling.unconditional_transform, coupling.identity_features.tolist()
        family = RationalQuadratic(BINS, BOUND)
        spline = Pointwise(family, (len(passing),))
        weights = alone.unnormalized_widths, alone.unnormalized_heights, alone.unnormalized_derivatives
        raw = torch.cat([weights[0], weights[1], weights[2] - UNIT_SLOPE], -1)
        with torch.no_grad():
            spline.params.copy_(raw)
        parts += [spline_coupling(coupling), OnColumns(passing, spline, FEATURES)]
    check(flow_of(parts), theirs.log_prob(X))


# -- all ----------------------------------------------------------------------------------------------


def copy(theirs: Sequence[nn.Module], ours: Sequence[nn.Module]) -> None:
    """Weights and biases of linear layers, in order."""
    linears = [layer for layer in theirs if not isinstance(layer, nn.ReLU)]
    assert len(linears) == len(ours)
    assert all(a.weight.shape[0] == b.weight.shape[1] for a, b in pairwise(linears))
    with torch.no_grad():
        for a, b in zip(linears, ours, strict=True):
            b.weight.copy_(a.weight)
            b.bias.copy_(a.bias)
