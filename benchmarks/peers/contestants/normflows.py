"""normflows: nflows' layers in its own frame; ``Reverse`` where a layer is fast in the wrong direction."""

from __future__ import annotations

from functools import partial

import normflows as nf
import torch
from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive
from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

from peers.architecture import BINS, BOUND, HIDDEN, LAYERS, Spec
from peers.contestants.on_torch import OnTorch, Perceptron


def build(spec: Spec) -> OnTorch:
    half = spec.features // 2
    box = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND} if spec.spline else {}
    made = {
        "features": spec.features,
        "hidden_features": HIDDEN[0],
        "num_blocks": len(HIDDEN) - 1,
        "use_residual_blocks": False,
        **box,
    }
    parts = []
    for layer in range(LAYERS):
        if spec.model == "RealNVP":
            parts.append(nf.flows.AffineCouplingBlock(nf.nets.MLP([half, *HIDDEN, spec.features])))
            parts.append(nf.flows.Permute(spec.features, mode="swap"))
        elif spec.model == "CouplingNSF":
            changing = ~torch.tensor(spec.passing(layer))
            net = partial(Perceptron, hidden=HIDDEN)
            parts.append(nf.flows.Reverse(PiecewiseRationalQuadraticCoupling(changing.int(), net, **box)))
        else:
            kind = (
                MaskedPiecewiseRationalQuadraticAutoregressive
                if spec.spline
                else nf.flows.MaskedAffineAutoregressive
            )
            parts += [nf.flows.Permute(spec.features)] if layer else []
            parts.append(nf.flows.Reverse(kind(**made)))
    base = nf.distributions.DiagGaussian(spec.features, trainable=False)
    flow = nf.NormalizingFlow(base, parts)
    note = "" if spec.coupling else "random permutations between layers (it has no reversal)"
    return OnTorch(spec.features, flow, flow.log_prob, lambda n: flow.sample(n)[0], note=note)
