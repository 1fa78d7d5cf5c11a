"""nflows: its MADE with one feedforward block, and couplings around a plain MLP or its own residual net."""

from __future__ import annotations

import math
from functools import partial

import torch
from nflows import transforms as t
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.nn.nets import ConvResidualNet, ResidualNet
from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline
from torch import nn

from peers.features import Seen
from peers.features import on_torch as probes
from peers.libraries.on_torch import OnTorch, Perceptron, copy
from peers.spec import BINS, BOUND, Spec

BOX = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}
UNIT_SLOPE = math.log(math.expm1(1 - 1e-3))
"""What it adds to the parameters of no slope, and diffeo to those of all: zero means slope one there."""


def build(spec: Spec) -> OnTorch:
    box = BOX if spec.spline else {}
    context = spec.context or None
    net = partial(Perceptron, hidden=spec.hidden)
    if spec.usual:
        sizes = {"hidden_features": spec.hidden[0], "context_features": context}
        net = partial(ResidualNet, num_blocks=len(spec.hidden), **sizes)
    masked = {"hidden_features": spec.hidden[0], "context_features": context}
    masked |= {"num_blocks": len(spec.hidden) - 1, "use_residual_blocks": False}
    parts = []
    for layer in range(spec.layers):
        if spec.coupling:
            kinds = t.AffineCouplingTransform, t.PiecewiseRationalQuadraticCouplingTransform
            changing = ~torch.tensor(spec.passing(layer))
            parts.append(kinds[spec.spline](changing.int(), net, **box))
        else:
            affine = t.MaskedAffineAutoregressiveTransform
            kinds = affine, t.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
            parts += [t.ReversePermutation(spec.features)] if layer else []
            parts.append(kinds[spec.spline](spec.features, **masked, **box))
    flow = Flow(t.CompositeTransform(parts), StandardNormal((spec.features,)))
    return OnTorch(spec, flow, flow.log_prob, flow.sample, latent=flow.transform_to_noise)


def port(flow: Flow) -> list:
    """Spline couplings around residual nets, in their order."""
    return [spline_coupling(layer) for layer in flow._transform._transforms]


def spline_coupling(layer: nn.Module):
    """The mask negated; logits of widths and heights over sqrt(hidden); slopes from zero."""
    from diffeo.bijections import Coupling
    from diffeo.elementwise import RationalQuadratic
    from diffeo.nets import ResidualMLP

    mask = [i in layer.identity_features.tolist() for i in range(layer.features)]
    family, theirs = RationalQuadratic(BINS, BOUND), layer.transform_net
    hidden, given = theirs.hidden_features, (len(mask) - sum(mask)) * family.num_params
    net = ResidualMLP(sum(mask), given, hidden, len(theirs.blocks))
    blocks = [linear for block in theirs.blocks for linear in block.linear_layers]
    own = [net.input, *(linear for block in net.blocks for linear in block), net.output]
    copy([theirs.initial_layer, *blocks, theirs.final_layer], own)
    with torch.no_grad():
        for parameter in net.output.parameters():
            rows = parameter.view(-1, family.num_params, *parameter.shape[1:])
            rows[:, : 2 * BINS] /= math.sqrt(hidden)
        net.output.bias.view(-1, family.num_params)[:, 2 * BINS :] -= UNIT_SLOPE
    return Coupling(mask, net, family)


# -- probes -------------------------------------------------------------------------------------------


def _images() -> Seen:
    def level(channels: int) -> t.Transform:
        mask = [i % 2 for i in range(channels)]
        coupling = t.AffineCouplingTransform(mask, lambda n, m: ConvResidualNet(n, m, 8, num_blocks=1))
        return t.CompositeTransform([t.SqueezeTransform(), coupling])

    flow, x = t.MultiscaleCompositeTransform(2), torch.randn(2, 3, 8, 8)
    hidden = flow.add_transform(level(12), (12, 4, 4))
    flow.add_transform(level(hidden[0] * 4), (hidden[0] * 4, 2, 2))
    return probes.close(flow.inverse(flow(x)[0])[0], x, "`MultiscaleCompositeTransform`")


PROBES = {
    "stress": lambda: probes.round_trips_of(unconstrained_rational_quadratic_spline),
    "images": _images,
    "targets": probes.BY_HAND,
    "vae": probes.BY_HAND,
}
