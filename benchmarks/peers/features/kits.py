"""Small flows of every library on PyTorch, built alike: affine or spline, coupling or autoregressive."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature

import torch
from torch import Tensor, nn

from peers.features import absent

HIDDEN, BINS, BOUND = 32, 8, 3.0


class Missing(Exception):
    """The library has no such flow; the message says what was looked for."""


@dataclass(frozen=True)
class Built:
    """A flow by what probes call; the context may be None."""

    module: nn.Module
    log_prob: Callable[[Tensor, Tensor | None], Tensor]
    sample: Callable[[int], Tensor]
    latent: Callable[[Tensor], Tensor]


Kit = Callable[..., Built]


def diffeo(features: int, layers: int, *, spline: bool, coupling: bool, context: int = 0) -> Built:
    from diffeo import presets

    kind = {
        (False, True): presets.RealNVP,
        (True, True): presets.CouplingNSF,
        (False, False): presets.MAF,
        (True, False): presets.NSF,
    }[spline, coupling]
    flow = kind(features, context or None, layers=layers, hidden=HIDDEN if spline else (HIDDEN,)).build()
    return Built(flow, flow.log_prob, flow.sample, flow.to_latent)


def zuko(features: int, layers: int, *, spline: bool, coupling: bool, context: int = 0) -> Built:
    import zuko

    options: dict = {"transforms": layers, "hidden_features": (HIDDEN,)}
    if spline:
        options["univariate"] = partial(zuko.transforms.MonotonicRQSTransform, bound=BOUND)
        options["shapes"] = [(BINS,), (BINS,), (BINS - 1,)]
    make = zuko.flows.RealNVP if coupling else zuko.flows.MAF
    flow = make(features, context, **options)
    return Built(
        flow, lambda x, c: flow(c).log_prob(x), lambda n: flow().sample((n,)), lambda x: flow().transform(x)
    )


def nflows(features: int, layers: int, *, spline: bool, coupling: bool, context: int = 0) -> Built:
    from nflows import transforms
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.nn.nets import ResidualNet

    def net(n: int, m: int) -> nn.Module:
        return ResidualNet(n, m, hidden_features=HIDDEN, context_features=context or None, num_blocks=1)

    box = {"tails": "linear", "tail_bound": BOUND, "num_bins": BINS} if spline else {}
    parts = []
    for k in range(layers):
        if coupling:
            kind = (
                transforms.PiecewiseRationalQuadraticCouplingTransform
                if spline
                else transforms.AffineCouplingTransform
            )
            parts.append(kind([(i + k) % 2 for i in range(features)], net, **box))
        else:
            kind = (
                transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
                if spline
                else transforms.MaskedAffineAutoregressiveTransform
            )
            parts.append(kind(features, HIDDEN, context_features=context or None, num_blocks=1, **box))
    flow = Flow(transforms.CompositeTransform(parts), StandardNormal([features]))
    return Built(flow, flow.log_prob, flow.sample, flow.transform_to_noise)


def normflows(features: int, layers: int, *, spline: bool, coupling: bool, context: int = 0) -> Built:
    import normflows as nf

    parts = []
    for k in range(layers):
        if spline:
            kind = (
                nf.flows.CoupledRationalQuadraticSpline
                if coupling
                else nf.flows.AutoregressiveRationalQuadraticSpline
            )
            extra = {"reverse_mask": bool(k % 2)} if coupling else {}
            parts.append(kind(features, 1, HIDDEN, num_context_channels=context or None, **extra))
        elif coupling:
            if context and "context" not in signature(nf.flows.MaskedAffineFlow.inverse).parameters:
                raise Missing("`MaskedAffineFlow.inverse` takes none")
            mask = (torch.arange(features) + k) % 2
            nets = [nf.nets.MLP([features, HIDDEN, features]) for _ in range(2)]
            parts.append(nf.flows.MaskedAffineFlow(mask.float(), *nets))
        else:
            layer = nf.flows.MaskedAffineAutoregressive(
                features, HIDDEN, context_features=context or None, num_blocks=1
            )
            parts.append(layer)
    base = nf.distributions.DiagGaussian(features, trainable=False)
    if context:
        flow = nf.ConditionalNormalizingFlow(base, parts)
        return Built(flow, flow.log_prob, lambda n: flow.sample(n)[0], flow.inverse)
    flow = nf.NormalizingFlow(base, parts)
    return Built(flow, lambda x, c: flow.log_prob(x), lambda n: flow.sample(n)[0], flow.inverse)


def freia(features: int, layers: int, *, spline: bool, coupling: bool, context: int = 0) -> Built:
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import RNVPCouplingBlock

    if spline:
        raise Missing(absent("FrEIA", "spline")[1] + ", the release on the package index")
    if not coupling:
        raise Missing(absent("FrEIA", "autoregress|made")[1])

    def net(n: int, m: int) -> nn.Module:
        return nn.Sequential(nn.Linear(n, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, m))

    flow = SequenceINN(features)
    given = {"cond": 0, "cond_shape": (context,)} if context else {}
    for _ in range(layers):
        flow.append(RNVPCouplingBlock, subnet_constructor=net, **given)

    def log_prob(x: Tensor, c: Tensor | None) -> Tensor:
        z, log_det = flow(x, c=None if c is None else [c])
        return -0.5 * z.square().sum(-1) - 0.5 * features * math.log(2 * math.pi) + log_det

    return Built(
        flow,
        log_prob,
        lambda n: flow(torch.randn(n, features), rev=True)[0],
        lambda x: flow(x)[0],
    )


def pyro(features: int, layers: int, *, spline: bool, coupling: bool, context: int = 0) -> Built:
    import pyro.distributions as dist
    from pyro.distributions import transforms

    name = f"{'spline' if spline else 'affine'}_{'coupling' if coupling else 'autoregressive'}"
    make = getattr(transforms, f"conditional_{name}" if context else name, None)
    if make is None:
        raise Missing(f"no `conditional_{name}`")
    box = {"count_bins": BINS, "bound": BOUND} if spline else {}
    given = (context,) if context else ()
    parts, modules = [], []
    for k in range(layers):
        part = make(features, *given, hidden_dims=[HIDDEN], **box)
        modules.append(part)
        parts.append(part)
        if k + 1 < layers:
            parts.append(transforms.Permute(torch.arange(features).flip(0)))
    base = dist.Normal(torch.zeros(features), torch.ones(features)).to_event(1)
    if context:
        flow = dist.ConditionalTransformedDistribution(base, parts)
        return Built(nn.ModuleList(modules), lambda x, c: flow.condition(c).log_prob(x), _unasked, _unasked)
    flow = dist.TransformedDistribution(base, parts)

    def latent(x: Tensor) -> Tensor:
        for part in reversed(parts):
            x = part.inv(x)
        return x

    def log_prob(x: Tensor, c: Tensor | None) -> Tensor:
        flow.clear_cache()
        return flow.log_prob(x)

    def sample(n: int) -> Tensor:
        flow.clear_cache()
        return flow.sample((n,))

    return Built(nn.ModuleList(modules), log_prob, sample, latent)


def _unasked(_: object) -> Tensor:
    raise NotImplementedError


def stirred(kit: Kit) -> Kit:
    """Weights as after training: outputs that start at zero hide everything."""

    def build(*sizes: int, **options: bool) -> Built:
        built = kit(*sizes, **options)
        with torch.no_grad():
            for parameter in built.module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return built

    return build


KITS: dict[str, Kit] = {
    "diffeo": stirred(diffeo),
    "zuko": stirred(zuko),
    "nflows": stirred(nflows),
    "normflows": stirred(normflows),
    "FrEIA": stirred(freia),
    "Pyro": stirred(pyro),
}
