"""Where the rules look: points in and out of a domain, contexts, parameters off their start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.distributions import constraints

from diffeo.functional.domains import bounds

T = TypeVar("T", bound=nn.Module)


def generator(seed: int) -> Generator:
    """A generator of one's own: the checks leave torch's default one alone."""
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def randomize_(module: T, seed: int = 0, scale: float = 0.3) -> T:
    """Add normal noise to every parameter, in place: flows start neutral, and at the identity most
    mistakes are invisible.

    Args:
        module: what to change.
        seed: of the noise; torch's default generator is left alone.
        scale: its standard deviation.

    Returns:
        ``module``.

    Example:
        >>> import diffeo
        >>> flow = randomize_(diffeo.presets.MAF(features=2).build())
    """
    g = generator(seed)
    for p in module.parameters():
        if p.is_floating_point():
            p.add_((scale * torch.randn(p.shape, generator=g, dtype=torch.float64)).to(p))
    return module


def draw(
    domain: constraints.Constraint | None, shape: Sequence[int], g: Generator, dtype: torch.dtype
) -> Tensor:
    """Random points well inside an elementwise domain; None and the whole line give normal ones."""
    low, high = ends(domain)
    if math.isfinite(low) and math.isfinite(high):
        u = torch.rand(tuple(shape), generator=g, dtype=torch.float64)
        return (low + (high - low) * (0.02 + 0.96 * u)).to(dtype)
    z = torch.randn(tuple(shape), generator=g, dtype=torch.float64)
    if math.isfinite(low):
        z = low + z.exp()
    elif math.isfinite(high):
        z = high - z.exp()
    else:
        z = 1.5 * z
    return z.to(dtype)


def outside(domain: constraints.Constraint | None) -> list[float]:
    """Numbers outside a domain: near either end, far, and infinite; none for the whole line."""
    low, high = ends(domain)
    values = []
    if math.isfinite(low):
        values += [low - 1e-3 * max(1.0, abs(low)), low - 1.0, -1e30, -math.inf]
    if math.isfinite(high):
        values += [high + 1e-3 * max(1.0, abs(high)), high + 1.0, 1e30, math.inf]
    return values


def ends(domain: constraints.Constraint | None) -> tuple[float, float]:
    """The interval of an elementwise domain, as floats."""
    if domain is None:
        return -math.inf, math.inf
    low, high = bounds(domain)
    return float(low), float(high)


def inside(domain: constraints.Constraint | None, x: Tensor) -> Tensor:
    """Where ``x`` lies in the closed interval of a domain."""
    low, high = ends(domain)
    return (x >= low) & (x <= high)
