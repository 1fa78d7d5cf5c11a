"""``check_bijection``: the whole contract of an invertible map."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.distributions import constraints

from diffeo._typing import Initializable, Traits
from diffeo.bijections.base import Bijection
from diffeo.bijections.chain import Chain
from diffeo.testing.derivatives import derivative_rules
from diffeo.testing.points import clamp_to, draw, ends, generator, inside, outside, randomize_
from diffeo.testing.rules import Rules, require, require_close, round_off
from diffeo.testing.scalar import check_round_trips, scalar_points

ROWS = 6
BATCHES = ((), (0,), (1,), (3,), (2, 3), (2, 0, 3))
rules = Rules()


@dataclass(frozen=True)
class Side:
    """One direction of a bijection: what it is called, how to apply it, and points to apply it to."""

    name: str
    apply: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
    points: Tensor
    context: Tensor | None
    domain: constraints.Constraint | None
    codomain: constraints.Constraint | None
    out_shape: torch.Size

    def __call__(self, points: Tensor | None = None, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if points is None:
            points, context = self.points, self.context
        return self.apply(points, context)

    @property
    def event_dims(self) -> int:
        return self.points.dim() - 1

    def batch(self, shape: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """The points and contexts again, with these batch axes."""
        index = torch.arange(math.prod(shape)) % len(self.points)
        points = self.points[index].reshape((*shape, *self.points.shape[1:]))
        if self.context is None:
            return points, None
        return points, self.context[index].reshape((*shape, *self.context.shape[1:]))


@dataclass(frozen=True)
class Subject:
    """A private copy of the kind, in evaluation mode, and what to try it on."""

    kind: Bijection
    x: Tensor
    y: Tensor
    context: Tensor | None
    generator: Generator
    neutral: bool
    """Whether parameters may stand at their start, where nets give zeros whatever they see."""

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.sides_of(self.kind)

    def sides_of(self, kind: Bijection, dtype: torch.dtype | None = None) -> tuple[Side, Side]:
        """Both directions of ``kind``, a variant of the subject's, at the subject's points."""
        dtype = dtype or self.x.dtype
        x, y = self.x.to(dtype), self.y.to(dtype)
        context = None if self.context is None else self.context.to(dtype)
        return (
            Side("forward", kind, x, context, kind.domain, kind.codomain, kind.latent_shape),
            Side("inverse", kind.inverse, y, context, kind.codomain, kind.domain, kind.event_shape),
        )

    def results(self, kind: Bijection | None = None) -> list[Tensor]:
        """Everything the kind says at the points, to compare bit by bit."""
        with torch.no_grad():
            return [t for side in self.sides_of(kind or self.kind) for t in side()]


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
    scale = float(getattr(getattr(kind, "family", None), "scale", 0.0))
    points = [scalar_points(d, scale).reshape((-1, *kind.event_shape)) for d in (kind.domain, kind.codomain)]
    check_round_trips(kind, kind.inverse, *points, scale)


# -- context ------------------------------------------------------------------------------------


@rules.add("context", 3)
def _context(s: Subject) -> None:
    if s.context is None:
        stray = torch.ones(len(s.x), 2, dtype=s.x.dtype)
        for side in s.sides:
            for found, wanted in zip(side(side.points, stray), side(), strict=True):
                require(
                    torch.equal(found, wanted), f"{side.name} changes with a context it declares it ignores"
                )
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


# -- domain and NaN ------------------------------------------------------------------------------


def _every_and_one(points: Tensor) -> Iterator[Tensor]:
    """Masks over one point's elements: all of them, then each of the first three alone."""
    event = points.shape[1:]
    yield torch.ones(event, dtype=torch.bool)
    for i in range(min(3, event.numel())):
        yield (torch.arange(event.numel()) == i).reshape(event)


@rules.add("outside the domain", 9)
def _outside(s: Subject) -> None:
    parameters = [p for p in s.kind.parameters() if p.requires_grad]
    for side in s.sides:
        clean = [t.detach() for t in side()]
        for number, columns in outside(side.domain):
            for mask in _every_and_one(side.points):
                mask = mask & columns
                if not mask.any():
                    continue
                points = side.points.clone()
                points[0][mask] = number
                points.requires_grad_()
                value, log_det = side(points, side.context)
                where = f"{side.name} with {int(mask.sum())} of {mask.numel()} elements at {number:g}"
                require(value.isfinite().all(), f"{where} gives the value {value[0].flatten()[:4].tolist()}")
                require(log_det[0] == -math.inf, f"{where} gives log_det {log_det[0].item():g}, not -inf")
                for found, wanted in zip((value, log_det), clean, strict=True):
                    require_close(f"{where}: other rows", found[1:], wanted[1:], 1e-9)
                total = value.sum() + log_det.sum()
                slope, *rest = torch.autograd.grad(total, [points, *parameters], allow_unused=True)
                require(
                    (slope[0][mask] == 0).all(), f"{where} has gradients {slope[0][mask][:4].tolist()}, not 0"
                )
                require(
                    all(g.isfinite().all() for g in [slope, *rest] if g is not None),
                    f"{where} has gradients that are not finite",
                )


@rules.add("NaN", 9)
def _nan(s: Subject) -> None:
    for side in s.sides:
        clean = side()
        for mask in _every_and_one(side.points):
            points = side.points.clone()
            points[0][mask] = math.nan
            value, log_det = side(points, side.context)
            where = f"{side.name} with {int(mask.sum())} of {mask.numel()} elements NaN"
            require(
                value[0].isnan().any(), f"{where} gives the value {value[0].flatten()[:4].tolist()}, not NaN"
            )
            require(not log_det[0].isinf(), f"{where} gives log_det {log_det[0].item():g}, not NaN")
            for found, wanted in zip((value, log_det), clean, strict=True):
                require_close(f"{where}: other rows", found[1:], wanted[1:], 1e-9)
        if side.context is not None:
            context = side.context.clone()
            context[0] = math.nan
            value, log_det = side(side.points, context)
            require(
                value[0].isnan().any() and not log_det[0].isinf(), f"{side.name} hides a NaN in the context"
            )


@rules.add("large inputs", 10)
def _large(s: Subject) -> None:
    kind = copy.deepcopy(s.kind).float()
    for side in s.sides_of(kind, torch.float32):
        for size in (1e3, 1e6):
            points = clamp_to(side.domain, side.points.sign() * size).requires_grad_()
            value, log_det = side(points, side.context)
            log_det = torch.where(log_det == -math.inf, 0.0, log_det)  # a closed end may lie outside
            total = (1e-3 * value).sum() + log_det.sum()  # a sum of the largest floats would overflow
            found = {"value": value, "log_det": log_det}
            if total.requires_grad:
                wanted = [points, *(p for p in kind.parameters() if p.requires_grad)]
                grads = torch.autograd.grad(total, wanted, allow_unused=True)
                found |= {f"gradient {i}": g for i, g in enumerate(grads) if g is not None}
            for what, t in found.items():
                require(
                    t.isfinite().all(), f"{side.name} of {size:g} in float32 has a {what} that is not finite"
                )


# -- no hidden state -----------------------------------------------------------------------------


@rules.add("inputs stay", 6)
def _inputs_stay(s: Subject) -> None:
    for side in s.sides:
        points, context = side.batch((3,))
        given = [t for t in (points, context) if t is not None]
        before = [(t.clone(), t._version) for t in given]
        side(points, context)
        for what, t, (old, version) in zip(("x", "context"), given, before, strict=False):
            require(torch.equal(t, old), f"{side.name} changes its input {what} in place")
            require(t._version == version, f"{side.name} writes into its input {what}")


@rules.add("determinism", 6)
def _determinism(s: Subject) -> None:
    state = {k: v.clone() for k, v in s.kind.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        rng, default = torch.get_rng_state(), torch.get_default_dtype()
        first = s.results()
        require(torch.equal(rng, torch.get_rng_state()), "evaluation draws from torch's default generator")
        require(torch.get_default_dtype() == default, "evaluation changes torch's default dtype")
        torch.manual_seed(2)
        for a, b in zip(first, s.results(), strict=True):
            require(torch.equal(a, b), f"two evaluations differ by {(a - b).abs().max():.3g}")
    after = s.kind.state_dict()
    changed = [k for k, v in state.items() if not torch.equal(v, after[k])]
    require(not changed and len(after) == len(state), f"evaluation changes the state {changed}")


@rules.add("state", 6)
def _state(s: Subject) -> None:
    wanted = s.results()
    twin = copy.deepcopy(s.kind)
    randomize_(twin, seed=99)
    _require_same("a deep copy was changed, and with it the original", s.results(), wanted)
    twin.load_state_dict(s.kind.state_dict())
    _require_same("state_dict into a copy", s.results(twin), wanted)
    if isinstance(s.kind, Initializable):
        first, second = copy.deepcopy(s.kind), copy.deepcopy(s.kind)
        first.initialize(s.x, s.context)
        wanted = s.results(first)
        first.initialize(s.x * 0.5, s.context)
        _require_same("initialize for the second time", s.results(first), wanted)
        second.load_state_dict(first.state_dict())
        second.initialize(s.x * 0.5, s.context)
        _require_same("initialize after loading", s.results(second), wanted)


def _require_same(what: str, found: list[Tensor], wanted: list[Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        require(torch.equal(a, b), f"{what}: results differ by {(a - b).abs().max():.3g}")
