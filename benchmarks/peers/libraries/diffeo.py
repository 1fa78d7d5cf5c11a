"""diffeo, built by hand from public parts; eager and compiled. Its probes are in ``peers.features.ours``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from diffeo import Flow, bijections, kernels, nets, presets
from diffeo.bases import Normal
from diffeo.bijections import Chain
from diffeo.elementwise import Affine, RationalQuadratic
from diffeo.train.optimizer import FlatAdamW
from peers.libraries.on_torch import OnTorch, field, fit_contractions, stir
from peers.spec import (
    BINS,
    BOUND,
    CHANNELS,
    FREQUENCIES,
    LEARNING_RATE,
    LEVELS,
    LIPSCHITZ,
    STEPS,
    TOLERANCE,
    Spec,
)


def about() -> dict[str, str]:
    """Which of its code paths this machine takes."""
    return {"diffeo.kernels": kernels.describe().removeprefix("kernels: ")}


def flow_of(spec: Spec) -> Flow:
    """The flow; its output layers leave zero, as after some training."""
    family = RationalQuadratic(BINS, BOUND) if spec.spline else Affine()
    parts: list[bijections.Bijection] = []
    for layer in range(spec.layers):
        if spec.coupling:
            mask = spec.passing(layer)
            given = (spec.features - sum(mask)) * family.num_params
            net = nets.MLP(sum(mask), given, spec.hidden, context_features=spec.context)
            parts.append(bijections.Coupling(mask, net, family))
        else:
            net = nets.MADE(spec.features, family.num_params, spec.hidden, context_features=spec.context)
            parts += [bijections.Reverse(spec.features)] if layer else []
            parts.append(bijections.Autoregressive(net, family))
    flow = Flow(Chain(parts), Normal((spec.features,)))
    stir(flow, 0.02)
    return flow


class Ours(OnTorch):
    """The training step is that of ``diffeo.fit``: clipping and the running mean of the weights included."""

    def prepare(self, kind: str, batch: int) -> Callable[[], Tensor]:
        run, x = super().prepare(kind, batch), self.batch(batch)

        def train() -> Tensor:
            self.flat.zero_grad()
            loss = -self.log_prob(x).mean()
            loss.backward()
            self.flat.gather()
            self.flat.step(LEARNING_RATE, decay=0.999)
            return loss.detach()

        return train if kind == "train" else run

    @cached_property
    def flat(self) -> FlatAdamW:
        """The optimizer of ``diffeo.fit``."""
        mean = copy.deepcopy(self.module)
        return FlatAdamW(list(self.module.parameters()), list(mean.parameters()), weight_decay=1e-4, clip=5.0)


def ours(spec: Spec, flow: Flow, note: str = "", *, from_data: bool = False) -> Ours:
    """The flow; its round trip begins with a latent point or, for images, with data."""

    def round_trip(x: Tensor) -> Tensor:
        return flow.to_data(flow.to_latent(x)) if from_data else flow.to_latent(flow.to_data(x))

    calls = flow.log_prob, flow.sample
    return Ours(spec, flow, *calls, latent=flow.to_latent, round_trip=round_trip, note=note)


def build(spec: Spec) -> OnTorch:
    if not spec.usual:
        return ours(spec, flow_of(spec))
    preset = getattr(presets, spec.model)
    hidden = spec.hidden[0] if spec.spline else spec.hidden
    return ours(spec, preset(spec.features, spec.context or None, layers=spec.layers, hidden=hidden).build())


def build_compiled(spec: Spec) -> OnTorch:
    torch._dynamo.reset()
    flow = flow_of(spec)
    return OnTorch(spec, flow, torch.compile(flow, dynamic=False), flow.sample, compiles=True)


def residual(spec: Spec) -> OnTorch:
    blocks = [nets.LipschitzMLP(spec.features, spec.hidden, lipschitz=LIPSCHITZ) for _ in range(spec.layers)]
    fit_contractions(blocks, spec.features, lambda net: net.project_())
    layers = [bijections.Contractive(net, bijections.RouletteLogDet()) for net in blocks]
    return ours(spec, Flow(Chain(layers), Normal((spec.features,))))


def continuous(spec: Spec) -> OnTorch:
    """In training and in evaluation with the solver that holds a tolerance."""
    solver = bijections.Adaptive(TOLERANCE)
    layer = bijections.Continuous(_field(spec), solver, solver, waves=FREQUENCIES)
    return ours(spec, Flow(layer, Normal((spec.features,))))


def continuous_by_default(spec: Spec) -> OnTorch:
    layer = bijections.Continuous(_field(spec), waves=FREQUENCIES)
    note = f"training by {layer.solver}, evaluation by {layer.evaluation}"
    return ours(spec, Flow(layer, Normal((spec.features,))), note)


@torch.no_grad()
def _field(spec: Spec) -> nn.Module:
    sizes, waves = (spec.features, spec.features, spec.hidden), 2 * FREQUENCIES
    net = nets.VelocityMLP(*sizes, context_features=waves, activation=nets.Tanh)
    first, *others = field(spec)
    time, space = first.weight.split([waves, spec.features], 1)
    assert net.of_context is not None
    net.of_context.weight.copy_(time)
    weights = [(space, first.bias), *((layer.weight, layer.bias) for layer in others)]
    for layer, (weight, bias) in zip(net.layers, weights, strict=True):
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return net


def images(spec: Spec, reversible: bool = False) -> OnTorch:
    """The preset, which has a learned prior of what leaves besides."""
    shape = spec.shape
    flow = presets.Glow(shape, levels=LEVELS, layers=STEPS, hidden=CHANNELS, reversible=reversible).build()  # type: ignore[arg-type]
    flow.initialize(torch.randn(16, *shape))
    note = "with a learned prior of what leaves, one more net a level but the last"
    return ours(spec, flow, note, from_data=True)


def reversible_images(spec: Spec) -> OnTorch:
    return images(spec, reversible=True)
