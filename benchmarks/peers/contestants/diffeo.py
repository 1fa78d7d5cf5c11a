"""diffeo, built by hand from public parts; eager and compiled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from diffeo import Flow, kernels
from diffeo.bases import Normal
from diffeo.bijections import (
    Adaptive,
    Autoregressive,
    Chain,
    Continuous,
    Contractive,
    Coupling,
    Reverse,
    RouletteLogDet,
)
from diffeo.bijections.base import Bijection
from diffeo.elementwise import Affine, RationalQuadratic
from diffeo.nets import MADE, MLP, LipschitzMLP, Tanh, VelocityMLP
from diffeo.presets import Glow
from diffeo.train.optimizer import FlatAdamW
from peers.architecture import (
    BINS,
    BOUND,
    CHANNELS,
    FREQUENCIES,
    HIDDEN,
    LAYERS,
    LEARNING_RATE,
    LEVELS,
    LIPSCHITZ,
    STEPS,
    TOLERANCE,
    Spec,
)
from peers.contestants.on_torch import OnTorch
from peers.contestants.weights import field_weights, fit_contractions


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


class Ours(OnTorch):
    """The training step is that of ``diffeo.fit``: clipping and the running mean of the weights included."""

    def prepare(self, kind: str, batch: int) -> Callable[[], Tensor]:
        run = super().prepare(kind, batch)
        if kind != "train":
            return run
        x = torch.randn(batch, *self.shape, generator=torch.Generator().manual_seed(batch))

        def train() -> Tensor:
            self.flat.zero_grad()
            loss = -self.log_prob(x).mean()
            loss.backward()
            self.flat.gather()
            self.flat.step(LEARNING_RATE, decay=0.999)
            return loss.detach()

        return train

    @cached_property
    def flat(self) -> FlatAdamW:
        """The optimizer of ``diffeo.fit``."""
        mean = copy.deepcopy(self.module)
        return FlatAdamW(list(self.module.parameters()), list(mean.parameters()), weight_decay=1e-4, clip=5.0)


def build(spec: Spec) -> OnTorch:
    flow = flow_of(spec)
    return Ours(spec.shape, flow, flow.log_prob, flow.sample)


def residual(spec: Spec) -> OnTorch:
    nets = [LipschitzMLP(spec.features, HIDDEN, lipschitz=LIPSCHITZ) for _ in range(LAYERS)]
    fit_contractions(nets, spec.features, lambda net: net.project_())
    flow = Flow(Chain([Contractive(net, RouletteLogDet()) for net in nets]), Normal((spec.features,)))
    return _both_ways(spec, flow)


def continuous(spec: Spec) -> OnTorch:
    """In training and in evaluation with the solver that holds a tolerance."""
    solver = Adaptive(TOLERANCE)
    layer = Continuous(_field(spec), solver, solver, waves=FREQUENCIES)
    return _both_ways(spec, Flow(layer, Normal((spec.features,))))


def continuous_by_default(spec: Spec) -> OnTorch:
    layer = Continuous(_field(spec), waves=FREQUENCIES)
    note = f"training by {layer.solver}, evaluation by {layer.evaluation}"
    return _both_ways(spec, Flow(layer, Normal((spec.features,))), note)


def _field(spec: Spec) -> VelocityMLP:
    net = VelocityMLP(spec.features, spec.features, HIDDEN, context_features=2 * FREQUENCIES, activation=Tanh)
    (first, first_bias), *others = field_weights(spec)
    time, space = first.split([2 * FREQUENCIES, spec.features], 1)
    assert net.of_context is not None
    with torch.no_grad():
        net.of_context.weight.copy_(time)
        for layer, (weight, bias) in zip(net.layers, [(space, first_bias), *others], strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
    return net


def _both_ways(spec: Spec, flow: Flow, note: str = "") -> OnTorch:
    def round_trip(z: Tensor) -> Tensor:
        return flow.to_latent(flow.to_data(z))

    return Ours(spec.shape, flow, flow.log_prob, flow.sample, round_trip=round_trip, note=note)


def images(spec: Spec, reversible: bool = False) -> OnTorch:
    """The preset, which has a learned prior of what leaves besides."""
    preset = Glow(spec.shape, levels=LEVELS, layers=STEPS, hidden=CHANNELS, reversible=reversible)  # type: ignore[arg-type]
    flow = preset.build()
    flow.initialize(torch.randn(16, *spec.shape))
    return Ours(
        spec.shape,
        flow,
        flow.log_prob,
        flow.sample,
        round_trip=lambda x: flow.to_data(flow.to_latent(x)),
        note="with a learned prior of what leaves, one more net a level but the last",
    )


def reversible_images(spec: Spec) -> OnTorch:
    return images(spec, reversible=True)


def build_compiled(spec: Spec) -> OnTorch:
    torch._dynamo.reset()
    flow = flow_of(spec)
    return OnTorch(spec.shape, flow, torch.compile(flow, dynamic=False), flow.sample, compiles=True)
