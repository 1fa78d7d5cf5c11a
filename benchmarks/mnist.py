"""Bits per dimension of MNIST: 28 x 28 pixels of 8 bits, unpadded, all 10,000 test images.

    python benchmarks/mnist.py --data DIR --presets Glow [--seconds 600] [--threads 2] [--bf16]

Each preset is fitted by ``fit_images`` with its own encoding and defaults for so many seconds of training
(the closing score comes on top), 1,000 of the 60,000 training images held out to pick the weights; the test
images are scored once, at the end. Adds a line for each to RESULTS/mnist.jsonl, which says how many threads
and seconds it had; ``--out`` keeps the model and a picture of samples.
"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from pathlib import Path

import kit
import numpy as np
import torch
from torch import Tensor

import diffeo
from diffeo.cli.options import settings as fields
from diffeo.images import fit_images
from diffeo.images.pictures import grid, save_image
from diffeo.presets import PRESETS, ImagePreset
from diffeo.train import OptimizerSettings

SHAPE = (1, 28, 28)
IMAGES = [name for name, kind in PRESETS.items() if issubclass(kind, ImagePreset)]


@torch.no_grad()
def bits(flow: diffeo.Flow, x: Tensor) -> Tensor:
    """Of every image."""
    return diffeo.bits_per_dim(torch.cat([flow.log_prob(part) for part in x.split(250)]), SHAPE)


def run(name: str, train: Tensor, test: Tensor, asked: Namespace) -> kit.Row:
    """One preset, fitted and scored."""
    kind = PRESETS[name]
    preset = kind(SHAPE, **fields(kind, asked.set))  # type: ignore[call-arg]
    settings = OptimizerSettings(matmul_dtype=torch.bfloat16 if asked.bf16 else None)
    size = {"max_seconds": asked.seconds, "batch_size": asked.batch, "seed": asked.seed}
    flow, report = fit_images(train, preset=preset, optimizer=settings, **size)
    tick = time.monotonic()
    scores = bits(flow, test)
    scoring = time.monotonic() - tick
    flow.encoding.num_draws = asked.draws  # type: ignore[union-attr]
    tighter = bits(flow, test[:1000])
    flow.encoding.num_draws = 1  # type: ignore[union-attr]
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        diffeo.save(flow, asked.out / f"{name}.safetensors")
        pixels = flow.sample(64, generator=torch.Generator().manual_seed(0))
        save_image(grid(pixels), asked.out / f"{name}.png")
    return {
        "preset": name,
        "fields": kit.fields(preset),
        "parameters": kit.size(flow),
        **{key: getattr(asked, key) for key in ("seconds", "threads", "bf16", "seed")},
        "steps": report.training.steps,
        "images_per_second": report.training.steps * asked.batch / report.training.seconds,
        "stopped": report.training.stopped,
        "valid": report.bits_per_dim["valid"],
        **kit.mean_and_error(scores, 6),
        f"first 1000, {asked.draws} draws": tighter.mean().item(),
        "first 1000, 1 draw": scores[:1000].mean().item(),
        "score_seconds": scoring,
    }


def options() -> kit.Options:
    parser = kit.Options(__doc__, data=..., seconds=600.0, threads=2, seed=..., results=...)
    parser.option("--presets", IMAGES, choices=IMAGES)
    parser.option("--batch", 64)
    parser.option("--bf16", False, "nets multiply in bfloat16 while training")
    parser.option("--draws", 8, "of the tighter bound")
    parser.option("--set", [], "of the preset", nargs="*", metavar="FIELD=VALUE")
    parser.option("--images", 60_000, "to train on, and as many at most to test on")
    return parser.option("--out", None, "folder for models and samples", type=Path)


def main() -> None:
    asked = options().ask()
    stored = np.load(kit.folder(asked, "mnist") / "mnist.npz")
    train, test = (torch.from_numpy(stored[k])[: asked.images, None] for k in ("x_train", "x_test"))
    for name in asked.presets:
        found = run(name, train, test, asked)
        kit.Store(asked.results / "mnist.jsonl").keep(found)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
