"""Entropies of the toy densities, derived three ways: ``python benchmarks/toy_entropies.py [--fine]``.

For each toy: ``-sum p log p`` over a grid at two spacings (the midpoint rule converges exponentially for a
smooth density), the grid's total mass, which must be 1, and the mean of ``-log p`` over fresh draws of the
generator with its standard error: the entropy plus the divergence, if the formula were not the generator's.
"""

from __future__ import annotations

import argparse
import math
import time

import torch

from diffeo.targets.toys import TOYS, Toy

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


def by_sampling(toy: Toy, n: int, seed: int = 0) -> tuple[float, float]:
    """Mean of ``-log p`` over n draws, and its standard error."""
    values = -toy.log_prob(toy.draw(n, torch.Generator().manual_seed(seed)))
    return values.mean().item(), values.std().item() / math.sqrt(n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--fine", action="store_true", help="grids twice as fine")
    args = parser.parse_args()
    print(f"{'toy':>13} {'stored':>9} {'coarse':>11} {'grid':>11} {'1 - mass':>10} {'sampled':>17} {'s':>5}")
    for name, toy in TOYS.items():
        start, (half, spacing) = time.perf_counter(), GRIDS[name]
        spacing = spacing / 2 if args.fine else spacing
        coarse, _ = by_quadrature(toy, half, spacing * 2)
        fine, mass = by_quadrature(toy, half, spacing)
        mean, error = by_sampling(toy, args.samples)
        print(
            f"{name:>13} {toy.entropy:9.5f} {coarse:11.6f} {fine:11.6f} {1 - mass:10.1e} "
            f"{mean:10.5f} +- {error:.4f} {time.perf_counter() - start:5.1f}"
        )


if __name__ == "__main__":
    main()
