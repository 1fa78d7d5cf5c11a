"""FrEIA: one-sided affine couplings; it brings no density, so the normal's is written here."""

from __future__ import annotations

import math
from functools import partial

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AffineCouplingOneSided, PermuteRandom
from torch import Tensor

from peers.architecture import HIDDEN, LAYERS, Spec, Unsupported
from peers.contestants.on_torch import OnTorch, Perceptron


def build(spec: Spec) -> OnTorch:
    if spec.model != "RealNVP":
        raise Unsupported("the release on the package index has affine couplings only")
    flow = SequenceINN(spec.features)
    for layer in range(LAYERS):
        if layer:
            flow.append(PermuteRandom, seed=layer)
        flow.append(AffineCouplingOneSided, subnet_constructor=partial(Perceptron, hidden=HIDDEN))

    def log_prob(x: Tensor) -> Tensor:
        z, log_det = flow(x)
        return log_det - 0.5 * (z.square().sum(-1) + spec.features * math.log(2 * math.pi))

    def sample(n: int) -> Tensor:
        return flow(torch.randn(n, spec.features), rev=True, jac=False)[0]

    note = "one-sided couplings, random permutations between layers"
    return OnTorch(spec.shape, flow, log_prob, sample, note=note)
