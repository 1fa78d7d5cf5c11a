"""diffeo, built by hand from public parts; eager and compiled."""

from __future__ import annotations

import torch

from diffeo import Flow, kernels
from diffeo.bases import Normal
from diffeo.bijections import Autoregressive, Chain, Coupling, Reverse
from diffeo.bijections.base import Bijection
from diffeo.elementwise import Affine, RationalQuadratic
from diffeo.nets import MADE, MLP
from peers.architecture import BINS, BOUND, HIDDEN, LAYERS, Spec
from peers.contestants.on_torch import OnTorch


def about() -> dict[str, str]:
    """Which of its code paths this machine takes."""
    return {"diffeo.kernels": kernels.describe().removeprefix("kernels: ")}


def flow_of(spec: Spec) -> Flow:
    """The flow; its output layers leave zero, as after some training."""
    family = RationalQuadratic(BINS, BOUND) if spec.spline else Affine()
    parts: list[Bijection] = []
    for layer in range(LAYERS):
        if spec.coupling:
            mask = spec.passing(layer)
            changing = spec.features - sum(mask)
            parts.append(Coupling(mask, MLP(sum(mask), changing * family.num_params, HIDDEN), family))
        else:
            parts += [Reverse(spec.features)] if layer else []
            parts.append(Autoregressive(MADE(spec.features, family.num_params, HIDDEN), family))
    flow = Flow(Chain(parts), Normal((spec.features,)))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return flow


def build(spec: Spec) -> OnTorch:
    flow = flow_of(spec)
    return OnTorch(spec.features, flow, flow.log_prob, flow.sample)


def build_compiled(spec: Spec) -> OnTorch:
    torch._dynamo.reset()
    flow = flow_of(spec)
    return OnTorch(spec.features, flow, torch.compile(flow, dynamic=False), flow.sample, compiles=True)
