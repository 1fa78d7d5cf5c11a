"""Rules on how a bijection behaves: at the edge of its domain, on NaN, on large inputs, over time."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from diffeo.contracts import Initializable
from diffeo.functional.seeding import seeded
from diffeo.testing.points import clamp_to, outside, randomize_
from diffeo.testing.rules import Rules, require, require_close
from diffeo.testing.subject import Subject

behavior_rules = Rules()


# -- domain and NaN ------------------------------------------------------------------------------


def _every_and_one(points: Tensor) -> Iterator[Tensor]:
    """Masks over one point's elements: all of them, then each of the first three alone."""
    event = points.shape[1:]
    yield torch.ones(event, dtype=torch.bool)
    for i in range(min(3, event.numel())):
        yield (torch.arange(event.numel()) == i).reshape(event)


@behavior_rules.add("outside the domain", 9)
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


@behavior_rules.add("NaN", 9)
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


@behavior_rules.add("large inputs", 10)
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


@behavior_rules.add("inputs stay", 6)
def _inputs_stay(s: Subject) -> None:
    for side in s.sides:
        points, context = side.batch((3,))
        given = [t for t in (points, context) if t is not None]
        before = [(t.clone(), t._version) for t in given]
        side(points, context)
        for what, t, (old, version) in zip(("x", "context"), given, before, strict=False):
            require(torch.equal(t, old), f"{side.name} changes its input {what} in place")
            require(t._version == version, f"{side.name} writes into its input {what}")


@behavior_rules.add("determinism", 6)
def _determinism(s: Subject) -> None:
    state = {k: v.clone() for k, v in s.kind.state_dict().items()}
    with seeded(1):
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


@behavior_rules.add("state", 6)
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
