"""Variational autoencoders on binarized MNIST: posteriors with and without flows, all else equal.

    python benchmarks/vae_mnist.py --data DIR --seeds 0 1 --seconds 480 --out FILE.jsonl

One encoder, one decoder, 64 latent numbers, a standard normal prior; only the posterior differs. Runs of one
seed are paired: the same start of all that they share, the same batches and binarization. Training images are
binarized anew at every step (each pixel is 1 with the probability that its gray says), the 10,000 test images
once, with a fixed seed. ``--seconds`` is processor time of one process with one thread, turned into a number
of steps after all models' steps were timed in turns: what else the machine does takes steps from none.
Reported are the test images' negative ELBO (mean of so many draws each) and, on the first of them, the
importance-weighted bound, each with its standard error over images, and paired differences to the first one.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import data
import numpy as np
import torch
from diffeo.train.data import Rows
from torch import Tensor, nn

import diffeo
from diffeo import autoencoders as ae
from diffeo.flow import Flow
from diffeo.functional.matmul_precision import matmul_dtype
from diffeo.objectives import Batch, Likelihood
from diffeo.train import Recipe, fit
from diffeo.train.optimizer import FlatAdamW

PIXELS, LATENT = 784, 64
HELD = 2000
"""Training images that choose the weights kept."""
POSTERIORS: dict[str, Callable[[int, argparse.Namespace], Flow]] = {
    "none": lambda h, asked: ae.diagonal(LATENT, h),
    "planar": lambda h, asked: ae.planar(LATENT, h, asked.planar_layers),
    "sylvester": lambda h, asked: ae.sylvester(
        LATENT, h, asked.sylvester_layers, asked.sylvester_rank, asked.sylvester_reflections
    ),
    "iaf": lambda h, asked: ae.iaf(LATENT, h, asked.iaf_layers, (asked.iaf_hidden,)),
}


class Binarized:
    """The likelihood of images made binary: anew at every step of training, with a fixed seed otherwise."""

    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        generator = None if flow.training else torch.Generator().manual_seed(0)
        x = binary(batch.x, generator)
        return Likelihood()(flow, Batch(x, None, batch.weights, batch.rows))


def binary(gray: Tensor, generator: torch.Generator | None) -> Tensor:
    """Each pixel 1 with the probability that its gray, 0 to 255, says."""
    return (torch.empty_like(gray).random_(0, 255, generator=generator) < gray).to(torch.uint8)


def layers(*widths: int) -> nn.Sequential:
    """Linear layers, each but the last followed by its activation."""
    parts: list[nn.Module] = []
    for a, b in pairwise(widths):
        parts += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*parts[:-1])


def build(name: str, seed: int, asked: argparse.Namespace) -> Flow:
    """The model; what all posteriors share starts alike for one seed."""
    torch.manual_seed(seed)
    encoder = nn.Sequential(layers(PIXELS, asked.hidden, asked.context), nn.SiLU())
    decoder = ae.Bernoulli(layers(LATENT, asked.context, asked.hidden, PIXELS), (PIXELS,), LATENT)
    shared = POSTERIORS["none"](asked.context, asked)
    posterior = POSTERIORS[name](asked.context, asked)
    posterior.base.load_state_dict(shared.base.state_dict())
    return ae.autoencoder(encoder, posterior, decoder)


class Clock:
    """Processor time and validation score at the steps where a run is measured."""

    def __init__(self, name: str):
        self.name = name
        self.curve: list[tuple[int, float, float]] = []
        self.started = time.process_time()

    def on_progress(self, progress: Any) -> None:
        if not math.isnan(progress.valid):
            seconds = time.process_time() - self.started
            self.curve.append((progress.step, round(seconds, 1), round(-progress.valid, 3)))
            if len(self.curve) % 10 == 1:
                print(
                    f"{self.name}: {seconds:.0f} s, step {progress.step}: {-progress.valid:.2f}", flush=True
                )


def pace(asked: argparse.Namespace, rows: Tensor) -> dict[str, float]:
    """Processor seconds of a step of each, in turns, so that other work on the machine slows all alike."""
    batch = Batch(rows[: asked.batch], None, None, torch.arange(asked.batch))
    flows = {name: build(name, 0, asked).train() for name in asked.posteriors}
    optimizers = {
        name: FlatAdamW(list(flow.parameters()), list(copy.deepcopy(flow).parameters()), 0.0, 1.0)
        for name, flow in flows.items()
    }
    times: dict[str, list[float]] = {name: [] for name in flows}
    for _ in range(60):
        for name, flow in flows.items():
            tick = time.process_time()
            optimizers[name].zero_grad()
            with matmul_dtype(products(asked)):
                loss = Binarized()(flow, batch)
            loss.backward()
            optimizers[name].gather()
            optimizers[name].step(1e-5, 0.9)
            times[name].append(time.process_time() - tick)
    return {name: float(np.median(found[10:])) for name, found in times.items()}


def products(asked: argparse.Namespace) -> torch.dtype | None:
    """What nets multiply in while training."""
    return None if asked.full else torch.bfloat16


def train(
    name: str, seed: int, steps: int, rows: Tensor, asked: argparse.Namespace
) -> tuple[Flow, dict[str, Any]]:
    """One model, trained for so many steps."""
    flow = build(name, seed, asked)
    recipe = Recipe(
        learning_rate=asked.learning_rate,
        weight_decay=1e-4,
        clip=asked.clip,
        patience=1.0,
        products=products(asked),
    )
    valid = Rows(rows[-HELD:], None, None, torch.arange(HELD))
    clock = Clock(name)
    report = fit(
        flow, rows[:-HELD], validation=valid, objective=Binarized(), max_steps=steps, batch_size=asked.batch,
        seed=seed, recipe=recipe, callbacks=[clock],
    )  # fmt: skip
    return flow, {
        "steps": report.steps,
        "best_step": report.best_step,
        "skipped": report.skipped,
        "processor_seconds": clock.curve[-1][1],
        "seconds": report.seconds,
        "valid": -report.valid,
        "train": -report.train,
        "curve": clock.curve,
    }


@torch.no_grad()
def score(flow: Flow, test: Tensor, asked: argparse.Namespace) -> tuple[dict[str, Any], Tensor]:
    """Negative ELBO of all test images, and the importance-weighted bound of the first."""
    found = ae.evidence(flow, test, num_draws=asked.elbo_draws)
    few = ae.evidence(flow, test[: asked.subset], num_draws=asked.draws)
    door = flow.encoding
    assert isinstance(door, ae.VariationalEncoding)
    nelbo, bound = -found.elbo, -few.log_prob
    return {
        "negative_elbo": nelbo.mean().item(),
        "standard_error": (nelbo.std() / len(nelbo) ** 0.5).item(),
        f"first {asked.subset}: negative_elbo": -few.elbo.mean().item(),
        f"first {asked.subset}: bound of {asked.draws} draws": bound.mean().item(),
        f"first {asked.subset}: standard_error": (bound.std() / len(bound) ** 0.5).item(),
        f"first {asked.subset}: ess": few.ess.mean().item(),
    }, nelbo


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data.add_arguments(parser)
    parser.add_argument("--posteriors", nargs="+", default=list(POSTERIORS), choices=list(POSTERIORS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--seconds", type=float, default=480, help="processor time of each run")
    parser.add_argument("--steps", type=int, help="so many for all, whatever they cost")
    parser.add_argument("--full", action="store_true", help="nets multiply in float32, not bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--context", type=int, default=256, help="numbers that the encoder gives")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--clip", type=float, default=100.0)
    parser.add_argument("--planar-layers", type=int, default=2)
    parser.add_argument("--sylvester-layers", type=int, default=1)
    parser.add_argument("--sylvester-rank", type=int, default=16)
    parser.add_argument("--sylvester-reflections", type=int, default=8)
    parser.add_argument("--iaf-layers", type=int, default=2)
    parser.add_argument("--iaf-hidden", type=int, default=256)
    parser.add_argument("--elbo-draws", type=int, default=4, help="of each test image")
    parser.add_argument("--draws", type=int, default=64, help="of the importance-weighted bound")
    parser.add_argument("--subset", type=int, default=1000, help="test images for that bound")
    parser.add_argument("--out", type=Path, help="file to which a line of JSON is added for every run")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    stored = np.load(data.folder(asked, "mnist") / "mnist.npz")
    rows = torch.from_numpy(stored["x_train"]).reshape(-1, PIXELS)
    test = binary(torch.from_numpy(stored["x_test"]).reshape(-1, PIXELS), torch.Generator().manual_seed(1))
    fields = {k: v for k, v in vars(asked).items() if k not in ("data", "out", "seeds", "posteriors")}
    costs = pace(asked, rows)
    steps = {name: asked.steps or int(asked.seconds / cost) for name, cost in costs.items()}
    for seed in asked.seeds:
        first = None
        for name in asked.posteriors:
            flow, how = train(name, seed, steps[name], rows, asked)
            scores, nelbo = score(flow, test, asked)
            first = nelbo if first is None else first
            gain = first - nelbo
            found = {
                "posterior": name,
                "seed": seed,
                "parameters": sum(p.numel() for p in flow.parameters()),
                **scores,
                "gain": gain.mean().item(),
                "gain_error": (gain.std() / len(gain) ** 0.5).item(),
                "milliseconds_a_step": 1000 * costs[name],
                **how,
                "settings": fields,
                "versions": {"diffeo": diffeo.__version__, "torch": torch.__version__},
            }
            if asked.out is not None:
                with asked.out.open("a") as file:
                    file.write(json.dumps(found) + "\n")
            found.pop("curve")
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
