"""What ``Reversible`` gives away and what it saves: gradients, peak memory and time of a training step.

    python benchmarks/reversible.py [--data 8d moons checkerboard] [--activations relu silu] [--seeds 3]
                                    [--layers 8 64] [--repeats 3]

Gradients: RealNVP of 64 couplings, each behind an ActNorm, trained for 200 steps of Adam in float32; then
the gradient of one batch by ``Reversible`` beside the ordinary one in float32 and in float64. ``all`` is
the relative error of the whole gradient's norm, ``worst`` the largest of a single parameter's. The last
pair says what rounding alone does: at a ReLU's kink a row may fall on the other side.

Memory: the peak of a step above what the process held before, after a step of two rows, by Linux's own
count (VmHWM, VmRSS); each figure from a process of its own. Time: the median step of the same process.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from diffeo.bijections import ActNorm, Bijection, Chain, Coupling, Reversible
from diffeo.elementwise import Affine
from diffeo.nets import MLP
from diffeo.targets import TOYS

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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


# -- gradients --------------------------------------------------------------------------------------


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
    return [
        g.double().flatten() for g in torch.autograd.grad(loss(bijection, x), list(bijection.parameters()))
    ]


def errors(found: list[Tensor], wanted: list[Tensor]) -> dict[str, float]:
    whole = (torch.cat(found) - torch.cat(wanted)).norm() / torch.cat(wanted).norm()
    each = [((f - w).norm() / w.norm()).item() for f, w in zip(found, wanted, strict=True)]
    return {"all": rounded(whole.item()), "worst": rounded(max(each))}


def rounded(number: float) -> float:
    return float(f"{number:.2g}")


def gradients(name: str, activation: str, seed: int, layers: int = 64, steps: int = 200) -> dict[str, object]:
    torch.manual_seed(seed)
    features, draw = source(name)
    chain = couplings(features, layers, (64, 64), activation)
    chain.initialize(draw(2000))
    deep = Reversible(chain)
    optimizer = torch.optim.Adam(deep.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(deep, draw(256)).backward()
        optimizer.step()
    x = draw(256)
    single = gradient(chain, x)
    double = gradient(copy.deepcopy(chain).double(), x.double())
    return {
        "data": name,
        "activation": activation,
        "seed": seed,
        "layers": layers,
        "Reversible against float32": errors(gradient(deep, x), single),
        "Reversible against float64": errors(gradient(deep, x), double),
        "float32 against float64": errors(single, double),
    }


# -- memory and time --------------------------------------------------------------------------------


def resident(field: str) -> float:
    """A field of /proc/self/status, in MiB."""
    found = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.M)
    assert found is not None
    return int(found[1]) / 1024


def measure(layers: int, reversible: bool, features: int, batch: int, width: int, repeats: int) -> None:
    """Print the peak and the time of a step; for a process of its own."""
    torch.manual_seed(0)
    bijection: Bijection = couplings(features, layers, (width, width))
    if reversible:
        bijection = Reversible(bijection)
    optimizer = torch.optim.Adam(bijection.parameters(), lr=1e-4)

    def step(x: Tensor) -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        loss(bijection, x).backward()
        optimizer.step()
        return time.perf_counter() - start

    x = torch.randn(batch, features)
    step(x[:2])
    CLEAR.write_text("5")
    before = resident("VmRSS")
    spent = [step(x)]
    peak = resident("VmHWM") - before
    spent += [step(x) for _ in range(repeats)]
    print(json.dumps({"MiB": round(peak, 1), "seconds": round(statistics.median(spent), 3)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", nargs="*", default=["8d", "moons", "checkerboard"])
    parser.add_argument("--activations", nargs="*", default=["relu", "silu"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--layers", type=int, nargs="*", default=[8, 64])
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", choices=["chain", "Reversible"], help="measure the first of --layers here")
    arguments = parser.parse_args()
    sizes = [arguments.features, arguments.batch, arguments.width, arguments.repeats]
    if arguments.one:
        return measure(arguments.layers[0], arguments.one == "Reversible", *sizes)
    for name in arguments.data:
        for activation, seed in product(arguments.activations, range(arguments.seeds)):
            print(json.dumps(gradients(name, activation, seed)), flush=True)
    options = [f"--{key}={getattr(arguments, key)}" for key in ("features", "batch", "width", "repeats")]
    for kind in ("chain", "Reversible"):
        rows = []
        for layers in arguments.layers:
            command = [sys.executable, __file__, "--one", kind, f"--layers={layers}", *options]
            rows.append(
                json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            )
            print(json.dumps({"kind": kind, "layers": layers, **rows[-1]}), flush=True)
        if rows:
            ratio = round(rows[-1]["MiB"] / rows[0]["MiB"], 2)
            print(json.dumps({"kind": kind, "last of first": {"MiB": ratio}}), flush=True)


if __name__ == "__main__":
    main()
