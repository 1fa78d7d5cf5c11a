"""Entropies of the toy densities, derived three ways.

    python benchmarks/measure.py toy_entropies [--fine] [--samples 50000]

For each toy: ``-sum p log p`` over a grid at two spacings (the midpoint rule converges exponentially for a
smooth density), the mass that the grid misses, and the mean of ``-log p`` over fresh draws of the
generator with its standard error: the entropy plus the divergence, if the formula were not the generator's.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Iterator

import kit
import torch

from diffeo.targets.toys import TOYS, Toy
from measurements import Measurement

# Half the side of a box that holds all but 1e-9 of the mass, and the coarse spacing.
GRIDS = {
    "8gaussians": (6.0, 0.1),
    "checkerboard": (4.0, 0.5),  # cell centers: exact
    "moons": (5.0, 0.05),
    "circles": (4.8, 0.06),
    "rings": (3.6, 0.02),
    "pinwheel": (6.0, 0.04),
    "2spirals": (4.2, 0.03),
    "swissroll": (4.4, 0.05),
}


def by_quadrature(toy: Toy, half: float, spacing: float) -> tuple[float, float]:
    """Entropy and total mass from cell centers of a grid on ``(-half, half)^2``."""
    n = round(2 * half / spacing)
    axis = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 * half / n) - half
    log_p = toy.log_prob(torch.cartesian_prod(axis, axis))
    p = log_p.exp() * (2 * half / n) ** 2
    return -torch.where(p > 0, p * log_p, 0.0).sum().item(), p.sum().item()


def by_sampling(toy: Toy, n: int, seed: int) -> tuple[float, float]:
    """Mean of ``-log p`` over n draws, and its standard error."""
    values = -toy.log_prob(toy.draw(n, torch.Generator().manual_seed(seed)))
    return values.mean().item(), values.std().item() / math.sqrt(n)


def rows(asked: Namespace) -> Iterator[kit.Row]:
    for name, toy in TOYS.items():
        half, spacing = GRIDS[name]
        spacing = spacing / 2 if asked.fine else spacing
        fine, mass = by_quadrature(toy, half, spacing)
        mean, error = by_sampling(toy, asked.samples, asked.seed)
        yield {
            "toy": name,
            "stored": toy.entropy,
            "coarse grid": by_quadrature(toy, half, spacing * 2)[0],
            "grid": fine,
            "1 - mass": 1 - mass,
            "sampled": mean,
            "standard error": error,
        }


OPTIONS = {"--samples": 50_000, "--fine": (False, "grids twice as fine")}
MEASUREMENT = Measurement(__doc__, rows, {"seed": ...}, OPTIONS)
