"""Draws of a trained flow far out, beside the truth: every preset of vectors, with a context and without.

    python benchmarks/measure.py tails [--steps 800] [--noise 0.1] [--presets NSF MAF]

With a context: theta is uniform on (-3, 3)^3, x is theta and noise, and the flow learns theta given x from
5,000 pairs. Away from the ends that is normal, so draws are measured in its deviations: their deviation
(right: 1), the share beyond five (right: 6e-7) and the farthest; and the log-density 20 deviations out beside
that in the middle (right: -200). Without: y is sin(2 x) and noise a fifth of ``--noise``, x uniform; the last
two columns are the share of draws more than five of its deviations off the curve and the farthest.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

import kit
import torch
from torch import Tensor

import diffeo
from diffeo.functional.seeding import generator
from diffeo.presets import PRESETS, VectorPreset
from measurements import Measurement

VECTORS = [name for name, kind in PRESETS.items() if issubclass(kind, VectorPreset)]
ROWS = 5000


def fitted(name: str, x: Tensor, context: Tensor | None, asked: Namespace) -> diffeo.Flow:
    kind = PRESETS[name]
    assert issubclass(kind, VectorPreset)
    flow = kind(x.shape[1], None if context is None else context.shape[1]).build()
    diffeo.fit(
        flow,
        x,
        context=context,
        max_steps=asked.steps,
        max_seconds=asked.seconds,
        seed=asked.seed,
        progress=False,
    )
    return flow.eval()


@torch.no_grad()
def rows(asked: Namespace) -> Iterator[kit.Row]:
    for name in asked.presets:
        g = generator(asked.seed)
        theta = 6 * torch.rand(ROWS, 3, generator=g) - 3
        x = theta + asked.noise * torch.randn(ROWS, 3, generator=g)
        with torch.enable_grad():
            flow = fitted(name, theta, x, asked)
        x = 4 * torch.rand(200, 3, generator=g) - 2
        z = (flow.sample((50,), x, generator=g) - x) / asked.noise
        out = x + 20 * asked.noise * torch.tensor([1.0, 0.0, 0.0])
        below = (flow.log_prob(out, x) - flow.log_prob(x, x)).median()
        along = 6 * torch.rand(ROWS, generator=g) - 3
        width = asked.noise / 5
        curve = torch.stack([along, torch.sin(2 * along) + width * torch.randn(ROWS, generator=g)], 1)
        with torch.enable_grad():
            flow = fitted(name, curve, None, asked)
        draws = flow.sample(10_000, generator=g)
        off = (draws[:, 1] - torch.sin(2 * draws[:, 0])).abs() / width
        yield {
            "preset": name,
            "deviation": z.std().item(),
            "beyond 5": (z.abs() > 5).float().mean().item(),
            "farthest": z.abs().max().item(),
            "at 20": below.item(),
            "off the curve": (off > 5).float().mean().item(),
            "farthest off": off.max().item(),
        }


OPTIONS = {"--steps": 800, "--seconds": (60.0, "of each fit, at most"), "--noise": 0.1}
OPTIONS["--presets"] = (VECTORS, "which of them")
MEASUREMENT = Measurement(__doc__, rows, {"seed": ...}, OPTIONS)
