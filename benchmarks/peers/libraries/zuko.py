"""zuko: masked MLPs, and for couplings its own coupling layer."""

from __future__ import annotations

from functools import partial

import torch
import zuko
from torch import Tensor, nn
from zuko.flows import CNF, MAF, NCSF, NSF
from zuko.flows.coupling import RealNVP
from zuko.transforms import MonotonicRQSTransform

from peers.features import NO, PARTLY, YES, Seen, ran
from peers.features import on_torch as probes
from peers.libraries.on_torch import OnTorch, copy, field
from peers.spec import BINS, BOUND, FREQUENCIES, TOLERANCE, Spec

CNF_NOTE = "the tolerance is of each step; the absolute one of the log-determinant is 100 times as large"
COUPLING_NOTE = "the coupling layer with a plain MLP; `passes=2` of the masked layer does more work"


def build(spec: Spec) -> OnTorch:
    options: dict = {"transforms": spec.layers, "hidden_features": spec.hidden}
    if spec.spline:
        options["univariate"] = partial(MonotonicRQSTransform, bound=BOUND)
        options["shapes"] = [(BINS,), (BINS,), (BINS - 1,)]
    flow = (RealNVP if spec.coupling else MAF)(spec.features, spec.context, **options)
    return _built(spec, flow, COUPLING_NOTE if spec.coupling else "")


def continuous(spec: Spec) -> OnTorch:
    exact = {"atol": TOLERANCE, "rtol": TOLERANCE, "exact": True}
    net = {"hidden_features": spec.hidden, "activation": nn.Tanh}
    flow = CNF(spec.features, freqs=FREQUENCIES, **exact, **net)
    copy(field(spec), [layer for layer in flow.transform.ode if not isinstance(layer, nn.Tanh)])
    return _built(spec, flow, CNF_NOTE)


def _built(spec: Spec, flow: zuko.lazy.Flow, note: str) -> OnTorch:
    def round_trip(z: Tensor) -> Tensor:
        transform = flow().transform
        return transform(transform.inv(z))

    return OnTorch(
        spec,
        flow,
        lambda x, c=None: flow(c).log_prob(x),
        lambda n: flow().sample((n,)),
        latent=lambda x: flow().transform(x),
        round_trip=round_trip,
        note=note,
    )


def port(flow: zuko.lazy.Flow) -> list:
    """Affine couplings: nothing changes, the same mask, [shift, scale], the same soft clip at log 1000."""
    from diffeo.bijections import Coupling
    from diffeo.elementwise import Affine
    from diffeo.nets import MLP

    parts = []
    for layer in flow.transform.transforms:
        mask, linears = layer.mask.tolist(), [part for part in layer.hyper if not isinstance(part, nn.ReLU)]
        net = MLP(sum(mask), 2 * (len(mask) - sum(mask)), [len(part.bias) for part in linears[:-1]])
        copy(linears, [*net.layers, net.output])
        parts.append(Coupling(mask, net, Affine()))
    return parts


# -- probes -------------------------------------------------------------------------------------------


def _stress() -> Seen:
    return probes.round_trips(
        lambda x, *p: MonotonicRQSTransform(*p, bound=BOUND).call_and_ladj(x),
        lambda y, *p: MonotonicRQSTransform(*p, bound=BOUND).inv(y),
    )


def _far() -> Seen:
    layer = zuko.flows.NAF(1, transforms=1).transform.transforms[0]()
    return probes.from_afar(lambda x: layer.inv(layer(x)))


def _compile() -> Seen:
    found = probes.compiled("zuko")
    if found[0] != NO:
        return found
    torch._dynamo.reset()
    made = NSF(4, transforms=2, hidden_features=(16,))()
    torch.compile(made.log_prob, fullgraph=True, backend="eager")(torch.randn(5, 4))
    return PARTLY, "log_prob of a distribution made outside the graph; `flow(c)` inside is not captured"


PROBES = {
    "stress": _stress,
    "far": _far,
    "compile": _compile,
    "continuous": ran(
        YES, "`CNF`", lambda: CNF(3, hidden_features=(16,))().log_prob(torch.randn(4, 3)).sum()
    ),
    "circular": ran(YES, "`NCSF`", lambda: NCSF(2, hidden_features=(16,))().log_prob(torch.rand(5, 2)).sum()),
    "targets": probes.BY_HAND,
    "vae": probes.BY_HAND,
    "program": ran(
        YES,
        "in Pyro, whose own `pyro.contrib.zuko.ZukoToPyro` makes `flow(c)` a site of a guide or model",
        lambda: probes.site_of_pyro(MAF(2, hidden_features=(8,))),
    ),
}
