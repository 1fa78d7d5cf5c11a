"""TarFlow's ways to sample, against naive sampling by a full pass a token: 64 and 256 tokens.

    python benchmarks/token_sampling.py [--tokens 64 256] [--batch 1 16] [--steps 100] [--rounds 5]

One flow of 4 blocks of 2 layers, hidden 128, patches of 4 x 4, is measured twice: with random weights (its
start, plus normal noise of 0.03 on every weight), and trained for some steps on pictures of stripes drawn
here. Ways are timed in turns; naive sampling, the slowest by far, in fewer rounds. Passes are net
passes' worth of work in a block, averaged over rows and blocks; the difference is the largest from naive
sampling, from the same latents. Writes RESULTS/token_sampling.json and RESULTS/token_sampling.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from peers.machine import machine
from peers.processes import ROOT
from torch import Tensor

import diffeo
from diffeo.bijections import AutoregressiveTokens, Chain, Jacobi, Stepwise, TokenSampler, Uncached
from diffeo.testing import randomize_

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
    flow = diffeo.presets.TarFlow((1, size, size)).build()
    if not steps:
        return randomize_(flow.eval(), seed, scale=0.03)
    generator = torch.Generator().manual_seed(seed)
    pictures = stripes(32 * steps, size, generator)
    diffeo.fit(flow, pictures, max_steps=steps, batch_size=32, validation=0, seed=seed)
    return flow.eval()


@torch.no_grad()
def draw(flow: diffeo.Flow, z: Tensor, sampler: TokenSampler) -> tuple[Tensor, list[Tensor]]:
    """The data of these latents, and the passes of every block."""
    assert isinstance(flow.bijection, Chain)
    passes = []
    for part in reversed(flow.bijection.parts):
        if isinstance(part, AutoregressiveTokens):
            solution = part.solve(z, sampler=sampler)
            z = solution.x
            passes.append(solution.passes)
        else:
            z = part.pull(z)  # type: ignore[operator]
    return z, passes


def measured(flow: diffeo.Flow, batch: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each way: its times, its passes, how far its samples are from the naive ones."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(batch, *flow.latent_shape, generator=generator)
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    results = {name: draw(flow, z, way) for name, way in WAYS.items() if name != NAIVE}  # a first, untimed
    for i in range(rounds):
        for name, way in WAYS.items():
            if name == NAIVE and i >= max(1, rounds // 3):
                continue
            start = time.perf_counter()
            results[name] = draw(flow, z, way)
            times[name].append(1e3 * (time.perf_counter() - start))
    naive = statistics.median(times[NAIVE])
    rows = []
    for name in WAYS:
        x, passes = results[name]
        row = {
            "way": name,
            "ms": sorted(times[name]),
            "naive / this": naive / statistics.median(times[name]),
            "passes": torch.stack(passes).mean().item(),
            "most passes": torch.stack(passes).max().item(),
            "difference": (x - results[NAIVE][0]).abs().max().item(),
        }
        rows.append(row)
    return rows


def markdown(found: dict[str, Any]) -> str:
    place = found["machine"]
    lines = [
        "# Sampling from TarFlow",
        "",
        "4 blocks of 2 layers, hidden 128, patches of 4 x 4, float32. Milliseconds for a batch: the median,",
        f"and in brackets least and greatest of up to {found['rounds']} rounds, in turns.",
        f"{place['processor']}, {place['threads']} threads, {place['date']}.",
        "Passes: net passes' worth of work in a block, the mean over rows and blocks, and the most.",
        "Difference: the largest from naive sampling, from the same latents.",
    ]
    for case in found["cases"]:
        weights = f"after {case['steps']} steps of training" if case["steps"] else "random weights"
        lines += [
            "",
            f"## {case['tokens']} tokens, batch {case['batch']}, {weights}",
            "",
            "| | ms | naive / this | passes (most) | difference |",
            "| -- | --: | --: | --: | --: |",
        ]
        for row in case["rows"]:
            ms = row["ms"]
            lines.append(
                f"| {row['way']} | {statistics.median(ms):.1f} ({ms[0]:.1f}-{ms[-1]:.1f}) "
                f"| {row['naive / this']:.1f} | {row['passes']:.1f} ({row['most passes']:.1f}) "
                f"| {row['difference']:.1g} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    asked = parser.parse_args()
    if any(round(n**0.5) ** 2 != n for n in asked.tokens):
        parser.error("--tokens must be squares, as the pictures are.")
    torch.set_num_threads(asked.threads)
    cases = []
    for tokens in asked.tokens:
        for steps in (0, asked.steps):
            flow = flow_of(tokens, steps, asked.seed)
            for batch in asked.batch:
                rows = measured(flow, batch, asked.rounds)
                cases.append({"tokens": tokens, "batch": batch, "steps": steps, "rows": rows})
    found = {"machine": machine(asked.threads), "rounds": asked.rounds, "cases": cases}
    asked.results.mkdir(parents=True, exist_ok=True)
    (asked.results / "token_sampling.json").write_text(json.dumps(found, indent=1) + "\n")
    (asked.results / "token_sampling.md").write_text(markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
