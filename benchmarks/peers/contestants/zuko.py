"""zuko: masked MLPs, and for couplings its own coupling layer."""

from __future__ import annotations

from functools import partial

import torch
import zuko
from torch import Tensor, nn
from zuko.flows.autoregressive import MAF
from zuko.flows.continuous import CNF
from zuko.flows.coupling import RealNVP

from peers.architecture import BINS, BOUND, FREQUENCIES, HIDDEN, LAYERS, TOLERANCE, Spec
from peers.contestants.on_torch import OnTorch
from peers.contestants.weights import field_weights


def build(spec: Spec) -> OnTorch:
    options = {"transforms": LAYERS, "hidden_features": HIDDEN}
    if spec.spline:
        options["univariate"] = partial(zuko.transforms.MonotonicRQSTransform, bound=BOUND)
        options["shapes"] = [(BINS,), (BINS,), (BINS - 1,)]
    flow = (RealNVP if spec.coupling else MAF)(spec.features, **options)
    note = ""
    if spec.coupling:
        note = "the coupling layer with a plain MLP; `passes=2` of the masked layer does more work"
    return _contestant(spec, flow, note)


def continuous(spec: Spec) -> OnTorch:
    flow = CNF(
        spec.features,
        freqs=FREQUENCIES,
        atol=TOLERANCE,
        rtol=TOLERANCE,
        exact=True,
        hidden_features=HIDDEN,
        activation=nn.Tanh,
    )
    layers = [layer for layer in flow.transform.ode if not isinstance(layer, nn.Tanh)]
    with torch.no_grad():
        for layer, (weight, bias) in zip(layers, field_weights(spec), strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
    note = "the tolerance is of each step; the absolute one of the log-determinant is 100 times as large"
    return _contestant(spec, flow, note)


def _contestant(spec: Spec, flow: zuko.lazy.Flow, note: str) -> OnTorch:
    def log_prob(x: Tensor) -> Tensor:
        return flow().log_prob(x)

    def sample(n: int) -> Tensor:
        return flow().sample((n,))

    def round_trip(z: Tensor) -> Tensor:
        transform = flow().transform
        return transform(transform.inv(z))

    return OnTorch(spec.shape, flow, log_prob, sample, round_trip=round_trip, note=note)
