"""``check_bijection``: the whole contract of an invertible map."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from diffeo.bijections import (
    Autoregressive,
    AutoregressiveTokens,
    Bijection,
    Chain,
    Coupling,
    ImageCoupling,
    Pointwise,
)
from diffeo.contracts import Traits
from diffeo.functional.seeding import generator
from diffeo.testing.behavior import behavior_rules
from diffeo.testing.derivatives import derivative_rules
from diffeo.testing.points import draw, ends, inside, randomize_
from diffeo.testing.precision import check_round_trips, scalar_points
from diffeo.testing.rules import Rules, require, require_close, round_off
from diffeo.testing.subject import Side, Subject

ROWS = 6
BATCHES = ((), (0,), (1,), (3,), (2, 3), (2, 0, 3))
OF_FAMILIES = (Pointwise, Coupling, Autoregressive, ImageCoupling, AutoregressiveTokens)
"""Layers with an elementwise ``family``, whose ``scale`` round-off is relative to."""
rules = Rules()


def check_bijection(
    bijection: Bijection,
    context: Tensor | None = None,
    *,
    x: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    randomize: bool = True,
    capture: bool = True,
) -> None:
    """Hold a bijection to the whole contract (``docs/architecture.md``), by the traits it declares.

    The bijection itself is left as it is: a copy is put through the rules.

    Args:
        bijection: any kind, of a size that keeps Jacobians cheap: some ten elements.
        context: contexts for ``x``, ``(rows, *context_shape)``; random ones by default.
        x: points of the domain, ``(rows, *event_shape)``; random ones by default.
        dtype: what most rules run in; derivatives are compared in float64, and results in both.
        seed: of points and parameters.
        randomize: add noise to the copy's parameters first, so that a neutral start hides nothing.
        capture: whether to try ``torch.compile``, which takes a second or so for each kind.

    Raises:
        AssertionError: it names the kind, the rule and the numbers.

    Example:
        >>> from diffeo.bijections import LU
        >>> check_bijection(LU(3), capture=False)
    """
    g = generator(seed)
    kind = copy.deepcopy(bijection).to(dtype).eval()
    if randomize:
        randomize_(kind, seed)
    if x is None:
        rows = ROWS if context is None else len(context)
        x = draw(kind.domain, (rows, *kind.event_shape), g, dtype)
    y = draw(kind.codomain, (len(x), *kind.latent_shape), g, dtype)
    if context is None and kind.context_shape is not None:
        context = draw(None, (len(x), *kind.context_shape), g, dtype)
    context = None if context is None else context.to(dtype)
    subject = Subject(kind, x.to(dtype), y, context, g, not randomize)
    name = type(bijection).__name__
    rules.run(name, subject, kind.traits)
    behavior_rules.run(name, subject, kind.traits)
    derivative_rules(capture).run(name, subject, kind.traits)


# -- what it declares and returns --------------------------------------------------------------


@rules.add("declarations", 7)
def _declarations(s: Subject) -> None:
    require(isinstance(s.kind.traits, Traits), f"traits is {s.kind.traits!r}, not a Traits")
    sizes = s.kind.event_shape.numel(), s.kind.latent_shape.numel()
    require(sizes[0] == sizes[1], f"event and latent shape hold {sizes[0]} and {sizes[1]} elements")
    require(s.kind.traits.closed_form or s.kind.traits.tolerance > 0, "no closed form and no tolerance")


@rules.add("pairs", 2)
def _pairs(s: Subject) -> None:
    for side in s.sides:
        pair = side()
        good = isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(t, Tensor) for t in pair)
        require(good, f"{side.name} gives {type(pair).__name__}, not a pair of tensors")
        value, log_det = pair
        require(value.shape[1:] == side.out_shape, f"{side.name} gives values of shape {tuple(value.shape)}")
        require(
            log_det.shape == value.shape[:1],
            f"{side.name} gives a log_det of shape {tuple(log_det.shape)} for a batch of {len(value)}",
        )
        require(log_det.device == value.device == side.points.device, f"{side.name} changes the device")


@rules.add("batch axes", 3)
def _batches(s: Subject) -> None:
    for side in s.sides:
        value, log_det = side()
        for shape in BATCHES:
            v, ld = side(*side.batch(shape))
            where = f"{side.name} of a batch {shape}"
            require(v.shape == (*shape, *side.out_shape), f"{where} gives values of shape {tuple(v.shape)}")
            require(ld.shape == shape, f"{where} gives a log_det of shape {tuple(ld.shape)}")
            index = torch.arange(math.prod(shape)) % len(value)
            tol = round_off(v.dtype, 1e4) * (1 + value.abs().max() + log_det.abs().max()).item()
            require_close(f"{where}, value", v.reshape(-1, *side.out_shape), value[index], tol)
            require_close(f"{where}, log_det", ld.reshape(-1), log_det[index], tol)


@rules.add("dtypes", 10)
def _dtypes(s: Subject) -> None:
    for dtype in (torch.float32, torch.float64):
        for side in s.sides_of(copy.deepcopy(s.kind).to(dtype), dtype):
            value, log_det = side()
            found = {value.dtype, log_det.dtype}
            require(found == {dtype}, f"{side.name} of {dtype} gives {value.dtype} and {log_det.dtype}")


@rules.add("codomain", 9)
def _codomain(s: Subject) -> None:
    for side in s.sides:
        value = side()[0]
        require(
            inside(side.codomain, value).all(),
            f"{side.name} leaves {ends(side.codomain)}: from {value.min():.6g} to {value.max():.6g}",
        )


@rules.add("push and pull", 2)
def _push_pull(s: Subject) -> None:
    tol = round_off(s.x.dtype, 1e4) + s.kind.traits.tolerance
    for side, half in zip(s.sides, (s.kind.push, s.kind.pull), strict=True):
        value = side()[0]
        require_close(
            f"{half.__name__} against {side.name}",
            half(side.points, side.context),
            value,
            tol * (1 + value.abs()),
        )


# -- inverse ------------------------------------------------------------------------------------


@rules.add("round trip", 8)
def _round_trip(s: Subject) -> None:
    for side, back in (s.sides, s.sides[::-1]):
        value, log_det = side()
        again, log_det_back = back(value.detach(), side.context)
        # The inverse magnifies round-off by its own slope: dx = J^-1 dy.
        stretch = _largest_slope(back, value.detach())
        wide = 1 + _rows(side.points).abs().amax(1) + stretch * (1 + _rows(value).abs().amax(1))
        bound = (round_off(value.dtype, 1e4) + 2 * s.kind.traits.tolerance) * wide.detach()
        shape = (-1, *[1] * side.event_dims)
        require_close(f"{back.name} of {side.name}", again, side.points, bound.reshape(shape))
        bend = (1e3 * bound).clamp_max(1e-2)  # log-slopes may bend a thousand times faster than values
        require_close(f"log_det of {back.name} after {side.name}", log_det_back, -log_det, bend)


def _rows(t: Tensor) -> Tensor:
    return t.reshape(len(t), -1)


def _largest_slope(side: Side, points: Tensor) -> Tensor:
    """A bound on the norm of the Jacobian at each point, from random probes."""
    points = points.clone().requires_grad_()
    value = side.apply(points, side.context)[0]
    if not value.requires_grad:
        return torch.ones(len(points), dtype=points.dtype)
    g, squares = generator(1), torch.zeros(len(points), dtype=points.dtype)
    for _ in range(4):
        probe = torch.randn(value.shape, generator=g, dtype=torch.float64).to(value)
        (slope,) = torch.autograd.grad((value * probe).sum(), points, retain_graph=True)
        squares = squares + _rows(slope).square().sum(1)
    return squares.sqrt()


@rules.add("scalar precision", 10, lambda t: t.closed_form)
def _precision(s: Subject) -> None:
    if s.kind.event_shape.numel() != 1 or s.context is not None or isinstance(s.kind, Chain):
        return  # a chain's errors are the sum of its parts'
    kind = copy.deepcopy(s.kind).float()
    scale = kind.family.scale if isinstance(kind, OF_FAMILIES) else 0.0
    points = [scalar_points(d, scale).reshape((-1, *kind.event_shape)) for d in (kind.domain, kind.codomain)]
    check_round_trips(kind, kind.inverse, points[0], points[1], scale)


# -- context ------------------------------------------------------------------------------------


@rules.add("context", 3)
def _context(s: Subject) -> None:
    if s.context is None:
        stray = torch.ones(len(s.x), 2, dtype=s.x.dtype)
        for side in s.sides:
            for found, wanted in zip(side(side.points, stray), side(), strict=True):
                require_close(f"{side.name} with a context it declares it ignores", found, wanted, 1e-9)
        return
    for side in s.sides:
        context = side.context.clone().requires_grad_()  # type: ignore[union-attr]
        value, log_det = side(side.points, context)
        require(value.requires_grad, f"{side.name} ignores the context: no gradient reaches it")
        probe = torch.randn(value.shape, generator=s.generator, dtype=torch.float64).to(value)
        (slope,) = torch.autograd.grad((value * probe).sum() + log_det.sum(), context)
        require(slope.isfinite().all(), f"{side.name} has a gradient {slope.flatten()[:4]} to the context")
        dead = [] if s.neutral else (slope.abs().sum(0) == 0).flatten().nonzero().flatten().tolist()
        require(not dead, f"{side.name} ignores the context: its elements {dead}")
        half = len(value) // 2
        moved = context.detach().clone()
        moved[:half] += 1.0
        new = side(side.points, moved)[0]
        require(s.neutral or not torch.equal(new[:half], value[:half]), f"{side.name} ignores the context")
        require_close(f"{side.name} of rows whose context stayed", new[half:], value[half:], 1e-9)
