"""Glow of the paper's size, 256 x 256 x 3 with 6 levels of 32 steps, on this machine.

    python benchmarks/glow_256.py --data DIR [--hidden 512] [--steps 2] [--batch 1]

Crops of the photographs in DIR/skimage_samples. In a process each, with activations kept and with
``reversible=True``: some training steps (by Adam, from weights moved off their neutral start), the last one
timed with its peak memory above what was held before; then forward, inverse and the largest error
of a float32 round trip of a crop and of its latent. Writes benchmarks/results/glow_256.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import data
import numpy as np
import torch
from reversible import CLEAR, resident
from torch import Tensor

from diffeo.encodings import Dequantization
from diffeo.images.read import read_images
from diffeo.presets import Glow
from diffeo.train.optimizer import FlatAdamW

SIZE = 256
SHAPE = (3, SIZE, SIZE)
RESULT = Path(__file__).parent / "results" / "glow_256.json"


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


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """One of the two ways, in this process."""
    torch.manual_seed(0)
    x = crops(data.folder(asked, "skimage_samples"), max(4, asked.batch * asked.steps))
    preset = Glow(SHAPE, levels=6, layers=32, hidden=asked.hidden, reversible=asked.reversible)
    flow = preset.build(Dequantization(SHAPE, bits=5))
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.003 * torch.randn_like(p))
    flow.initialize(x[:4])
    params = list(flow.parameters())
    optimizer = FlatAdamW(params, [p.detach().clone() for p in params], 0.0, 5.0)
    losses, took, peak = [], 0.0, 0.0
    for i in range(asked.steps):
        before = resident("VmRSS")
        CLEAR.write_text("5")
        tick = time.perf_counter()
        optimizer.zero_grad()
        loss = -flow(x[i * asked.batch : (i + 1) * asked.batch]).mean()
        loss.backward()
        optimizer.gather()
        optimizer.step(1e-4, 0.9)
        took, peak = time.perf_counter() - tick, resident("VmHWM") - before
        losses.append(float(loss) / (np.prod(SHAPE) * np.log(2)))
    flow.eval()
    with torch.no_grad():
        v = flow.encoding.encode(x[: asked.batch])[0][0]  # type: ignore[union-attr]
        tick = time.perf_counter()
        z, _ = flow.bijection(v)
        forward = time.perf_counter() - tick
        tick = time.perf_counter()
        back, _ = flow.bijection.inverse(z)
        inverse = time.perf_counter() - tick
        again, _ = flow.bijection(back)
    return {
        "reversible": asked.reversible,
        "parameters": sum(p.numel() for p in params),
        "step_s": took,
        "peak_mb": peak,
        "forward_s": forward,
        "inverse_s": inverse,
        "round_trip_of_crops": float((back - v).abs().max()),
        "round_trip_of_latents": float((again - z).abs().max()),
        "bits_per_dim": losses,
        "all_finite": bool(torch.isfinite(back).all() and torch.isfinite(again).all()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data.add_arguments(parser)
    parser.add_argument("--hidden", type=int, default=512, help="channels of the hidden layers")
    parser.add_argument("--steps", type=int, default=2, help="training steps, the last one is timed")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--way", choices=["kept", "reversible"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    data.folder(asked, "skimage_samples")
    if asked.way:
        asked.reversible = asked.way == "reversible"
        print(json.dumps(measure(asked)))
        return
    found = []
    for way in ("kept", "reversible"):
        command = [sys.executable, __file__, *sys.argv[1:], "--way", way]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{way}: ended with {done.returncode}: {done.stderr[-500:]}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(found[-1]), flush=True)
    options = {"hidden": asked.hidden, "steps": asked.steps, "batch": asked.batch}
    RESULT.write_text(json.dumps({"options": options, "runs": found}, indent=1) + "\n")
    print("| | step, s | peak, GB | forward, s | inverse, s | round trip |\n|--|--:|--:|--:|--:|--:|")
    for run in found:
        error = max(run["round_trip_of_crops"], run["round_trip_of_latents"])
        name = "Reversible" if run["reversible"] else "activations kept"
        print(
            f"| {name} | {run['step_s']:.1f} | {run['peak_mb'] / 1024:.2f} | {run['forward_s']:.1f} | "
            f"{run['inverse_s']:.1f} | {error:.1e} |"
        )


if __name__ == "__main__":
    main()
