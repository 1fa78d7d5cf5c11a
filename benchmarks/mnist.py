"""Bits per dimension of MNIST: 28 x 28 pixels of 8 bits, unpadded, all 10,000 test images.

    python benchmarks/mnist.py --data DIR --presets Glow [--seconds 600] [--threads 2] [--bf16]

Each preset is fitted by ``fit_images`` with its own door and defaults for so many seconds of training (the
closing score comes on top), 1,000 of the 60,000 training images held out to pick the weights; the test
images are scored once, at the end. Adds a line for each to benchmarks/results/mnist.jsonl, which says how
many threads and seconds it had; ``--out`` keeps the model and a picture of samples.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import data
import numpy as np
import torch
from torch import Tensor

import diffeo
from diffeo.cli.options import settings
from diffeo.flow import Flow
from diffeo.images import fit_images
from diffeo.images.pictures import grid, save_image
from diffeo.io.recipes import to_recipe
from diffeo.presets import PRESETS, ImagePreset
from diffeo.train import Recipe

SHAPE = (1, 28, 28)
RESULTS = Path(__file__).parent / "results" / "mnist.jsonl"
IMAGES = [name for name, kind in PRESETS.items() if issubclass(kind, ImagePreset)]


@torch.no_grad()
def bits(flow: Flow, x: Tensor, batch: int = 250) -> Tensor:
    """Of every image."""
    found = [flow.log_prob(x[i : i + batch]) for i in range(0, len(x), batch)]
    return diffeo.bits_per_dim(torch.cat(found), SHAPE)


class Curve:
    """Says where a run stands, each time it is measured."""

    def __init__(self, name: str):
        self.name = name

    def on_progress(self, progress: Any) -> None:
        if not math.isnan(progress.valid):
            valid = -progress.valid / (math.prod(SHAPE) * math.log(2))
            print(f"{self.name} {progress.seconds:.0f} s, step {progress.step}: {valid:.4f}", flush=True)


def run(name: str, train: Tensor, test: Tensor, asked: argparse.Namespace) -> dict[str, Any]:
    """One preset, fitted and scored."""
    kind = PRESETS[name]
    preset = kind(SHAPE, **settings(kind, asked.set))  # type: ignore[call-arg]
    flow, report = fit_images(
        train,
        preset=preset,
        max_seconds=asked.seconds,
        batch_size=asked.batch,
        seed=asked.seed,
        callbacks=[Curve(name)],
        recipe=Recipe(learning_rate=preset.learning_rate, products=torch.bfloat16 if asked.bf16 else None),
    )
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        diffeo.save(flow, asked.out / f"{name}.safetensors")
    tick = time.monotonic()
    scores = bits(flow, test)
    scoring = time.monotonic() - tick
    flow.encoding.num_draws = asked.draws  # type: ignore[union-attr]
    tighter = bits(flow, test[:1000])
    flow.encoding.num_draws = 1  # type: ignore[union-attr]
    if asked.out is not None:
        pixels = flow.sample(64, generator=torch.Generator().manual_seed(0))
        save_image(grid(pixels), asked.out / f"{name}.png")
    return {
        "preset": name,
        "fields": to_recipe(preset)["fields"],
        "parameters": sum(p.numel() for p in flow.parameters()),
        "seconds": asked.seconds,
        "threads": asked.threads,
        "bf16": asked.bf16,
        "seed": asked.seed,
        "steps": report.steps,
        "images_per_second": report.steps * asked.batch / report.seconds,
        "stopped": report.stopped,
        "valid": report.bits_per_dim["valid"],
        "test": scores.mean().item(),
        "standard_error": (scores.std() / len(scores) ** 0.5).item(),
        f"first 1000, {asked.draws} draws": tighter.mean().item(),
        "first 1000, 1 draw": scores[:1000].mean().item(),
        "score_seconds": scoring,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data.add_arguments(parser)
    parser.add_argument("--presets", nargs="+", default=IMAGES, choices=IMAGES)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--bf16", action="store_true", help="nets multiply in bfloat16 while training")
    parser.add_argument("--draws", type=int, default=8, help="of the tighter bound")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="of the preset")
    parser.add_argument("--out", type=Path, help="folder for models and samples")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    stored = np.load(data.folder(asked, "mnist") / "mnist.npz")
    train, test = (torch.from_numpy(stored[key])[:, None] for key in ("x_train", "x_test"))
    for name in asked.presets:
        found = run(name, train, test, asked)
        with RESULTS.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
