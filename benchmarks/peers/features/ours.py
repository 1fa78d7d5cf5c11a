"""Probes of diffeo alone, where those of other libraries do not fit it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import diffeo
from diffeo import Flow, bases, kernels, presets
from diffeo.autoencoders import Bernoulli, autoencoder, iaf
from diffeo.bijections import Autoregressive
from diffeo.elementwise import CircularRationalQuadratic
from diffeo.encodings import VariationalNoise
from diffeo.nets import ResMADE
from diffeo.targets import U1
from peers.features import PARTLY, YES, Seen, absent
from peers.features.common import both_ways, close, site_of_pyro

PLAIN = """
import json, torch
from peers.features.common import both_ways
torch.manual_seed(0)
torch.set_num_threads(1)
print(json.dumps(both_ways("diffeo")))
"""


def small(columns: int = 2) -> Flow:
    return presets.NSF(columns, layers=1, hidden=8).build()


def _both_ways() -> Seen:
    """With the kernels and, in a process of its own, without."""
    assert kernels.native is not None, "these times are of the compiled kernels"
    verdict, text = both_ways("diffeo")
    plain = subprocess.run(
        [sys.executable, "-c", PLAIN],
        env={**os.environ, "DIFFEO_KERNELS": "0"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    without, slower = json.loads(plain.stdout)
    return verdict, f"{text}; without the kernels: {slower}, which would be “{without}”"


def _continuous() -> Seen:
    flow = presets.FFJORD(3, hidden=16).build().eval()
    assert flow.log_prob(torch.randn(4, 3)).isfinite().all()
    return YES, "`presets.FFJORD`; `presets.FlowMatching` trains it without solves"


def _images() -> Seen:
    flow = presets.Glow((3, 8, 8), levels=2, layers=1, hidden=16).build().eval()
    with torch.no_grad():
        for weights in flow.parameters():
            weights.add_(0.1 * torch.randn_like(weights))
    x = torch.rand(2, 3, 8, 8)
    return close(flow.to_data(flow.to_latent(x)), x, "`presets.Glow`")


def _circular() -> Seen:
    family = CircularRationalQuadratic()
    flow = Flow(
        Autoregressive(ResMADE(2, family.num_params, 16), family), bases.Uniform((2,), -math.pi, math.pi)
    )
    assert flow.log_prob(6 * torch.rand(5, 2) - 3).isfinite().all()
    return YES, "`CircularRationalQuadratic`"


def _dequantization() -> Seen:
    u, log_q = VariationalNoise((1, 2, 2), hidden=4)(torch.rand(1, 5, 1, 2, 2), torch.zeros(5, 1, 2, 2))
    assert u.isfinite().all()
    assert log_q.isfinite().all()
    return YES, "`VariationalNoise`"


def _trainer() -> Seen:
    report = diffeo.fit(small(), torch.randn(200, 2), max_steps=5)
    assert math.isfinite(report.valid)
    return YES, "`diffeo.fit(validation=)`"


def _resume() -> Seen:
    x = torch.randn(200, 2)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        for _ in range(2):
            diffeo.fit(small(), x, max_steps=5, checkpoint=path)
    return YES, "`diffeo.fit(checkpoint=)`"


def _files() -> Seen:
    flow, x = small(), torch.randn(5, 2)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        diffeo.save(flow, path)
        assert torch.equal(diffeo.load(path).log_prob(x), flow.log_prob(x))
    return YES, "`diffeo.save`, `diffeo.load`: safetensors with a recipe"


def _targets() -> Seen:
    diffeo.fit_target(small(), U1(), max_steps=5)
    return YES, "`diffeo.fit_target`"


def _evidence() -> Seen:
    report = diffeo.fit_target(small(), U1(), max_steps=5)
    assert math.isfinite(report.log_z)
    assert report.ess > 0
    return YES, "`log_z`, `log_z_error` and `ess` of `fit_target`'s report"


def _vae() -> Seen:
    model = autoencoder(torch.nn.Linear(6, 8), iaf(2, 8), Bernoulli(torch.nn.Linear(2, 6), (6,), 2))
    assert model.log_prob(torch.ones(5, 6)).isfinite().all()
    return YES, "`autoencoders.autoencoder`, `autoencoders.iaf`"


def _program() -> Seen:
    site_of_pyro(small().distribution)
    return PARTLY, (
        "`flow.distribution(c)` is a `torch.distributions` one; the adapter in Pyro for zuko, "
        "`pyro.contrib.zuko.ZukoToPyro`, made it a site of a guide"
    )


PROBES: dict[str, Callable[[], Seen]] = {
    "both_ways": _both_ways,
    "continuous": _continuous,
    "images": _images,
    "circular": _circular,
    "dequantization": _dequantization,
    "trainer": _trainer,
    "resume": _resume,
    "files": _files,
    "targets": _targets,
    "evidence": _evidence,
    "vae": _vae,
    "graph": lambda: absent("diffeo", "graph"),
    "program": _program,
}
