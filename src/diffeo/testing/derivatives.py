"""Rules on derivatives: log-dets, gradients, second derivatives, ``torch.func``, ``torch.compile``."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffeo.functional.seeding import generator, seeded
from diffeo.testing.rules import Rules, require, require_close
from diffeo.testing.subject import Side, Subject

STEP = 1e-6
DRAWS = 400
"""Of an estimate, to compare their mean with the exact value."""
_first = Rules()
_capture = Rules()


def derivative_rules(capture: bool) -> Rules:
    """The rules on derivatives, with those on ``torch.compile`` or without."""
    return Rules([*_first, *_capture]) if capture else _first


def _doubled(s: Subject) -> tuple[Side, Side]:
    """The subject's two sides in float64, where finite differences mean something."""
    return s.sides_of(copy.deepcopy(s.kind).double(), torch.float64)


def _jacobian(side: Side, i: int, graph: bool = False) -> Tensor:
    """The Jacobian at point i, by autograd, row by row; differentiable on demand."""
    point = side.points[i].clone().requires_grad_()
    context = None if side.context is None else side.context[i : i + 1]
    value = side(point[None], context)[0].reshape(-1)
    rows = [
        torch.autograd.grad(v, point, retain_graph=True, create_graph=graph)[0].reshape(-1) for v in value
    ]
    return torch.stack(rows)


@_first.add("log_det", 2, lambda t: t.exact_log_det)
def _log_det(s: Subject) -> None:
    for side in _doubled(s):
        log_det = side()[1]
        wanted = torch.stack([torch.linalg.slogdet(_jacobian(side, i))[1] for i in range(len(log_det))])
        bound = 1e-7 * (1 + wanted.abs()) + 1e3 * s.kind.traits.tolerance
        require_close(f"log_det of {side.name} against autograd's Jacobian", log_det, wanted, bound)


@_first.add("estimates", 7, lambda t: not t.exact_log_det)
def _estimates(s: Subject) -> None:
    """In training, an estimated log_det and its gradient are right on average."""
    kind = copy.deepcopy(s.kind).double()
    side = s.sides_of(kind, torch.float64)[0]
    parameters = [p for p in kind.parameters() if p.requires_grad]
    weights = torch.randn(len(side.points), generator=generator(0), dtype=torch.float64)
    ways = [torch.randn(p.shape, generator=generator(1), dtype=torch.float64) for p in parameters]

    def value_and_slope(log_det: Tensor) -> list[float]:
        total = (weights * log_det).sum()
        grads = torch.autograd.grad(total, parameters, allow_unused=True)
        return [
            total.item(),
            sum(float((d * w).sum()) for d, w in zip(grads, ways, strict=True) if d is not None),
        ]

    exact = torch.stack(
        [torch.linalg.slogdet(_jacobian(side, i, graph=True))[1] for i in range(len(side.points))]
    )
    wanted = value_and_slope(exact)
    kind.train()
    with seeded(0):
        draws = torch.tensor([value_and_slope(side()[1]) for _ in range(DRAWS)], dtype=torch.float64)
    require(
        bool((draws.std(0) > 0).any()), "log_det is declared an estimate, but no two draws in training differ"
    )
    for what, found, error, true in zip(
        ("log_det", "gradient of log_det"), draws.mean(0), draws.std(0) / DRAWS**0.5, wanted, strict=True
    ):
        require_close(
            f"mean {what} of {DRAWS} draws in training", found, torch.tensor(true), 4 * error + 1e-9
        )


def _objective(side: Side, weights: tuple[Tensor, Tensor], points: Tensor, context: Tensor | None) -> Tensor:
    value, log_det = side(points, context)
    return (weights[0] * value).sum() + (weights[1] * log_det).sum()


def _weights(side: Side, g: torch.Generator, part: str) -> tuple[Tensor, Tensor]:
    """Random weights for value and log_det; of one ``part`` only, the other's are zero."""
    value, log_det = side()
    a = torch.randn(value.shape, generator=g, dtype=torch.float64)
    b = torch.randn(log_det.shape, generator=g, dtype=torch.float64)
    return (a, torch.zeros_like(b)) if part == "value" else (torch.zeros_like(a), b)


def _best_of(tries: int, attempt: Callable[[torch.Generator], tuple[float, float]], what: str) -> None:
    """Compare a slope with finite differences along random directions; a kink in the way (ReLU) may
    spoil one of them, a wrong gradient spoils all."""
    found = wanted = 0.0
    for seed in range(tries):
        found, wanted = attempt(generator(seed))
        if abs(found - wanted) <= 1e-4 * (1e-2 + abs(found) + abs(wanted)):
            return
    raise AssertionError(f"{what}: autograd gives {found:.9g}, finite differences {wanted:.9g}")


@_first.add("gradients", 6)
def _gradients(s: Subject) -> None:
    kind = copy.deepcopy(s.kind).double()
    parameters = [p for p in kind.parameters() if p.requires_grad]
    for side in s.sides_of(kind, torch.float64):
        groups = {"x": [side.points], "parameters": parameters}
        if side.context is not None:
            groups["context"] = [side.context]
        for part in ("value", "log_det"):
            for name, tensors in groups.items():
                if tensors:

                    def attempt(g: torch.Generator) -> tuple[float, float]:
                        return _directional(side, tensors, _weights(side, g, part), g)

                    _best_of(3, attempt, f"gradient of {side.name}'s {part} to {name}, in evaluation mode")


def _directional(
    side: Side, tensors: list[Tensor], weights: tuple[Tensor, Tensor], g: torch.Generator
) -> tuple[float, float]:
    """The slope along a random direction in ``tensors``: by autograd, and by central differences."""
    ways = [torch.randn(t.shape, generator=g, dtype=torch.float64) for t in tensors]
    before = [t.requires_grad for t in tensors]
    total = _objective(side, weights, *_live(side, tensors))
    slope = 0.0
    if total.requires_grad:
        grads = torch.autograd.grad(total, tensors, allow_unused=True)
        slope = sum(float((d * w).sum()) for d, w in zip(grads, ways, strict=True) if d is not None)
    ends = []
    with torch.no_grad():
        for step in (STEP, -2 * STEP):
            for t, w in zip(tensors, ways, strict=True):
                t.add_(step * w)
            ends.append(_objective(side, weights, side.points, side.context).item())
        for t, w, r in zip(tensors, ways, before, strict=True):
            t.add_(STEP * w)
            t.requires_grad_(r)
    return slope, (ends[0] - ends[1]) / (2 * STEP)


def _live(side: Side, tensors: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    for t in tensors:
        t.requires_grad_()
    return side.points, side.context


@_first.add("second derivatives", 7, lambda t: t.closed_form)
def _second(s: Subject) -> None:
    for side in _doubled(s):
        for part in ("value", "log_det"):

            def attempt(g: torch.Generator) -> tuple[float, float]:
                weights = _weights(side, g, part)
                v, w = (torch.randn(side.points.shape, generator=g, dtype=torch.float64) for _ in range(2))

                def slope(points: Tensor) -> Tensor:
                    total = _objective(side, weights, points, side.context)
                    if not total.requires_grad:
                        return points.new_zeros(())
                    return (torch.autograd.grad(total, points, create_graph=True)[0] * v).sum()

                points = side.points.clone().requires_grad_()
                first = slope(points)
                curve = (
                    torch.autograd.grad(first, points, allow_unused=True)[0] if first.requires_grad else None
                )
                found = 0.0 if curve is None else float((curve * w).sum())
                up, down = ((side.points + h * w).requires_grad_() for h in (STEP, -STEP))
                return found, (slope(up) - slope(down)).item() / (2 * STEP)

            _best_of(3, attempt, f"second derivative of {side.name}'s {part}")


# -- torch.func and torch.compile ------------------------------------------------------------------


def _batched(side: Side, transform: Callable[..., Any]) -> Any:
    """``transform`` of the map of one point, over all points and contexts."""
    if side.context is None:
        return torch.func.vmap(lambda p: transform(side, None, p))(side.points)
    return torch.func.vmap(lambda p, c: transform(side, c, p))(side.points, side.context)


@_first.add("vmap and jacrev", 7, lambda t: t.capturable)
def _func(s: Subject) -> None:
    for side in _doubled(s):
        value, log_det = side()
        v, ld = _batched(side, lambda side, c, p: side(p, c))
        require_close(f"vmap of {side.name}, value", v, value, 1e-9 * (1 + value.abs()))
        require_close(f"vmap of {side.name}, log_det", ld, log_det, 1e-9 * (1 + log_det.abs()))
        jacobians = _batched(side, lambda side, c, p: torch.func.jacrev(lambda q: side(q, c)[0])(p))
        n = side.points[0].numel()
        wanted = torch.stack([_jacobian(side, i) for i in range(len(value))])
        bound = 1e-8 * (1 + wanted.abs())
        require_close(f"jacrev of {side.name} under vmap", jacobians.reshape(-1, n, n), wanted, bound)


@_first.add("jvp", 7, lambda t: t.capturable)
def _jvp(s: Subject) -> None:
    for side in _doubled(s):
        way = torch.randn(side.points.shape, generator=generator(0), dtype=torch.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's own, at its first jvp
            try:
                slope = torch.func.jvp(lambda p: side(p, side.context)[0], (side.points,), (way,))[1]
            except (NotImplementedError, RuntimeError):
                continue  # to refuse forward mode is honest; to answer zero is not
        jacobians = torch.stack([_jacobian(side, i) for i in range(len(way))])
        wanted = (jacobians @ way.reshape(len(way), -1, 1)).squeeze(-1)
        require_close(f"jvp of {side.name}", slope.reshape(len(way), -1), wanted, 1e-8 * (1 + wanted.abs()))


@_capture.add("torch.compile", 7, lambda t: t.capturable)
def _compile(s: Subject) -> None:
    for side in _doubled(s):
        torch._dynamo.reset()  # earlier kinds count toward dynamo's limit of recompilations
        compiled = torch.compile(side.apply, fullgraph=True, backend="eager")
        points = side.points.clone().requires_grad_()
        pairs = side(points, side.context), compiled(points, side.context)
        for i, what in enumerate(("value", "log_det")):
            wanted, found = pairs[0][i], pairs[1][i]
            require_close(f"compiled {side.name}, {what}", found, wanted, 1e-9 * (1 + wanted.abs().detach()))
        slopes = [torch.autograd.grad(value.sum() + log_det.sum(), points)[0] for value, log_det in pairs]
        require_close(f"compiled {side.name}, gradient", slopes[1], slopes[0], 1e-7 * (1 + slopes[0].abs()))
