"""FrEIA: one-sided affine couplings; it brings no density, so the normal's is written here."""

from __future__ import annotations

import math
from functools import partial

import torch
from FrEIA import framework as ff
from FrEIA import modules as fm
from torch import Tensor, nn

from peers.features import NO, YES, Seen, stated
from peers.features import on_torch as probes
from peers.libraries.on_torch import OnTorch, Perceptron
from peers.spec import Spec, Unsupported

NO_DENSITY = stated(NO, "no density of its own")


def build(spec: Spec) -> OnTorch:
    if spec.model != "RealNVP":
        raise Unsupported("the release on the package index has affine couplings only")
    flow = ff.SequenceINN(spec.features)
    given = {"cond": 0, "cond_shape": (spec.context,)} if spec.context else {}
    net = partial(Perceptron, hidden=spec.hidden)
    for layer in range(spec.layers):
        if layer:
            flow.append(fm.PermuteRandom, seed=layer)
        flow.append(fm.AffineCouplingOneSided, subnet_constructor=net, **given)

    def log_prob(x: Tensor, c: Tensor | None = None) -> Tensor:
        z, log_det = flow(x, c=None if c is None else [c])
        return log_det - 0.5 * (z.square().sum(-1) + spec.features * math.log(2 * math.pi))

    def sample(n: int) -> Tensor:
        return flow(torch.randn(n, spec.features), rev=True, jac=False)[0]

    note = "one-sided couplings, random permutations between layers"
    return OnTorch(spec, flow, log_prob, sample, latent=lambda x: flow(x)[0], note=note)


# -- probes -------------------------------------------------------------------------------------------


def _residual() -> Seen:
    layer, x = fm.IResNetLayer([(4,)]).eval(), torch.randn(20, 4)
    (z,), _ = layer([x])
    return probes.close(layer([z], rev=True)[0][0], x, "`IResNetLayer`")


def _images() -> Seen:
    def net(n: int, m: int) -> nn.Module:
        return nn.Conv2d(n, m, 3, padding=1)

    start, x = ff.InputNode(3, 8, 8), torch.randn(2, 3, 8, 8)
    fine = ff.Node(start, fm.HaarDownsampling, {})
    fine = ff.Node(fine, fm.GLOWCouplingBlock, {"subnet_constructor": net})
    split = ff.Node(fine, fm.Split, {"section_sizes": [6, 6], "dim": 0})
    coarse = ff.Node(split.out0, fm.HaarDownsampling, {})
    coarse = ff.Node(coarse, fm.GLOWCouplingBlock, {"subnet_constructor": net})
    ends = [ff.OutputNode(coarse), ff.OutputNode(split.out1)]
    graph = ff.GraphINN([start, fine.inputs[0][0], fine, split, coarse.inputs[0][0], coarse, *ends])
    return probes.close(graph(graph(x)[0], rev=True)[0], x, "`GraphINN` with `Haar`, `Split`")


def _deterministic() -> Seen:
    layer = fm.IResNetLayer([(4,)])
    return probes.deterministic("FrEIA", residual=(layer, lambda x: layer([x])[1]))


PROBES = {
    "residual": _residual,
    "images": _images,
    "deterministic": _deterministic,
    "targets": NO_DENSITY,
    "vae": NO_DENSITY,
    "graph": lambda: (YES, _images()[1]),
}
