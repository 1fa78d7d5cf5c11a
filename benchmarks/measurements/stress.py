"""Float32 round trips of every family under stress: logits of +-10, on and around every knot, |x| = 1e6.

    python benchmarks/measure.py stress [--draws 20]

Errors are those of f^-1(f(x)). Where a map is nearly flat a float32 y cannot tell neighboring x apart, so
``of bound`` sets each error beside what item 10 of the contract allows there, 64 eps (X + F / f'(x)).
``not finite`` counts values, slopes and gradients.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

import kit
import torch

from diffeo import elementwise
from diffeo.functional.domains import bounds
from diffeo.testing.scalar import scalar_points, stress_params
from measurements import Measurement

FAMILIES = (
    elementwise.Additive(),
    elementwise.Affine(),
    elementwise.PiecewiseLinear(),
    elementwise.PiecewiseQuadratic(),
    elementwise.RationalQuadratic(),
    elementwise.RationalQuadratic(bins=64),
    elementwise.IntervalRationalQuadratic(),
    elementwise.CircularRationalQuadratic(),
)
FLOAT = torch.finfo(torch.float32)


def around(x: torch.Tensor) -> torch.Tensor:
    """``x``, its neighbors in float32, and itself."""
    infinity = torch.tensor(torch.inf)
    return torch.cat([x, torch.nextafter(x, infinity), torch.nextafter(x, -infinity)])


def rows(asked: Namespace) -> Iterator[kit.Row]:
    for family in FAMILIES:
        params = torch.cat([stress_params(family.num_params, seed) for seed in range(asked.draws)])
        low, high = bounds(family.domain)
        points = around(scalar_points(family.domain, family.scale)).clamp(low, high)
        x = points.expand(len(params), -1).clone().requires_grad_()
        p = params.unsqueeze(1).expand(*x.shape, -1).clone().requires_grad_()
        y, log_slope = family.forward(x, p)
        again, back_slope = family.inverse(y, p)
        grads = torch.autograd.grad((y / (1 + y.detach().abs())).sum() + log_slope.sum(), [x, p])
        size_x, size_y = (t.detach().double().abs().clamp_min(family.scale) for t in (x, y))
        error = (again.double() - x.double()).abs()
        bound = 64 * FLOAT.eps * (size_x + size_y * (-log_slope.double()).exp()) + FLOAT.tiny
        inside = x.abs() <= max(2 * family.scale, 10)
        yield {
            "family": f"`{family}`",
            "points": x.numel(),
            "not finite": sum(int((~t.isfinite()).sum()) for t in (y, log_slope, again, back_slope, *grads)),
            "largest error": float(f"{error[inside].max():.2g}"),
            "median error": float(f"{error[inside].median():.2g}"),
            "of bound": float(f"{(error / bound).max():.2g}"),
        }


MEASUREMENT = Measurement(__doc__, rows, options={"--draws": (20, "of parameters")})
