"""Pyro: its transforms of `torch.distributions`. Not timed: it is here for its features."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import transforms
from pyro.distributions.transforms.spline import _monotonic_rational_spline
from pyro.infer import SVI, Importance, Trace_ELBO
from pyro.infer.autoguide import AutoNormalizingFlow
from torch import Tensor, nn

from peers.features import LAYERS, NO, PARTLY, YES, Seen, absent, names, ran, stated
from peers.features import on_torch as probes
from peers.libraries.on_torch import OnTorch
from peers.spec import BINS, BOUND, Spec, Unsupported


def build(spec: Spec) -> OnTorch:
    name = f"{'spline' if spec.spline else 'affine'}_{'coupling' if spec.coupling else 'autoregressive'}"
    make = getattr(transforms, f"conditional_{name}" if spec.context else name, None)
    if make is None:
        raise Unsupported(f"no `conditional_{name}`")
    box = {"count_bins": BINS, "bound": BOUND} if spec.spline else {}
    given = (spec.context,) if spec.context else ()
    layers = [make(spec.features, *given, hidden_dims=[*spec.hidden], **box) for _ in range(spec.layers)]
    parts = layers[:1]
    for layer in layers[1:]:
        parts += [transforms.Permute(torch.arange(spec.features).flip(0)), layer]
    base = dist.Normal(torch.zeros(spec.features), torch.ones(spec.features)).to_event(1)
    kind = dist.ConditionalTransformedDistribution if spec.context else dist.TransformedDistribution
    flow = kind(base, parts)

    def latent(x: Tensor) -> Tensor:
        for part in reversed(parts):
            x = part.inv(x)
        return x

    def log_prob(x: Tensor, c: Tensor | None = None) -> Tensor:
        flow.clear_cache()
        return flow.log_prob(x) if c is None else flow.condition(c).log_prob(x)

    def sample(n: int) -> Tensor:
        flow.clear_cache()
        return flow.sample((n,))

    return OnTorch(spec, nn.ModuleList(layers), log_prob, sample, latent=latent)


# -- probes -------------------------------------------------------------------------------------------


def _stress() -> Seen:
    def shares(w: Tensor, h: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return w.softmax(-1), h.softmax(-1), nn.functional.softplus(d)  # as its layers do

    def spline(x: Tensor, *p: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        return _monotonic_rational_spline(x, *shares(*p), inverse=inverse, bound=BOUND)

    return probes.round_trips(spline, lambda y, *p: spline(y, *p, inverse=True)[0])


def _far() -> Seen:
    try:
        transforms.neural_autoregressive(2).inv(torch.randn(3, 2))
    except NotImplementedError:
        return NO, "`NeuralAutoregressive` has no inverse: NotImplementedError"
    raise AssertionError("Pyro's neural autoregressive layer has an inverse")


def _images() -> Seen:
    found = names(LAYERS["Pyro"], "^haartransform$|^generalizedchannelpermute$")
    return PARTLY, f"parts without couplings by convolutions: {', '.join(f'`{n}`' for n in found)}"


def _fitted(steps: int):
    """A model, and its guide after some steps of SVI."""

    def model() -> None:
        pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    guide = AutoNormalizingFlow(model, partial(transforms.iterated, 2, transforms.affine_autoregressive))
    fit = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    for _ in range(steps):
        assert math.isfinite(fit.step())
    return model, guide


def _evidence() -> float:
    found = Importance(*_fitted(2), num_samples=50)
    found.run()
    assert found.get_ESS() > 1
    return found.get_log_normalizer()


SEARCHED = "early_?stop|patience"
PROBES = {
    "stress": _stress,
    "far": _far,
    "images": _images,
    "trainer": lambda: (PARTLY, f"`SVI.step`; for early stopping {absent('Pyro', SEARCHED)[1]}"),
    "files": stated(NO, "`ParamStoreDict.save` is `torch.save`"),
    "targets": ran(YES, "`SVI` with `AutoNormalizingFlow`", lambda: _fitted(2) and None),
    "evidence": ran(YES, "`Importance.get_log_normalizer`, `get_ESS`", _evidence),
    "vae": stated(YES, "`SVI` with a guide that is a flow"),
    "program": ran(YES, "`AutoNormalizingFlow`, `sample` of a flow", lambda: _fitted(2) and None),
    "block": ran(
        YES,
        "`BlockAutoregressive`, one way",
        lambda: transforms.block_autoregressive(3)(torch.randn(4, 3)).sum(),
    ),
}
