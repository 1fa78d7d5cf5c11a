"""TarFlow's ways to sample, against naive sampling by a full pass a token.

    python benchmarks/measure.py token_sampling --threads 2 [--tokens 64 256] [--batch 1 16] [--steps 100]

One flow of 4 blocks of 2 layers, hidden 128, patches of 4 x 4, float32, is measured twice: with random
weights (its start, plus normal noise of 0.03 on every weight), and trained for some steps on pictures of
stripes drawn here. ``ms`` for a batch: the median, and in brackets least and greatest; ways are timed in
turns, naive sampling, the slowest by far, in fewer rounds. Passes are net passes' worth of work in a block,
averaged over rows and blocks; the difference is the largest from naive sampling, from the same latents.
"""

from __future__ import annotations

import statistics
import sys
from argparse import Namespace
from collections.abc import Iterator
from itertools import product

import kit
import torch
from torch import Tensor

import diffeo
from diffeo.bijections import AutoregressiveTokens, Chain, Jacobi, Stepwise, TokenSampler, Uncached
from diffeo.presets import TarFlow
from diffeo.testing import randomize_
from measurements import Measurement

NAIVE = "naive: a full pass a token"
WAYS: dict[str, TokenSampler] = {
    "cached (`Stepwise()`)": Stepwise(),
    "`Jacobi(1e-4)`": Jacobi(1e-4),
    "`Jacobi(1e-2)`": Jacobi(1e-2),
    "`Jacobi(1e-4, window=16)`": Jacobi(1e-4, window=16),
    NAIVE: Uncached(),
}


def stripes(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Pictures of slanted waves with a little noise, scaled as a dequantized picture is."""
    angle, phase, pitch = torch.rand(3, count, 1, 1, generator=generator)
    i, j = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    way = (6.28 * angle).cos() * i + (6.28 * angle).sin() * j
    waves = ((0.2 + 0.6 * pitch) * way + 6.28 * phase).sin()
    return (0.4 * waves + 0.02 * torch.randn(count, size, size, generator=generator)).unsqueeze(1)


def flow_of(tokens: int, steps: int, seed: int) -> diffeo.Flow:
    """A TarFlow over so many patches; of random weights where it is not to be trained."""
    size = 4 * round(tokens**0.5)
    torch.manual_seed(seed)
    flow = TarFlow((1, size, size)).build()
    if not steps:
        return randomize_(flow.eval(), seed, scale=0.03)
    pictures = stripes(32 * steps, size, torch.Generator().manual_seed(seed))
    diffeo.fit(flow, pictures, max_steps=steps, batch_size=32, validation=0, seed=seed)
    return flow.eval()


@torch.no_grad()
def draw(flow: diffeo.Flow, z: Tensor, sampler: TokenSampler) -> tuple[Tensor, Tensor]:
    """The data of these latents, and the passes of every block and row."""
    assert isinstance(flow.bijection, Chain)
    passes = []
    for part in reversed(flow.bijection.parts):
        if isinstance(part, AutoregressiveTokens):
            solution = part.solve(z, sampler=sampler)
            z = solution.x
            passes.append(solution.passes)
        else:
            z = part.pull(z)  # type: ignore[operator]
    return z, torch.stack(passes)


def rows(asked: Namespace) -> Iterator[kit.Row]:
    if any(round(n**0.5) ** 2 != n for n in asked.tokens):
        sys.exit("--tokens must be squares, as the pictures are.")
    for tokens, steps in product(asked.tokens, (0, asked.steps)):
        flow = flow_of(tokens, steps, asked.seed)
        weights = f"trained {steps} steps" if steps else "random"
        for batch in asked.batch:
            z = torch.randn(batch, *flow.latent_shape, generator=torch.Generator().manual_seed(1))
            runs = {name: lambda way=way, z=z, flow=flow: draw(flow, z, way) for name, way in WAYS.items()}
            times = kit.by_turns(runs, asked.rounds, warm_up=1, fewer={NAIVE: max(1, asked.rounds // 3)})
            wanted = runs[NAIVE]()[0]
            for name, run in runs.items():
                x, passes = run()
                yield {
                    "tokens": tokens,
                    "weights": weights,
                    "batch": batch,
                    "way": name,
                    "ms": [1e3 * seconds for seconds in times[name]],
                    "naive / this": statistics.median(times[NAIVE]) / statistics.median(times[name]),
                    "passes": passes.mean().item(),
                    "most passes": passes.max().item(),
                    "difference": (x - wanted).abs().max().item(),
                }


OPTIONS = {"--tokens": [64, 256], "--batch": [1, 16], "--steps": 100}
MEASUREMENT = Measurement(__doc__, rows, {"rounds": ..., "threads": 2, "seed": ...}, OPTIONS, page=True)
