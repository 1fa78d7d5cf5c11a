"""What the rules try: points in and out of a domain, contexts, parameters off their start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.distributions import constraints

from diffeo.contracts import Projectable
from diffeo.functional.domains import bounds, columns_of
from diffeo.functional.seeding import generator

T = TypeVar("T", bound=nn.Module)


@torch.no_grad()
def randomize_(module: T, seed: int = 0, scale: float = 0.3) -> T:
    """Add normal noise to every parameter, in place: flows start neutral, and at the identity most
    mistakes are invisible. Constraints are kept.

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
    for part in module.modules():
        if isinstance(part, Projectable):
            part.project_()
    return module


def draw(
    domain: constraints.Constraint | None, shape: Sequence[int], g: Generator, dtype: torch.dtype
) -> Tensor:
    """Random points well inside an elementwise domain; None and the whole line give normal ones."""
    if domain is not None and any(isinstance(end, Tensor) and end.dim() for end in bounds(domain)):
        parts = columns_of(domain, shape[-1])
        return torch.stack([draw(part, shape[:-1], g, dtype) for part in parts], -1)
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


def outside(domain: constraints.Constraint | None) -> list[tuple[float, Tensor]]:
    """Numbers outside a domain, and the columns in which they are: near each end, far, and infinite.

    The columns are a boolean tensor that broadcasts against an event; none for the whole line.
    """
    if domain is None:
        return []
    sides = [torch.as_tensor(end, dtype=torch.float64) for end in bounds(domain)]
    values: list[float] = []
    for end in sides[0].unique().tolist():
        if math.isfinite(end):
            values += [end - 1e-3 * max(1.0, abs(end)), end - 1.0, -1e30, -math.inf]
    for end in sides[1].unique().tolist():
        if math.isfinite(end):
            values += [end + 1e-3 * max(1.0, abs(end)), end + 1.0, 1e30, math.inf]
    bounded = [end.isfinite() for end in sides]  # an infinite end: infinity is not outside the domain
    where = [(v, ((v < sides[0]) & bounded[0]) | ((v > sides[1]) & bounded[1])) for v in values]
    return [(v, columns) for v, columns in where if columns.any()]


def ends(domain: constraints.Constraint | None) -> tuple[float, float]:
    """The interval of an elementwise domain, as floats; the widest where columns differ."""
    if domain is None:
        return -math.inf, math.inf
    low, high = (torch.as_tensor(end, dtype=torch.float64) for end in bounds(domain))
    return float(low.min()), float(high.max())


def inside(domain: constraints.Constraint | None, x: Tensor) -> Tensor:
    """Where ``x`` lies in the closed interval of a domain."""
    if domain is None:
        return torch.ones_like(x, dtype=torch.bool)
    low, high = bounds(domain)
    low, high = (end.to(x) if isinstance(end, Tensor) else end for end in (low, high))
    return (x >= low) & (x <= high)


def far_sizes(dtype: torch.dtype) -> list[float]:
    """Magnitudes from far to infinite: below and above the root of the largest float, and that float."""
    most = torch.finfo(dtype).max
    return [most**0.25, most**0.4, most**0.6, most**0.8, 0.3 * most, most, math.inf]


def clamp_to(domain: constraints.Constraint | None, x: Tensor) -> Tensor:
    """``x`` brought back to the ends of the domain."""
    if domain is None:
        return x
    low, high = (torch.as_tensor(end).to(x) for end in bounds(domain))
    return torch.minimum(torch.maximum(x, low), high)
