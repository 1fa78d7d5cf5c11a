"""Checks that a density integrates to one, and that its sampler draws from it, far out as well."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import constraints

from diffeo.functional.domains import bounds, columns_of
from diffeo.functional.seeding import generator
from diffeo.testing.points import ends
from diffeo.testing.rules import require

LogProb = Callable[[Tensor], Tensor]


@torch.no_grad()
def require_integral(log_prob: LogProb, samples: Tensor, domain: constraints.Constraint | None) -> None:
    """Numerical quadrature over one or two features; ``samples`` say where the mass is, tails included."""
    columns = samples.reshape(len(samples), -1).T
    domains = columns_of(domain or constraints.real, len(columns))
    one, is_far, total = len(columns) == 1, _far(samples), 0.0
    for count in (20_001,) if one else (401, 1201, 2401):  # finer grids only where the density is rough
        axes, weights = zip(*(_axis(c, d, count) for c, d in zip(columns, domains, strict=True)), strict=True)
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, *samples.shape[1:])
        weight = torch.stack(torch.meshgrid(*weights, indexing="ij"), -1).prod(-1).reshape(-1)
        chunks = zip(points.split(50_000), weight.split(50_000), strict=True)
        total = tail = 0.0
        for p, w in chunks:
            mass = log_prob(p).double().exp() * w
            total, tail = total + float(mass.sum()), tail + float((mass * is_far(p)).sum())
        if abs(total - 1) <= (2e-3 if one else 1e-2):
            return _require_tail(tail, 0.0, is_far(samples))
    raise AssertionError(f"the density integrates to {total:.5f}")


def _axis(samples: Tensor, domain: constraints.Constraint | None, count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights: even on an interval, else of sinh(t), dense amid the samples and reaching far."""
    low, high = ends(domain)
    if math.isfinite(low) and math.isfinite(high):
        step = (high - low) / count
        x = low + step * (torch.arange(count, dtype=torch.float64) + 0.5)
        return x.to(samples), torch.full_like(x, step)
    where = samples.double()
    a, m, b = torch.quantile(where, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
    size = float(b - a) / 2
    t = torch.linspace(-7, 7, count, dtype=torch.float64)  # reaches 548 sizes
    x, w = m + size * torch.sinh(t), size * torch.cosh(t) * (t[1] - t[0])
    inside = (x > low) & (x < high)
    return x[inside].to(samples), w[inside]


@torch.no_grad()
def require_covered(log_prob: LogProb, samples: Tensor) -> None:
    """Importance sampling, for more features: ``E_q[p / q] = 1`` within 5 standard errors, tails included.

    The proposal q is a mixture of normals on the samples, each as wide as its neighborhood.
    """
    g = generator(0)
    flat = samples.reshape(len(samples), -1).double()
    scale = _spread(flat)
    centers = (flat / scale)[:1000]
    features = centers.shape[1]
    width = torch.cdist(centers, centers).kthvalue(20).values.unsqueeze(1) / math.sqrt(features)
    which = torch.randint(len(centers), (6000,), generator=g)
    z = centers[which] + width[which] * torch.randn(6000, features, generator=g, dtype=torch.float64)
    square = torch.stack([((part.unsqueeze(1) - centers) / width).square().sum(-1) for part in z.split(500)])
    log_each = -0.5 * square.reshape(len(z), -1) - features * (
        width.squeeze(1).log() + 0.5 * math.log(2 * math.pi)
    )
    log_q = log_each.logsumexp(1) - math.log(len(centers)) - scale.log().sum()
    x = (z * scale).reshape(-1, *samples.shape[1:]).to(samples)
    ratio = (log_prob(x).double() - log_q).exp()
    mean, error = _mean(ratio)
    require(abs(mean - 1) <= 5 * error + 1e-3, f"the density integrates to {mean:.4f} +- {error:.4f}")
    is_far = _far(samples)
    _require_tail(*_mean(ratio * is_far(x)), is_far(samples))


@torch.no_grad()
def require_sampled(
    log_prob: LogProb, samples: Tensor, domain: constraints.Constraint | None, what: str
) -> None:
    """``E_p[q / p] = 1`` within 5 standard errors, for compact kernels q amid the samples.

    True only of samples and a normalized density that belong together, in any dimension.
    """
    flat = samples.reshape(len(samples), -1).double()
    half = len(flat) // 2  # the kernels come from one half of the samples, the mean from the other
    low, high = (torch.as_tensor(end, dtype=torch.float64) for end in bounds(domain or constraints.real))
    middle, scale = flat[:half].median(0).values, _spread(flat[:half])
    for shift in (0.0, 0.7, -0.7):
        center = middle + shift * scale
        width = torch.minimum(scale, torch.minimum(center - low, high - center))
        z = (flat - center) / width
        kernel = (0.75 * (1 - z.square()).clamp_min(0) / width).prod(-1)
        ratio = (kernel * (-log_prob(samples).double()).exp())[half:]
        mean, error = _mean(ratio)
        require(
            abs(mean - 1) <= 5 * error + 1e-3,
            f"{what}: samples and density do not belong together, E[q / p] = {mean:.4f} +- {error:.4f}",
        )


def _far(samples: Tensor) -> Callable[[Tensor], Tensor]:
    """How far out a point is, from 0 amid the samples to 1 beyond four of their spreads in some column.

    It rises evenly from three to four, so that a grid integrates it.
    """
    flat = samples.reshape(len(samples), -1).double()
    middle, scale = flat.median(0).values, _spread(flat)

    def is_far(x: Tensor) -> Tensor:
        z = (x.reshape(len(x), -1).double() - middle) / scale
        return (z.abs().amax(-1) - 3).clamp(0, 1)

    return is_far


def _require_tail(mass: float, error: float, shares: Tensor) -> None:
    """The density's mass far out against the samples' share there, within 5 standard errors of both."""
    share, sampled = _mean(shares)
    slack = 5 * math.hypot(error, sampled) + 0.1 * mass + 1e-3
    require(
        abs(share - mass) <= slack,
        f"samples and density do not belong together far out: {share:.5f} of the samples are there, and "
        f"{mass:.5f} of the mass",
    )


def _mean(values: Tensor) -> tuple[float, float]:
    """With its standard error."""
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item()


def _spread(flat: Tensor) -> Tensor:
    """Half the distance between the quantiles at -1 and 1 standard deviations."""
    a, b = torch.quantile(flat, torch.tensor([0.1587, 0.8413], dtype=flat.dtype), dim=0)
    return (b - a) / 2
