"""Glow of the paper's size, 256 x 256 x 3 with 6 levels of 32 steps, on this machine.

    python benchmarks/measure.py glow_256 --data DIR [--hidden 512] [--steps 2] [--batch 1]

Crops of the photographs in DIR/skimage_samples. In a process each, with activations kept and with
``reversible=True``: some training steps (by Adam, from weights moved off their neutral start), the last one
timed with its peak memory above what was held before; then forward, inverse and the largest error
of a float32 round trip of a crop and of its latent.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import kit
import numpy as np
import torch
from torch import Tensor

import diffeo
from diffeo.encodings import Dequantization
from diffeo.images.read import read_images
from diffeo.presets import Glow
from diffeo.testing import randomize_
from diffeo.train.optimizer import FlatAdamW
from measurements import Measurement

SIZE = 256


def crops(folder: Path, count: int) -> Tensor:
    """Squares of the photographs, where a seeded generator points."""
    photographs = [read_images(path).pixels[0] for path in sorted(folder.glob("*.png"))]
    g = np.random.default_rng(0)
    found = []
    for i in range(count):
        image = photographs[i % len(photographs)]
        top, left = (int(g.integers(0, n - SIZE + 1)) for n in image.shape[1:])
        found.append(image[:, top : top + SIZE, left : left + SIZE])
    return torch.stack(found)


def seconds(run) -> tuple[float, Tensor]:
    tick = time.perf_counter()
    value, _ = run()
    return time.perf_counter() - tick, value


def one(asked: Namespace, way: str) -> kit.Row:
    """One of the two ways, in this process."""
    shape = (3, SIZE, SIZE)
    x = crops(kit.folder(asked, "skimage_samples"), max(4, asked.batch * asked.steps))
    sizes = {"levels": asked.levels, "layers": asked.layers, "hidden": asked.hidden}
    flow = Glow(shape, **sizes, reversible=way == "reversible").build(Dequantization(shape, bits=5))
    randomize_(flow, asked.seed, scale=0.003)
    flow.initialize(x[:4])
    params = list(flow.parameters())
    optimizer = FlatAdamW(params, [p.detach().clone() for p in params], 0.0, 5.0)
    for batch in x[: asked.batch * asked.steps].split(asked.batch):
        with kit.Peak() as peak:
            tick = time.perf_counter()
            optimizer.zero_grad()
            loss = -flow(batch).mean()
            loss.backward()
            optimizer.gather()
            optimizer.step(1e-4, 0.9)
            step = time.perf_counter() - tick
    flow.eval()
    with torch.no_grad():
        v = flow.encoding.encode(x[: asked.batch])[0][0]  # type: ignore[union-attr]
        forward, z = seconds(lambda: flow.bijection(v))
        inverse, back = seconds(lambda: flow.bijection.inverse(z))
        again, _ = flow.bijection(back)
    return {
        "activations": way,
        "parameters": kit.size(flow),
        "step, s": step,
        "peak, MB": peak.mb,
        "forward, s": forward,
        "inverse, s": inverse,
        "round trip of crops": float((back - v).abs().max()),
        "of latents": float((again - z).abs().max()),
        "bits per dim": float(diffeo.bits_per_dim(-loss.detach(), shape)),
    }


def rows(asked: Namespace) -> Iterator[kit.Row]:
    kit.folder(asked, "skimage_samples")
    for way in ("kept", "reversible"):
        yield kit.in_own_process(one, asked, way)


OPTIONS = {
    "--levels": 6,
    "--layers": (32, "steps of flow a level"),
    "--hidden": (512, "channels of the hidden layers"),
    "--steps": (2, "of training; the last one is timed"),
    "--batch": 1,
}
MEASUREMENT = Measurement(__doc__, rows, {"data": ..., "seed": ..., "threads": 2}, OPTIONS)
