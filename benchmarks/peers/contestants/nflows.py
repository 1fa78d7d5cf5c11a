"""nflows: its MADE with one feedforward block, and couplings around a plain MLP."""

from __future__ import annotations

from functools import partial

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms.autoregressive import (
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
)
from nflows.transforms.base import CompositeTransform
from nflows.transforms.coupling import AffineCouplingTransform, PiecewiseRationalQuadraticCouplingTransform
from nflows.transforms.permutations import ReversePermutation

from peers.architecture import BINS, BOUND, HIDDEN, LAYERS, Spec
from peers.contestants.on_torch import OnTorch, Perceptron


def build(spec: Spec) -> OnTorch:
    box = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND} if spec.spline else {}
    parts = []
    for layer in range(LAYERS):
        if spec.coupling:
            kind = PiecewiseRationalQuadraticCouplingTransform if spec.spline else AffineCouplingTransform
            changing = ~torch.tensor(spec.passing(layer))
            parts.append(kind(changing.int(), partial(Perceptron, hidden=HIDDEN), **box))
        else:
            kind = (
                MaskedPiecewiseRationalQuadraticAutoregressiveTransform
                if spec.spline
                else MaskedAffineAutoregressiveTransform
            )
            parts += [ReversePermutation(spec.features)] if layer else []
            parts.append(
                kind(
                    features=spec.features,
                    hidden_features=HIDDEN[0],
                    num_blocks=len(HIDDEN) - 1,
                    use_residual_blocks=False,
                    **box,
                )
            )
    flow = Flow(CompositeTransform(parts), StandardNormal((spec.features,)))
    return OnTorch(spec.shape, flow, flow.log_prob, flow.sample)
