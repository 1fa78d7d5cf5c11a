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

import json
import time
from argparse import Namespace
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import kit
import numpy as np
import torch
from torch import Tensor, nn

import diffeo
from diffeo import autoencoders as ae
from diffeo.flow import Flow
from diffeo.functional.matmul_precision import matmul_dtype
from diffeo.objectives import Batch, Likelihood
from diffeo.train import OptimizerSettings, TensorRows, fit
from diffeo.train.optimizer import FlatAdamW

PIXELS, LATENT = 784, 64
HELD = 2000
"""Training images that choose the weights kept."""
POSTERIORS: dict[str, Callable[[int, Namespace], Flow]] = {
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


def build(name: str, seed: int, asked: Namespace) -> Flow:
    """The model; what all posteriors share starts alike for one seed."""
    torch.manual_seed(seed)
    encoder = nn.Sequential(layers(PIXELS, asked.hidden, asked.context), nn.SiLU())
    decoder = ae.Bernoulli(layers(LATENT, asked.context, asked.hidden, PIXELS), (PIXELS,), LATENT)
    shared = POSTERIORS["none"](asked.context, asked)
    posterior = POSTERIORS[name](asked.context, asked)
    posterior.base.load_state_dict(shared.base.state_dict())
    return ae.autoencoder(encoder, posterior, decoder)


def pace(asked: Namespace, rows: Tensor) -> dict[str, float]:
    """Processor seconds of a step of each, in turns, so that other work on the machine slows all alike."""
    batch = Batch(rows[: asked.batch], None, None, torch.arange(asked.batch))

    def stepping(name: str) -> Callable[[], None]:
        flow = build(name, 0, asked).train()
        params = list(flow.parameters())
        optimizer = FlatAdamW(params, [p.detach().clone() for p in params], 0.0, 1.0)

        def step() -> None:
            optimizer.zero_grad()
            with matmul_dtype(products(asked)):
                loss = Binarized()(flow, batch)
            loss.backward()
            optimizer.gather()
            optimizer.step(1e-5, 0.9)

        return step

    runs = {name: stepping(name) for name in asked.posteriors}
    times = kit.by_turns(runs, 50, warm_up=10, clock=time.process_time)
    return {name: float(np.median(found)) for name, found in times.items()}


def products(asked: Namespace) -> torch.dtype | None:
    """What nets multiply in while training."""
    return None if asked.full else torch.bfloat16


def train(name: str, seed: int, steps: int, rows: Tensor, asked: Namespace) -> tuple[Flow, kit.Row]:
    """One model, trained for so many steps."""
    flow = build(name, seed, asked)
    kept = {"weight_decay": 1e-4, "clip": asked.clip, "patience": 1.0, "matmul_dtype": products(asked)}
    report = fit(
        flow,
        rows[:-HELD],
        validation=TensorRows(rows[-HELD:], None, None, torch.arange(HELD)),
        objective=Binarized(),
        max_steps=steps,
        batch_size=asked.batch,
        seed=seed,
        optimizer=OptimizerSettings(learning_rate=asked.learning_rate, **kept),
        clock=time.process_time,
    )
    course = {**kit.fitted(report), "skipped": report.skipped, "valid": -report.valid, "train": -report.train}
    return flow, {**course, "curve": [(point.step, point.seconds, -point.valid) for point in report.curves]}


@torch.no_grad()
def score(flow: Flow, test: Tensor, asked: Namespace) -> tuple[kit.Row, Tensor]:
    """Negative ELBO of all test images, and the importance-weighted bound of the first."""
    found = ae.evidence(flow, test, num_draws=asked.elbo_draws)
    few = ae.evidence(flow, test[: asked.subset], num_draws=asked.draws)
    encoding = flow.encoding
    assert isinstance(encoding, ae.VariationalEncoding)
    nelbo, bound = -found.elbo, -few.log_prob
    return {
        "negative_elbo": nelbo.mean().item(),
        "standard_error": (nelbo.std() / len(nelbo) ** 0.5).item(),
        f"first {asked.subset}: negative_elbo": -few.elbo.mean().item(),
        f"first {asked.subset}: bound of {asked.draws} draws": bound.mean().item(),
        f"first {asked.subset}: standard_error": (bound.std() / len(bound) ** 0.5).item(),
        f"first {asked.subset}: ess": few.ess.mean().item(),
    }, nelbo


def options() -> kit.Options:
    parser = kit.Options(__doc__, data=..., seeds=[0, 1], seconds=480.0, threads=...)
    parser.option("--posteriors", list(POSTERIORS), choices=list(POSTERIORS))
    parser.option("--steps", 0, "so many for all, whatever they cost")
    parser.option("--full", False, "nets multiply in float32, not bfloat16")
    parser.option("--hidden", 512)
    parser.option("--context", 256, "numbers that the encoder gives")
    parser.option("--batch", 256)
    parser.option("--learning-rate", 4e-3)
    parser.option("--clip", 100.0)
    parser.option("--planar-layers", 2)
    parser.option("--sylvester-layers", 1)
    parser.option("--sylvester-rank", 16)
    parser.option("--sylvester-reflections", 8)
    parser.option("--iaf-layers", 2)
    parser.option("--iaf-hidden", 256)
    parser.option("--elbo-draws", 4, "of each test image")
    parser.option("--draws", 64, "of the importance-weighted bound")
    parser.option("--subset", 1000, "test images for that bound")
    parser.option("--test", 10_000, "test images")
    return parser.option("--out", None, "file to which a line of JSON is added for every run", type=Path)


def main() -> None:
    asked = options().ask()
    stored = np.load(kit.folder(asked, "mnist") / "mnist.npz")
    rows, test = (torch.from_numpy(stored[k]).reshape(-1, PIXELS) for k in ("x_train", "x_test"))
    test = binary(test[: asked.test], torch.Generator().manual_seed(1))
    costs = pace(asked, rows)
    for seed in asked.seeds:
        first = None
        for name in asked.posteriors:
            flow, course = train(name, seed, asked.steps or int(asked.seconds / costs[name]), rows, asked)
            scores, nelbo = score(flow, test, asked)
            first = nelbo if first is None else first
            gain = first - nelbo
            found = {
                "posterior": name,
                "seed": seed,
                "parameters": kit.size(flow),
                **scores,
                "gain": gain.mean().item(),
                "gain_error": (gain.std() / len(gain) ** 0.5).item(),
                "milliseconds_a_step": 1000 * costs[name],
                **course,
                "settings": kit.settings(asked),
                "versions": {"diffeo": diffeo.__version__, "torch": torch.__version__},
            }
            if asked.out is not None:
                kit.Store(asked.out).keep(found)
            found.pop("curve")
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
