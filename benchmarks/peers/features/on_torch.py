"""The probes of libraries on PyTorch: prints, as JSON, what each showed.

python -m peers.features.on_torch
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from importlib.metadata import version

import torch
from torch import Tensor, nn

from peers.features import (
    LAYERS,
    LIBRARIES,
    NO,
    PACKAGES,
    PARTLY,
    YES,
    Seen,
    absent,
    console_scripts,
    imports,
    names,
    ours,
    stated,
)
from peers.features.common import COMMON, close, compiled, deterministic, site_of_pyro
from peers.features.kits import KITS, Missing
from peers.features.precision import far, stress

ON_TORCH = [name for name in LIBRARIES if name != "FlowJAX"]
BY_HAND = stated(PARTLY, "of parts: samples with log-density and gradients; the loss and the loop by hand")
NO_DENSITY = stated(NO, "no density of its own")


def _compile(library: str) -> Seen:
    found = compiled(library)
    if library == "zuko" and found[0] == NO:
        import zuko

        torch._dynamo.reset()
        made = zuko.flows.NSF(4, transforms=2, hidden_features=(16,))()
        torch.compile(made.log_prob, fullgraph=True, backend="eager")(torch.randn(5, 4))
        return PARTLY, "log_prob of a distribution made outside the graph; `flow(c)` inside is not captured"
    return found


def _continuous(library: str) -> Seen:
    if library == "zuko":
        import zuko

        zuko.flows.CNF(3, hidden_features=(16,))().log_prob(torch.randn(4, 3))
        return YES, "`CNF`"
    return absent(library, "odeint|^cnf|continuousf|ffjord|neural_?ode")


def _residual(library: str) -> Seen:
    x = torch.randn(20, 4)
    if library == "normflows":
        import normflows as nf

        net = nf.nets.LipschitzMLP([4, 32, 4], init_zeros=False, lipschitz_const=0.9)
        layer = nf.flows.Residual(net).eval()
        return close(layer.forward(layer.inverse(x)[0])[0], x, "`Residual`")
    if library == "FrEIA":
        from FrEIA.modules import IResNetLayer

        layer = IResNetLayer([(4,)]).eval()
        (z,), _ = layer([x])
        return close(layer([z], rev=True)[0][0], x, "`IResNetLayer`")
    if library == "diffeo":
        from diffeo.presets import IResNet

        flow = _contracting(IResNet(4, layers=2).build()).eval()
        return close(flow.to_data(flow.to_latent(x)), x, "`Contractive`, `presets.IResNet`")
    return absent(library, "iresnet|contracti|lipschitz|residual_?flow|residualtransform")


def _contracting(flow: nn.Module) -> nn.Module:
    """A residual flow of diffeo with weights as after training."""
    from diffeo.contracts import Projectable

    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn_like(parameter))
    for part in flow.modules():
        if isinstance(part, Projectable):
            part.project_()
    return flow


def _images(library: str) -> Seen:
    x = torch.randn(2, 3, 8, 8)
    if library == "normflows":
        import normflows as nf

        levels = [[nf.flows.GlowBlock(c, 16), nf.flows.Squeeze()] for c in (24, 12)]
        bases = [nf.distributions.DiagGaussian(s, trainable=False) for s in ((24, 2, 2), (6, 4, 4))]
        flow = nf.MultiscaleFlow(bases, levels, [nf.flows.Merge()], class_cond=False)
        flow.log_prob(x, None)  # sets ActNorm
        return close(flow.forward_and_log_det(flow.inverse_and_log_det(x)[0])[0], x, "`MultiscaleFlow`")
    if library == "nflows":
        from nflows import transforms as t
        from nflows.nn.nets import ConvResidualNet

        def level(channels: int) -> t.Transform:
            mask = [i % 2 for i in range(channels)]
            coupling = t.AffineCouplingTransform(mask, lambda n, m: ConvResidualNet(n, m, 8, num_blocks=1))
            return t.CompositeTransform([t.SqueezeTransform(), coupling])

        flow = t.MultiscaleCompositeTransform(2)
        hidden = flow.add_transform(level(12), (12, 4, 4))
        flow.add_transform(level(hidden[0] * 4), (hidden[0] * 4, 2, 2))
        return close(flow.inverse(flow(x)[0])[0], x, "`MultiscaleCompositeTransform`")
    if library == "FrEIA":
        return _freias_images(x)
    if library == "Pyro":
        found = names(LAYERS["Pyro"], "^haartransform$|^generalizedchannelpermute$")
        return PARTLY, f"parts without couplings by convolutions: {', '.join(f'`{n}`' for n in found)}"
    return absent(library, "multiscale|squeeze|haar|glow|conv(?!ert)")


def _freias_images(x: Tensor) -> Seen:
    from FrEIA import framework as ff
    from FrEIA import modules as fm

    def net(n: int, m: int) -> nn.Module:
        return nn.Conv2d(n, m, 3, padding=1)

    start = ff.InputNode(3, 8, 8)
    fine = ff.Node(start, fm.HaarDownsampling, {})
    fine = ff.Node(fine, fm.GLOWCouplingBlock, {"subnet_constructor": net})
    split = ff.Node(fine, fm.Split, {"section_sizes": [6, 6], "dim": 0})
    coarse = ff.Node(split.out0, fm.HaarDownsampling, {})
    coarse = ff.Node(coarse, fm.GLOWCouplingBlock, {"subnet_constructor": net})
    ends = [ff.OutputNode(coarse), ff.OutputNode(split.out1)]
    net_ = ff.GraphINN([start, fine.inputs[0][0], fine, split, coarse.inputs[0][0], coarse, *ends])
    z, _ = net_(x)
    return close(net_(z, rev=True)[0], x, "`GraphINN` with `Haar`, `Split`")


def _circular(library: str) -> Seen:
    x = 6 * torch.rand(5, 2) - 3
    if library == "zuko":
        import zuko

        zuko.flows.NCSF(2, hidden_features=(16,))().log_prob(x)
        return YES, "`NCSF`"
    if library == "normflows":
        import normflows as nf

        nf.flows.CircularCoupledRationalQuadraticSpline(2, 1, 8, [0, 1], tail_bound=math.pi).inverse(x)
        return YES, "`CircularCoupledRationalQuadraticSpline`"
    return absent(library, "circul|periodic|torus|angle", layer=True)


def _deterministic(library: str) -> Seen:
    flows = {}
    for spline in (False, True):
        try:
            built = KITS[library](4, 2, spline=spline, coupling=True)
        except Missing:
            continue
        name = "spline couplings" if spline else "affine couplings"
        flows[name] = built.module, lambda x, b=built: b.log_prob(x, None)
    if library == "normflows":
        import normflows as nf

        net = nf.nets.LipschitzMLP([4, 32, 4], init_zeros=False, lipschitz_const=0.9)
        flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(4), [nf.flows.Residual(net)])
        flows["residual"] = flow, flow.log_prob
        verdict, text = deterministic(flows)
        net = nf.nets.LipschitzMLP([2, 32, 2], init_zeros=False, lipschitz_const=0.9)
        layer, x = nf.flows.Residual(net).eval(), torch.randn(20, 2)
        assert torch.equal(layer.inverse(x)[1], layer.inverse(x)[1])
        return verdict, f"{text}, except of two columns, where it is exact and the same twice"
    if library == "FrEIA":
        from FrEIA.modules import IResNetLayer

        layer = IResNetLayer([(4,)])
        flows["residual"] = layer, lambda x: layer([x])[1]
    if library == "diffeo":
        from diffeo.presets import ResidualFlow

        flow = _contracting(ResidualFlow(4, layers=2).build())
        flows["residual"] = flow, flow.log_prob
    return deterministic(flows)


def _tables(library: str) -> Seen:
    scripts = console_scripts("pyro-ppl" if library == "Pyro" else library)
    if library == "diffeo":
        assert scripts == ["diffeo"], scripts
        return YES, "`diffeo fit`, `diffeo score`, `diffeo sample`"
    assert not scripts, scripts
    return NO, "no console script"


def _trainer(library: str) -> Seen:
    if library == "Pyro":
        _fit_pyro(1)
        return PARTLY, "`SVI.step`; for early stopping " + absent("Pyro", "early_?stop|patience")[1]
    return absent(library, "^fit|^train(?!able)|early_?stop|patience|trainer")


def _resume(library: str) -> Seen:
    return absent(library, "resume|checkpointer")


def _dequantization(library: str) -> Seen:
    return absent(library, "dequant")


def _files(library: str) -> Seen:
    if library == "normflows":
        return stated(NO, "`save` is `torch.save(state_dict)`; `load` wants the model built")
    if library == "Pyro":
        return stated(NO, "`ParamStoreDict.save` is `torch.save`")
    return absent(library, r"^save|^load|\.save$|\.load$|serial")


def _targets(library: str) -> Seen:
    if library == "normflows":
        import normflows as nf

        layers = [nf.flows.AutoregressiveRationalQuadraticSpline(2, 1, 8)]
        base = nf.distributions.DiagGaussian(2)
        nf.NormalizingFlow(base, layers, nf.distributions.TwoMoons()).reverse_kld(32).backward()
        return YES, "`reverse_kld`, `reverse_alpha_div`"
    if library == "Pyro":
        _fit_pyro(2)
        return YES, "`SVI` with `AutoNormalizingFlow`"
    return NO_DENSITY if library == "FrEIA" else BY_HAND


def _fit_pyro(steps: int):
    from functools import partial

    import pyro
    import pyro.distributions as dist
    from pyro.infer import SVI, Trace_ELBO
    from pyro.infer.autoguide import AutoNormalizingFlow

    def model() -> None:
        pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    layers = partial(dist.transforms.iterated, 2, dist.transforms.affine_autoregressive)
    guide = AutoNormalizingFlow(model, layers)
    fit = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    for _ in range(steps):
        assert math.isfinite(fit.step())
    return model, guide


def _evidence(library: str) -> Seen:
    if library == "Pyro":
        from pyro.infer import Importance

        found = Importance(*_fit_pyro(2), num_samples=50)
        found.run()
        assert found.get_ESS() > 1
        assert found.get_log_normalizer().isfinite()
        return YES, "`Importance.get_log_normalizer`, `get_ESS`"
    return absent(library, r"log_?z$|evidence|(^|_)ess$|effective_s|normalizer$")


def _vae(library: str) -> Seen:
    if library == "normflows":
        return stated(YES, "`NormalizingFlowVAE`")
    if library == "Pyro":
        return stated(YES, "`SVI` with a guide that is a flow")
    return NO_DENSITY if library == "FrEIA" else BY_HAND


def _graph(library: str) -> Seen:
    if library == "FrEIA":
        return YES, _freias_images(torch.randn(2, 3, 8, 8))[1]
    return absent(library, "graph", layer=True)


def _program(library: str) -> Seen:
    if library == "Pyro":
        _fit_pyro(1)
        return YES, "`AutoNormalizingFlow`, `sample` of a flow"
    if library == "zuko":
        import zuko

        site_of_pyro(zuko.flows.MAF(2, hidden_features=(8,)))
        return (
            YES,
            "in Pyro, whose own `pyro.contrib.zuko.ZukoToPyro` makes `flow(c)` a site of a guide or model",
        )
    flow = KITS[library](4, 1, spline=False, coupling=True).module
    assert not isinstance(flow, torch.distributions.Distribution)
    return NO, f"its `{type(flow).__name__}` is no distribution of `torch.distributions`"


def _stochastic(library: str) -> Seen:
    if library == "normflows":
        import normflows as nf

        proposal = nf.distributions.DiagGaussianProposal((2,), 0.1)
        layer = nf.flows.MetropolisHastings(nf.distributions.TwoMoons(), proposal, 3)
        assert layer(torch.randn(5, 2))[1].isfinite().all()
        return YES, "`MetropolisHastings`"
    return absent(library, "metropol|stochastic|langevin|mcmc", layer=True)


def _block(library: str) -> Seen:
    if library == "Pyro":
        from pyro.distributions.transforms import block_autoregressive

        block_autoregressive(3)(torch.randn(4, 3))
        return YES, "`BlockAutoregressive`, one way"
    return absent(library, "blockauto|block_?neural|bnaf")


def _jax(library: str) -> Seen:
    found = imports(PACKAGES[library], "jax")
    assert not found, found
    return NO, "on PyTorch; no file imports `jax`"


OWN = {
    "stress": stress,
    "far": far,
    "compile": _compile,
    "continuous": _continuous,
    "residual": _residual,
    "images": _images,
    "circular": _circular,
    "deterministic": _deterministic,
    "dequantization": _dequantization,
    "tables": _tables,
    "trainer": _trainer,
    "resume": _resume,
    "files": _files,
    "targets": _targets,
    "evidence": _evidence,
    "vae": _vae,
    "graph": _graph,
    "program": _program,
    "stochastic": _stochastic,
    "block": _block,
    "jax": _jax,
}


def seen(key: str, library: str) -> Seen:
    torch.manual_seed(0)
    if library == "diffeo" and key in ours.PROBES:
        return ours.PROBES[key]()
    return (COMMON | OWN)[key](library)


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    packages = ["diffeo", "torch", "zuko", "nflows", "normflows", "FrEIA", "pyro-ppl"]
    table: dict = {"versions": {name: version(name) for name in packages}}
    for key in COMMON | OWN:
        table[key] = {}
        for library in ON_TORCH:
            table[key][library] = seen(key, library)
            print(key, library, *table[key][library], file=sys.stderr, flush=True)
    print(json.dumps(table))


if __name__ == "__main__":
    main()
