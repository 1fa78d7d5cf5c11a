"""normflows: nflows' layers in its own frame; ``Reverse`` where a layer is fast in the wrong direction."""

from __future__ import annotations

from functools import partial

import normflows as nf
import torch
from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive
from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

from peers.architecture import BINS, BOUND, CHANNELS, HIDDEN, LAYERS, LEVELS, LIPSCHITZ, STEPS, Spec
from peers.contestants.on_torch import OnTorch, Perceptron
from peers.contestants.weights import fit_contractions

SPECTRAL_STEPS = 5
"""Of the power iteration after each training step: the default of its nets."""


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
    return OnTorch(spec.shape, flow, flow.log_prob, lambda n: flow.sample(n)[0], note=note)


def residual(spec: Spec) -> OnTorch:
    """Residual blocks in their usual settings; its Lipschitz constant is that of each layer."""
    widths = [spec.features, *HIDDEN, spec.features]
    each = LIPSCHITZ ** (1 / (len(widths) - 1))
    nets = [nf.nets.LipschitzMLP(widths, lipschitz_const=each) for _ in range(LAYERS)]
    fit_contractions(nets, spec.features, lambda net: nf.utils.update_lipschitz(net, SPECTRAL_STEPS))
    base = nf.distributions.DiagGaussian(spec.features, trainable=False)
    flow = nf.NormalizingFlow(base, [nf.flows.Residual(net, reverse=True) for net in nets])
    return OnTorch(
        spec.shape,
        flow,
        flow.log_prob,
        lambda n: flow.sample(n)[0],
        round_trip=lambda z: flow.inverse(flow.forward(z)),
        note="a sample always comes with its log-density; an activation before the first layer too",
    )


def images(spec: Spec) -> OnTorch:
    """Its Glow as in its example, with normal bases of fixed parameters; what leaves has no learned prior."""
    channels, side, _ = spec.shape
    bases, flows, merges = [], [], []
    for level in range(LEVELS):  # the coarsest first
        inner, size = channels * 2 ** (LEVELS + 1 - level), side // 2 ** (LEVELS - level)
        steps = [nf.flows.GlowBlock(inner, CHANNELS) for _ in range(STEPS)]
        flows.append([*steps, nf.flows.Squeeze()])
        latent = inner if not level else inner // 2
        bases.append(nf.distributions.DiagGaussian((latent, size, size), trainable=False))
        merges += [nf.flows.Merge()] if level else []
    flow = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)

    def round_trip(x: torch.Tensor) -> torch.Tensor:
        return flow.forward_and_log_det(flow.inverse_and_log_det(x)[0])[0]

    return OnTorch(
        spec.shape,
        flow,
        lambda x: flow.log_prob(x, None),
        lambda n: flow.sample(n)[0],
        round_trip=round_trip,
        note="a sample always comes with its log-density; scales by a sigmoid",
    )
