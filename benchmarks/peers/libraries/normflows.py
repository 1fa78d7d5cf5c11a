"""normflows: nflows' layers in its own frame; ``Reverse`` where a layer is fast in the wrong direction."""

from __future__ import annotations

import math
from functools import partial
from inspect import signature

import normflows as nf
import torch
from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive
from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling
from normflows.utils.splines import unconstrained_rational_quadratic_spline
from torch import Tensor, nn

from peers.features import NO, YES, Seen, ran, stated
from peers.features import on_torch as probes
from peers.libraries.on_torch import OnTorch, Perceptron, fit_contractions
from peers.spec import BINS, BOUND, CHANNELS, LEVELS, LIPSCHITZ, STEPS, Spec, Unsupported

SPECTRAL_STEPS = 5
"""Of the power iteration after each training step: the default of its nets."""
PERMUTED = "random permutations between layers (it has no reversal)"


def build(spec: Spec) -> OnTorch:
    parts = [part for layer in range(spec.layers) for part in (_usual if spec.usual else _plain)(spec, layer)]
    base = nf.distributions.DiagGaussian(spec.features, trainable=False)
    flow = (nf.ConditionalNormalizingFlow if spec.context else nf.NormalizingFlow)(base, parts)
    note = "" if spec.coupling else PERMUTED
    return OnTorch(spec, flow, flow.log_prob, lambda n: flow.sample(n)[0], latent=flow.inverse, note=note)


def _plain(spec: Spec, layer: int) -> list[nn.Module]:
    """A layer around a plain net, turned to its faster side."""
    box = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND} if spec.spline else {}
    if spec.model == "RealNVP":
        net = nf.nets.MLP([spec.features // 2, *spec.hidden, spec.features])
        return [nf.flows.AffineCouplingBlock(net), nf.flows.Permute(spec.features, mode="swap")]
    if spec.coupling:
        changing, net = ~torch.tensor(spec.passing(layer)), partial(Perceptron, hidden=spec.hidden)
        return [nf.flows.Reverse(PiecewiseRationalQuadraticCoupling(changing.int(), net, **box))]
    kinds = nf.flows.MaskedAffineAutoregressive, MaskedPiecewiseRationalQuadraticAutoregressive
    made = {"num_blocks": len(spec.hidden) - 1, "use_residual_blocks": False, **box}
    permuted = [nf.flows.Permute(spec.features)] if layer else []
    return [*permuted, nf.flows.Reverse(kinds[spec.spline](spec.features, spec.hidden[0], **made))]


def _usual(spec: Spec, layer: int) -> list[nn.Module]:
    """A layer as its manual has it."""
    context, D, hidden = spec.context or None, spec.features, spec.hidden[0]
    if spec.model == "RealNVP":
        if context and "context" not in signature(nf.flows.MaskedAffineFlow.inverse).parameters:
            raise Unsupported("`MaskedAffineFlow.inverse` takes none")
        nets = [nf.nets.MLP([D, *spec.hidden, D], init_zeros=False) for _ in range(2)]
        return [nf.flows.MaskedAffineFlow(torch.tensor(spec.passing(layer)).float(), *nets)]
    if spec.model == "MAF":
        return [nf.flows.MaskedAffineAutoregressive(D, hidden, context_features=context, num_blocks=1)]
    box = {"num_bins": BINS, "tail_bound": BOUND, "num_context_channels": context}
    if spec.coupling:
        box["reverse_mask"] = bool(layer % 2)
        return [nf.flows.CoupledRationalQuadraticSpline(D, len(spec.hidden), hidden, **box)]
    return [nf.flows.AutoregressiveRationalQuadraticSpline(D, len(spec.hidden), hidden, **box)]


def residual(spec: Spec) -> OnTorch:
    """Residual blocks in their usual settings; its Lipschitz constant is that of each layer."""
    widths = [spec.features, *spec.hidden, spec.features]
    each = LIPSCHITZ ** (1 / (len(widths) - 1))
    nets = [nf.nets.LipschitzMLP(widths, lipschitz_const=each) for _ in range(spec.layers)]
    fit_contractions(nets, spec.features, lambda net: nf.utils.update_lipschitz(net, SPECTRAL_STEPS))
    base = nf.distributions.DiagGaussian(spec.features, trainable=False)
    flow = nf.NormalizingFlow(base, [nf.flows.Residual(net, reverse=True) for net in nets])
    note = "a sample always comes with its log-density; an activation before the first layer too"
    calls = flow.log_prob, lambda n: flow.sample(n)[0]
    return OnTorch(spec, flow, *calls, round_trip=lambda z: flow.inverse(flow.forward(z)), note=note)


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

    def round_trip(x: Tensor) -> Tensor:
        return flow.forward_and_log_det(flow.inverse_and_log_det(x)[0])[0]

    note = "a sample always comes with its log-density; scales by a sigmoid"
    calls = (lambda x: flow.log_prob(x, None)), (lambda n: flow.sample(n)[0])
    return OnTorch(spec, flow, *calls, round_trip=round_trip, note=note)


# -- weights ------------------------------------------------------------------------------------------


def port(flow: nn.Module) -> list:
    """The list reversed, as it is listed from the latent."""
    kinds = {"MaskedAffineFlow": _affine, "CoupledRationalQuadraticSpline": _spline}
    return [part for layer in reversed(flow.flows) for part in kinds[type(layer).__name__](layer)]


def _affine(layer: nn.Module) -> list:
    """The layer inverted; two nets become one; the log-scale has no bound there."""
    from diffeo.bijections import Coupling, Inverse
    from diffeo.elementwise import Affine

    return [Inverse(Coupling(layer.b[0].bool().tolist(), ShiftAndScale(layer), Affine()))]


class ShiftAndScale(nn.Module):
    """The two nets of a layer, which see every column, the changing ones as zeros."""

    context_features = 0

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.shift, self.log_scale, self.mask = layer.t, layer.s, layer.b[0].bool()
        self.in_features, self.out_features = int(self.mask.sum()), 2 * int((~self.mask).sum())

    def forward(self, passing: Tensor, context: Tensor | None = None) -> Tensor:
        x = passing.new_zeros(*passing.shape[:-1], len(self.mask))
        x[..., self.mask] = passing
        shift, log_scale = (net(x)[..., ~self.mask] for net in (self.shift, self.log_scale))
        raw = log_scale / (1 - log_scale.abs() / math.log(1000))  # what Affine bounds again
        return torch.stack([shift, raw], -1).flatten(-2)


def _spline(layer: nn.Module) -> list:
    """As nflows' own, and a spline besides for the columns that pass; ``inverse`` there runs it forward."""
    from diffeo.bijections import OnColumns, Pointwise
    from diffeo.elementwise import RationalQuadratic
    from peers.libraries.nflows import UNIT_SLOPE, spline_coupling

    coupling = layer.prqct
    alone, passing = coupling.unconditional_transform, coupling.identity_features.tolist()
    spline = Pointwise(RationalQuadratic(BINS, BOUND), (len(passing),))
    weights = alone.unnormalized_widths, alone.unnormalized_heights, alone.unnormalized_derivatives
    with torch.no_grad():
        spline.params.copy_(torch.cat([weights[0], weights[1], weights[2] - UNIT_SLOPE], -1))
    return [spline_coupling(coupling), OnColumns(passing, spline, coupling.features)]


# -- probes -------------------------------------------------------------------------------------------


def _contraction(columns: int) -> nn.Module:
    net = nf.nets.LipschitzMLP([columns, 32, columns], init_zeros=False, lipschitz_const=0.9)
    return nf.flows.Residual(net)


def _residual() -> Seen:
    layer, x = _contraction(4).eval(), torch.randn(20, 4)
    return probes.close(layer.forward(layer.inverse(x)[0])[0], x, "`Residual`")


def _images() -> Seen:
    levels = [[nf.flows.GlowBlock(c, 16), nf.flows.Squeeze()] for c in (24, 12)]
    bases = [nf.distributions.DiagGaussian(s, trainable=False) for s in ((24, 2, 2), (6, 4, 4))]
    flow = nf.MultiscaleFlow(bases, levels, [nf.flows.Merge()], class_cond=False)
    x = torch.randn(2, 3, 8, 8)
    flow.log_prob(x, None)  # sets ActNorm
    back = flow.forward_and_log_det(flow.inverse_and_log_det(x)[0])[0]
    return probes.close(back, x, "`MultiscaleFlow`")


def _circular() -> Tensor:
    layer = nf.flows.CircularCoupledRationalQuadraticSpline(2, 1, 8, [0, 1], tail_bound=math.pi)
    return layer.inverse(6 * torch.rand(5, 2) - 3)[0].sum()


def _deterministic() -> Seen:
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(4), [_contraction(4)])
    verdict, text = probes.deterministic("normflows", residual=(flow, flow.log_prob))
    layer, x = _contraction(2).eval(), torch.randn(20, 2)
    assert torch.equal(layer.inverse(x)[1], layer.inverse(x)[1])
    return verdict, f"{text}, except of two columns, where it is exact and the same twice"


def _targets() -> None:
    layers = [nf.flows.AutoregressiveRationalQuadraticSpline(2, 1, 8)]
    base = nf.distributions.DiagGaussian(2)
    nf.NormalizingFlow(base, layers, nf.distributions.TwoMoons()).reverse_kld(32).backward()


def _stochastic() -> Tensor:
    proposal = nf.distributions.DiagGaussianProposal((2,), 0.1)
    layer = nf.flows.MetropolisHastings(nf.distributions.TwoMoons(), proposal, 3)
    return layer(torch.randn(5, 2))[1].sum()


PROBES = {
    "stress": lambda: probes.round_trips_of(unconstrained_rational_quadratic_spline),
    "residual": _residual,
    "images": _images,
    "circular": ran(YES, "`CircularCoupledRationalQuadraticSpline`", _circular),
    "deterministic": _deterministic,
    "files": stated(NO, "`save` is `torch.save(state_dict)`; `load` wants the model built"),
    "targets": ran(YES, "`reverse_kld`, `reverse_alpha_div`", _targets),
    "vae": stated(YES, "`NormalizingFlowVAE`"),
    "stochastic": ran(YES, "`MetropolisHastings`", _stochastic),
}
