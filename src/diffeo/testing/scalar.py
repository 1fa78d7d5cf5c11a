"""``check_elementwise``: the contract of a family of scalar maps."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffeo.bijections.pointwise import Pointwise
from diffeo.elementwise.base import Elementwise
from diffeo.functional.seeding import generator
from diffeo.testing.bijections import check_bijection
from diffeo.testing.points import draw, ends, inside, outside
from diffeo.testing.precision import ULPS, check_round_trips, neighbors, scalar_points
from diffeo.testing.rules import Rules, naming, require, require_close

rules = Rules()

Knots = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Family:
    """A family, and the float32 parameters to try it with: (sets, num_params)."""

    family: Any
    params: Tensor
    knots: Knots | None
    neutral: bool

    def at(self, params: Tensor, x: Tensor) -> Tensor:
        """One row of parameters for each of x's."""
        return params.unsqueeze(-2).expand(*x.shape, params.shape[-1])


def check_elementwise(
    family: Elementwise,
    *,
    knots: Knots | None = None,
    neutral: bool = True,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    capture: bool = True,
) -> None:
    """Hold a family of scalar maps to the whole contract, precision under stress included.

    Runs the scalar rules on the family, with parameters from 0 to +-10 in float32, and then
    ``check_bijection`` on ``Pointwise(family, (3,))``.

    Args:
        family: the family.
        knots: gives the knots ``(x, y)``, ``(sets, knots)`` each, for parameters of
            ``(sets, num_params)``: the rules then look on each of them and one float to either side.
        neutral: whether zero parameters are the identity, as they are wherever a family allows.
        dtype: as in ``check_bijection``.
        seed: likewise.
        capture: likewise.

    Raises:
        AssertionError: it names the family, the rule and the numbers.

    Example:
        >>> from diffeo.elementwise import Affine
        >>> check_elementwise(Affine(), capture=False)
    """
    name = type(family).__name__
    own = _cast(family, torch.float32)
    if own.features is None:
        rules.run(name, Family(own, stress_params(own.num_params, seed), knots, neutral), own.traits)
    for i in range(own.features or 0):  # columns of different maps: each is one scalar map
        with naming(name, f"column {i}", 1):
            check_elementwise(own.columns([i]), knots=knots, neutral=neutral, seed=seed, capture=False)
    with naming(name, "as Pointwise", 1):
        pointwise = Pointwise(family, (family.features or 3,))
        check_bijection(pointwise, dtype=dtype, seed=seed, capture=capture)


def _cast(family: Any, dtype: torch.dtype) -> Any:
    """A family with weights of its own, copied, in ``dtype``; any other as it is."""
    return copy.deepcopy(family).to(dtype) if isinstance(family, nn.Module) else family


def stress_params(count: int, seed: int) -> Tensor:
    """Parameter sets, float32: zeros, moderate ones, and every logit at +-10."""
    g = generator(seed)
    moderate = torch.randn(8, count, generator=g)
    signs = torch.randint(0, 2, (12, count), generator=g).float() * 20 - 10
    spikes = 20 * torch.eye(count)[torch.linspace(0, count - 1, 4).long()] - 10
    return torch.cat([torch.zeros(1, count), moderate, 3 * moderate, signs, spikes, -spikes])


# -- the rules -----------------------------------------------------------------------------------


@rules.add("scalar shapes", 2)
def _shapes(s: Family) -> None:
    for apply in (s.family.forward, s.family.inverse):
        for dtype in (torch.float32, torch.float64):
            family = _cast(s.family, dtype)
            apply = getattr(family, apply.__name__)
            for shape in ((), (0,), (3,), (2, 3)):
                x = draw(s.family.domain, shape, generator(0), dtype)
                for t in apply(x, torch.zeros(*shape, s.family.num_params, dtype=dtype)):
                    require(
                        t.shape == shape and t.dtype == dtype,
                        f"{apply.__name__} of {dtype} {shape} gives {t.dtype} {tuple(t.shape)}",
                    )


@rules.add("neutral start", 4)
def _neutral(s: Family) -> None:
    if s.neutral:
        x = draw(s.family.domain, (50,), generator(0), torch.float64)
        family = _cast(s.family, torch.float64)
        for apply in (family.forward, family.inverse):
            value, log_slope = apply(x, torch.zeros(50, family.num_params, dtype=torch.float64))
            require_close(f"{apply.__name__} with zero parameters", value, x, 1e-12 * (1 + x.abs()))
            require_close(f"log_slope of {apply.__name__} with zero parameters", log_slope, 0 * x, 1e-12)


def _points(s: Family) -> tuple[Tensor, Tensor]:
    """Points x and y for every set of parameters, its own knots and their neighbors included."""
    sides = []
    knots = s.knots(s.params) if s.knots else (torch.zeros(len(s.params), 0),) * 2
    for domain, own in zip((s.family.domain, s.family.codomain), knots, strict=True):
        common = scalar_points(domain, s.family.scale)
        points = torch.cat([common.expand(len(s.params), -1), neighbors(own)], -1)
        # A neighbor beyond the end of the domain is brought back to it.
        low, high = ends(domain)
        sides.append(points.clamp(low, high))
    return sides[0], sides[1]


@rules.add("scalar precision", 10, lambda t: t.closed_form)
def _precision(s: Family) -> None:
    x, y = _points(s)
    check_round_trips(
        lambda t: s.family.forward(t, s.at(s.params, t)),
        lambda t: s.family.inverse(t, s.at(s.params, t)),
        x,
        y,
        s.family.scale,
    )


@rules.add("certified inverse", 8, lambda t: not t.closed_form)
def _certified(s: Family) -> None:
    y = _points(s)[1]
    for dtype in (torch.float32, torch.float64):
        with torch.no_grad():
            require_certified(_cast(s.family, dtype), s.at(s.params.to(dtype), y), y.to(dtype))


def require_certified(family: Elementwise, params: Tensor, y: Tensor) -> None:
    """Item 8: ``|f(x) - y| <= 16 eps max(1, |y|)``, or x is the better of two floats around the root."""
    x = family.inverse(y, params)[0]
    residual = family.forward(x, params)[0] - y
    beyond = torch.nextafter(x, torch.where(residual > 0, -math.inf, math.inf).to(x))
    over = family.forward(beyond, params)[0] - y
    best = (over * residual <= 0) & (residual.abs() <= over.abs())
    close = residual.abs() <= 16 * torch.finfo(y.dtype).eps * y.abs().clamp_min(1)
    bad = ~(close | best)
    require(
        not bad.any(),
        f"{int(bad.sum())} inverses in {y.dtype} miss their tolerance: forward(inverse(y)) - y = "
        f"{residual[bad][:3].tolist()} at y = {y[bad][:3].tolist()}",
    )


@rules.add("increasing", 1)
def _increasing(s: Family) -> None:
    for apply, points in zip((s.family.forward, s.family.inverse), _points(s), strict=True):
        points = points.sort(-1).values
        value, log_slope = apply(points, s.at(s.params, points))
        scale = s.family.scale
        carried = (points.abs().clamp_min(scale) * log_slope.exp()).nan_to_num(0.0, 0.0)
        slack = ULPS * torch.finfo(torch.float32).eps * (value.abs().clamp_min(scale) + carried)[..., 1:]
        drop = value[..., :-1] - value[..., 1:]
        require((drop <= slack).all(), f"{apply.__name__} falls by {drop.max():.3g} where x rises")
        require(not log_slope.isnan().any(), f"{apply.__name__} has a NaN log_slope in its domain")


@rules.add("finite gradients", 10)
def _gradients(s: Family) -> None:
    for apply, points in zip((s.family.forward, s.family.inverse), _points(s), strict=True):
        points, params = points.clone().requires_grad_(), s.params.clone().requires_grad_()
        value, log_slope = apply(points, s.at(params, points))
        for what, t in (("value", value), ("log_slope", log_slope)):
            if not t.requires_grad:
                continue
            finite = torch.where(t.isfinite(), t, 0.0).sum()
            for to, g in zip(
                ("x", "params"),
                torch.autograd.grad(finite, [points, params], retain_graph=True, allow_unused=True),
                strict=True,
            ):
                if g is not None and not g.isfinite().all():
                    rows = (~g.isfinite()).any(-1).nonzero().flatten().tolist()
                    raise AssertionError(
                        f"gradient of {apply.__name__}'s {what} to {to} is not finite, parameter sets {rows}"
                    )


@rules.add("outside the domain", 9)
def _outside(s: Family) -> None:
    for apply, domain in ((s.family.forward, s.family.domain), (s.family.inverse, s.family.codomain)):
        for number, _ in outside(domain):
            points = torch.full((len(s.params), 1), number, requires_grad=True)
            params = s.params.clone().requires_grad_()
            value, log_slope = apply(points, s.at(params, points))
            where = f"{apply.__name__} at {number:g}"
            require(value.isfinite().all(), f"{where} gives {value.flatten()[:4].tolist()}")
            require(
                (log_slope == -math.inf).all(), f"{where} has log_slope {log_slope.flatten()[:4].tolist()}"
            )
            total = value.sum() + log_slope.sum()
            if total.requires_grad:
                grads = torch.autograd.grad(total, [points, params], allow_unused=True)
                require(
                    all((g == 0).all() for g in grads if g is not None),
                    f"{where} has gradients that are not 0",
                )


@rules.add("NaN", 9)
def _nan(s: Family) -> None:
    for apply, domain in ((s.family.forward, s.family.domain), (s.family.inverse, s.family.codomain)):
        points = draw(domain, (3, 2), generator(0), torch.float32)
        points[0] = math.nan
        params = s.params[1:4].clone()
        params[2] = math.nan
        value, log_slope = apply(points, s.at(params, points))
        # Where the parameters make no difference (linear tails), neither does a NaN among them.
        same = apply(points, s.at(s.params[4:7], points))[0] == apply(points, s.at(s.params[1:4], points))[0]
        for i, what in ((0, "x"), (2, "params")):
            hidden = ~value[i].isnan() & ~same[i]
            require(not hidden.any(), f"{apply.__name__} hides a NaN in {what}: {value[i].tolist()}")
            require(
                not log_slope[i].isinf().any(),
                f"{apply.__name__} turns a NaN in {what} into {log_slope[i].tolist()}",
            )
        require(value[1].isfinite().all(), f"{apply.__name__} lets a NaN touch its neighbors")


@rules.add("codomain", 9)
def _codomain(s: Family) -> None:
    for apply, points, codomain in (
        (s.family.forward, _points(s)[0], s.family.codomain),
        (s.family.inverse, _points(s)[1], s.family.domain),
    ):
        value = apply(points, s.at(s.params, points))[0]
        # In float32, and exactly: what leaves by one ulp is outside for the next map.
        require(
            inside(codomain, value).all(),
            f"{apply.__name__} leaves {ends(codomain)}: {value.min():.9g} to {value.max():.9g}",
        )
