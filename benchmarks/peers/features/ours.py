"""Probes of diffeo alone, where those of other libraries do not fit it."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import kit
import torch
from torch import nn

import diffeo
from diffeo import Flow, bases, kernels, presets
from diffeo.autoencoders import Bernoulli, autoencoder, iaf
from diffeo.bijections import Autoregressive, Chain, Coupling, Reversible
from diffeo.contracts import Projectable
from diffeo.elementwise import Affine, CircularRationalQuadratic, DeepSigmoid, RationalQuadratic
from diffeo.encodings import VariationalNoise
from diffeo.nets import MLP, ResMADE
from diffeo.targets import U1
from peers.features import PARTLY, YES, Probe, Seen, absent, console_scripts, ran
from peers.features import on_torch as probes
from peers.libraries.diffeo import ours
from peers.libraries.on_torch import stir
from peers.spec import Spec

PLAIN = """
import json, torch
from peers.features.on_torch import both_ways
torch.manual_seed(0)
torch.set_num_threads(1)
print(json.dumps(both_ways("diffeo")))
"""


def small(columns: int = 2) -> Flow:
    return presets.NSF(columns, layers=1, hidden=8).build()


def contracting(flow: Flow) -> Flow:
    """A residual flow with weights as after training."""
    stir(flow, 1.0)
    for part in flow.modules():
        if isinstance(part, Projectable):
            part.project_()
    return flow


def _stress() -> Seen:
    family = RationalQuadratic(bins=8, bound=3.0)
    return probes.round_trips(
        lambda x, *p: family.forward(x, torch.cat(p, -1)),
        lambda y, *p: family.inverse(y, torch.cat(p, -1))[0],
    )


def _far() -> Seen:
    family = DeepSigmoid()
    params = torch.randn(2, 1, family.num_params)
    return probes.from_afar(lambda x: family.inverse(family.forward(x, params)[0], params)[0])


def _both_ways() -> Seen:
    """With the kernels and, in a process of its own, without."""
    assert kernels.native is not None, "these times are of the compiled kernels"
    verdict, text = probes.both_ways("diffeo")
    without, slower = kit.answer([sys.executable, "-c", PLAIN], DIFFEO_KERNELS="0")
    return verdict, f"{text}; without the kernels: {slower}, which would be “{without}”"


def _residual() -> Seen:
    flow, x = contracting(presets.IResNet(4, layers=2).build()).eval(), torch.randn(20, 4)
    return probes.close(flow.to_data(flow.to_latent(x)), x, "`Contractive`, `presets.IResNet`")


def _images() -> Seen:
    flow, x = presets.Glow((3, 8, 8), levels=2, layers=1, hidden=16).build().eval(), torch.rand(2, 3, 8, 8)
    stir(flow)
    return probes.close(flow.to_data(flow.to_latent(x)), x, "`presets.Glow`")


def _circular() -> torch.Tensor:
    family = CircularRationalQuadratic()
    layer = Autoregressive(ResMADE(2, family.num_params, 16), family)
    return Flow(layer, bases.Uniform((2,), -math.pi, math.pi)).log_prob(6 * torch.rand(5, 2) - 3).sum()


def _deterministic() -> Seen:
    flow = contracting(presets.ResidualFlow(4, layers=2).build())
    return probes.deterministic("diffeo", residual=(flow, flow.log_prob))


def _memory() -> Seen:
    def built(layers: int):
        masks = [[(i + k) % 2 == 0 for i in range(8)] for k in range(layers)]
        chain = Chain([Coupling(mask, MLP(4, 8, (32,)), Affine()) for mask in masks])
        return ours(Spec("RealNVP", 8), Flow(Reversible(chain), bases.Normal((8,))))

    return probes.growth(built(4), built(16), ", in `Reversible`")


def _tables() -> Seen:
    assert console_scripts("diffeo") == ["diffeo"]
    return YES, "`diffeo fit`, `diffeo score`, `diffeo sample`"


def _resume() -> None:
    x = torch.randn(200, 2)
    with TemporaryDirectory() as folder:
        for _ in range(2):
            diffeo.fit(small(), x, max_steps=5, checkpoint=Path(folder) / "run")


def _files() -> None:
    flow, x = small(), torch.randn(5, 2)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        diffeo.save(flow, path)
        assert torch.equal(diffeo.load(path).log_prob(x), flow.log_prob(x))


def _vae() -> torch.Tensor:
    model = autoencoder(nn.Linear(6, 8), iaf(2, 8), Bernoulli(nn.Linear(2, 6), (6,), 2))
    return model.log_prob(torch.ones(5, 6)).sum()


CONTINUOUS = "`presets.FFJORD`; `presets.FlowMatching` trains it without solves"
EVIDENCE = "`log_z`, `log_z_error` and `ess` of `fit_target`'s report"
FILES = "`diffeo.save`, `diffeo.load`: safetensors and the preset that builds the flow"
PROGRAM = """`flow.distribution(c)` is a `torch.distributions` one; the adapter in Pyro for zuko,
`pyro.contrib.zuko.ZukoToPyro`, made it a site of a guide""".replace("\n", " ")
FFJORD, NOISE, IMAGES = presets.FFJORD(3, hidden=16), VariationalNoise((1, 2, 2), hidden=4), (5, 1, 2, 2)
PROBES: dict[str, Probe] = {
    "stress": _stress,
    "far": _far,
    "both_ways": _both_ways,
    "continuous": ran(YES, CONTINUOUS, lambda: FFJORD.build().eval().log_prob(torch.randn(4, 3)).sum()),
    "residual": _residual,
    "images": _images,
    "circular": ran(YES, "`CircularRationalQuadratic`", _circular),
    "deterministic": _deterministic,
    "dequantization": ran(
        YES, "`VariationalNoise`", lambda: NOISE(torch.rand(1, *IMAGES), torch.zeros(IMAGES))[1].sum()
    ),
    "memory": _memory,
    "tables": _tables,
    "trainer": ran(
        YES, "`diffeo.fit(validation=)`", lambda: diffeo.fit(small(), torch.randn(200, 2), max_steps=5).valid
    ),
    "resume": ran(YES, "`diffeo.fit(checkpoint=)`", _resume),
    "files": ran(YES, FILES, _files),
    "targets": ran(YES, "`diffeo.fit_target`", lambda: diffeo.fit_target(small(), U1(), max_steps=5).ess),
    "evidence": ran(YES, EVIDENCE, lambda: diffeo.fit_target(small(), U1(), max_steps=5).log_z),
    "vae": ran(YES, "`autoencoders.autoencoder`, `autoencoders.iaf`", _vae),
    "graph": lambda: absent("diffeo", "graph"),
    "program": ran(PARTLY, PROGRAM, lambda: probes.site_of_pyro(small().distribution)),
}
