"""zuko: masked MLPs, and for couplings its own coupling layer."""

from __future__ import annotations

from functools import partial

import zuko
from torch import Tensor
from zuko.flows.autoregressive import MAF
from zuko.flows.coupling import RealNVP

from peers.architecture import BINS, BOUND, HIDDEN, LAYERS, Spec
from peers.contestants.on_torch import OnTorch


def build(spec: Spec) -> OnTorch:
    options = {"transforms": LAYERS, "hidden_features": HIDDEN}
    if spec.spline:
        options["univariate"] = partial(zuko.transforms.MonotonicRQSTransform, bound=BOUND)
        options["shapes"] = [(BINS,), (BINS,), (BINS - 1,)]
    flow = (RealNVP if spec.coupling else MAF)(spec.features, **options)
    note = ""
    if spec.coupling:
        note = "the coupling layer with a plain MLP; `passes=2` of the masked layer does more work"

    def log_prob(x: Tensor) -> Tensor:
        return flow().log_prob(x)

    def sample(n: int) -> Tensor:
        return flow().sample((n,))

    return OnTorch(spec.features, flow, log_prob, sample, note=note)
