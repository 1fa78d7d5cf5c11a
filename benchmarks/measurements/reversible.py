"""What ``Reversible`` gives away and what it saves: gradients, peak memory and time of a training step.

    python benchmarks/measure.py reversible [--densities 8d moons checkerboard] [--seeds 0 1 2] [--rounds 3]

Gradients: RealNVP of 64 couplings, each behind an ActNorm, trained for 200 steps of Adam in float32; then
the gradient of one batch by ``Reversible`` beside the ordinary one in float32 and in float64. ``all`` is
the relative error of the whole gradient's norm, ``worst`` the largest of a single parameter's. The last
pair says what rounding alone does: at a ReLU's kink a row may fall on the other side.

Memory: the peak of a step above what the process held before, after a step of two rows, by Linux's own
count (VmHWM, VmRSS); each figure from a process of its own. Time: the median step of the same process.
"""

from __future__ import annotations

import copy
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import kit
import torch
from torch import Tensor
from torch.nn import functional

from diffeo.bijections import ActNorm, Bijection, Chain, Coupling, Reversible
from diffeo.elementwise import Affine
from diffeo.nets import MLP
from diffeo.targets import TOYS
from measurements import Measurement


def couplings(features: int, layers: int, hidden: Sequence[int], activation: str = "relu") -> Chain:
    parts: list[Bijection] = []
    for i in range(layers):
        mask = [(i + j) % 2 == 0 for j in range(features)]
        net = MLP(sum(mask), 2 * (features - sum(mask)), hidden, activation=getattr(functional, activation))
        parts += [ActNorm((features,)), Coupling(mask, net, Affine())]
    return Chain(parts)


def loss(bijection: Bijection, x: Tensor) -> Tensor:
    """The mean negative log-likelihood under a standard normal, without its constant."""
    z, log_det = bijection(x)
    return (0.5 * z.square().sum(-1) - log_det).mean()


def step(bijection: Bijection, optimizer: torch.optim.Optimizer, x: Tensor) -> float:
    start = time.perf_counter()
    optimizer.zero_grad()
    loss(bijection, x).backward()
    optimizer.step()
    return time.perf_counter() - start


# -- gradients ----------------------------------------------------------------------------------------


def source(name: str) -> tuple[int, Callable[[int], Tensor]]:
    """The number of columns and a sampler: a toy of the plane, or eight columns bent and correlated."""
    if name in TOYS:
        return 2, TOYS[name].sample
    mixing = torch.randn(8, 8)

    def draw(n: int) -> Tensor:
        z = torch.randn(n, 8) @ mixing
        bent = z[:, 4:].sin() + 0.3 * z[:, :4].square() + 0.1 * torch.randn(n, 4)
        return torch.cat([z[:, :4], bent], 1)

    return 8, draw


def gradient(bijection: Bijection, x: Tensor) -> list[Tensor]:
    slopes = torch.autograd.grad(loss(bijection, x), list(bijection.parameters()))
    return [g.double().flatten() for g in slopes]


def errors(found: list[Tensor], wanted: list[Tensor]) -> kit.Row:
    whole = (torch.cat(found) - torch.cat(wanted)).norm() / torch.cat(wanted).norm()
    each = [((f - w).norm() / w.norm()).item() for f, w in zip(found, wanted, strict=True)]
    return {"all": whole.item(), "worst": max(each)}


def gradients(name: str, activation: str, seed: int, asked: Namespace) -> kit.Row:
    torch.manual_seed(seed)
    features, draw = source(name)
    chain = couplings(features, asked.couplings, (64, 64), activation)
    chain.initialize(draw(2000))
    deep = Reversible(chain)
    optimizer = torch.optim.Adam(deep.parameters(), lr=1e-3)
    for _ in range(asked.steps):
        step(deep, optimizer, draw(256))
    x = draw(256)
    single = gradient(chain, x)
    double = gradient(copy.deepcopy(chain).double(), x.double())
    return {
        "density": name,
        "activation": activation,
        "seed": seed,
        "layers": asked.couplings,
        "Reversible against float32": errors(gradient(deep, x), single),
        "Reversible against float64": errors(gradient(deep, x), double),
        "float32 against float64": errors(single, double),
    }


# -- memory and time ----------------------------------------------------------------------------------


def one(asked: Namespace, kind: str, layers: int) -> kit.Row:
    """The peak and the time of a step; for a process of its own."""
    torch.manual_seed(asked.seeds[0])
    bijection: Bijection = couplings(asked.features, layers, (asked.width, asked.width))
    bijection = Reversible(bijection) if kind == "Reversible" else bijection
    optimizer = torch.optim.Adam(bijection.parameters(), lr=1e-4)
    x = torch.randn(asked.batch, asked.features)
    step(bijection, optimizer, x[:2])
    with kit.Peak() as peak:
        spent = [step(bijection, optimizer, x)]
    spent += [step(bijection, optimizer, x) for _ in range(asked.rounds)]
    return {"step of": kind, "layers": layers, "peak, MB": peak.mb, "seconds": statistics.median(spent)}


def rows(asked: Namespace) -> Iterator[kit.Row]:
    for name, activation, seed in product(asked.densities, asked.activations, asked.seeds):
        yield gradients(name, activation, seed, asked)
    for kind, layers in product(("chain", "Reversible"), asked.layers):
        yield kit.in_own_process(one, asked, kind, layers)


OPTIONS = {
    "--densities": ["8d", "moons", "checkerboard"],
    "--activations": ["relu", "silu"],
    "--couplings": (64, "of the gradients' flow"),
    "--steps": (200, "of its training"),
    "--layers": ([8, 64], "of the flows whose steps are measured"),
    "--features": 64,
    "--batch": 4096,
    "--width": 128,
}
MEASUREMENT = Measurement(__doc__, rows, {"seeds": [0, 1, 2], "rounds": 3}, OPTIONS)
