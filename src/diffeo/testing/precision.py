"""The precision rule of scalar maps: how far round trips may err, and the points it is tried at."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import constraints

from diffeo.testing.points import ends
from diffeo.testing.rules import require_close

ULPS = 64
"""The factor of item 10."""

Map = Callable[..., tuple[Tensor, Tensor]]


def scalar_points(domain: constraints.Constraint | None, scale: float) -> Tensor:
    """Float32 points of a domain: a grid, both ends and their neighbors, tiny ones, and up to 1e6."""
    low, high = (torch.tensor(e) for e in ends(domain))
    if low.isfinite() and high.isfinite():
        grid = low + (high - low) * torch.linspace(0, 1, 41)
        sure = [grid[1:-1], neighbors(grid[[0, -1]])]
    else:
        size = scale or 1.0
        grid = torch.linspace(-2 * size, 2 * size, 41)
        far = torch.tensor([1e-30, 1e-6, 1e-3, 1.0, 3.0, 10.0, 30.0, 1e3, 1e6])
        sure = [grid, far, -far, neighbors(torch.tensor([-size, 0.0, size]))]
        if low.isfinite():
            sure = [low + far]
        elif high.isfinite():
            sure = [high - far]
    points = torch.cat(sure)
    return points[(points >= low) & (points <= high)]


def neighbors(x: Tensor) -> Tensor:
    """``x`` and the next floats below and above."""
    return torch.cat([x, *(torch.nextafter(x, torch.full_like(x, e)) for e in (-math.inf, math.inf))], -1)


def check_round_trips(forward: Map, inverse: Map, x: Tensor, y: Tensor, scale: float) -> None:
    """Item 10 at float32 points ``x`` and ``y``: of both round trips, by the map's own slopes."""
    info = torch.finfo(x.dtype)
    for name, there, back, points in (
        ("inverse(forward(x))", forward, inverse, x),
        ("forward(inverse(y))", inverse, forward, y),
    ):
        with torch.no_grad():
            value, log_slope = there(points)
            again = back(value)[0]
        log_slope = log_slope.reshape(value.shape)
        # An open end is outside; a value near the largest float may have saturated.
        keep = (log_slope > -math.inf) & (value.abs() < 1e-9 * info.max)
        p, v, stretch = points.double(), value.double(), (-log_slope.double()).exp()
        bound = ULPS * info.eps * (p.abs().clamp_min(scale) + v.abs().clamp_min(scale) * stretch) + info.tiny
        require_close(f"{name} in float32", again[keep], p[keep], bound[keep])
