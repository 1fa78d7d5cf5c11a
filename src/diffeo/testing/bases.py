"""``check_base``: the contract of a base density."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffeo.bases.base import Base
from diffeo.functional.seeding import generator, seeded
from diffeo.testing.density import require_integral, require_sampled
from diffeo.testing.points import draw, ends, inside, outside, randomize_
from diffeo.testing.rules import Rules, require, require_close

rules = Rules()


@dataclass(frozen=True)
class Subject:
    """A private copy of the base in float64, points of its support and contexts for them."""

    base: Base
    z: Tensor
    context: Tensor | None
    continuous: bool = True

    def sample(self, shape: tuple[int, ...], seed: int = 0) -> Tensor:
        return self.base.sample(shape, self.contexts(shape), generator=generator(seed))

    def contexts(self, shape: tuple[int, ...], row: int | None = None) -> Tensor | None:
        if self.context is None:
            return None
        if row is not None:
            return self.context[row].expand((*shape, *self.context.shape[1:]))
        index = torch.arange(math.prod(shape)) % len(self.context)
        return self.context[index].reshape((*shape, *self.context.shape[1:]))


def check_base(base: Base, *, z: Tensor | None = None, seed: int = 0, randomize: bool = True) -> None:
    """Hold a base density to its contract: shapes, normalization, sampler, support, NaN, gradients.

    Args:
        base: any kind; with up to two elements it is integrated numerically.
        z: points ``(rows, *event_shape)`` of a base that is not a density of real vectors, such as
            ``CellDensity``, and is not integrated. By default random ones of its support.
        seed: of points, samples and parameters.
        randomize: add noise to a copy's parameters first.

    Raises:
        AssertionError: it names the kind, the rule and the numbers.

    Example:
        >>> from diffeo.bases import Normal
        >>> check_base(Normal((2,)))
    """
    own = copy.deepcopy(base).double().eval()
    if randomize:
        randomize_(own, seed)
    g = generator(seed)
    continuous = z is None
    z = draw(own.support, (5, *own.event_shape), g, torch.float64) if z is None else z.double()
    context = None if own.context_shape is None else draw(None, (5, *own.context_shape), g, torch.float64)
    rules.run(type(base).__name__, Subject(own, z, context, continuous))


@rules.add("shapes", 3)
def _shapes(s: Subject) -> None:
    for dtype in (torch.float32, torch.float64):
        base = copy.deepcopy(s.base).to(dtype)
        for shape in ((), (0,), (1,), (2, 3)):
            context = s.contexts(shape)
            context = None if context is None else context.to(dtype)
            z = base.sample(shape, context, generator=generator(0))
            require(z.shape == (*shape, *base.event_shape), f"sample {shape} has shape {tuple(z.shape)}")
            log_prob = base.log_prob(z, context)
            require(log_prob.shape == shape, f"log_prob of a batch {shape} has shape {tuple(log_prob.shape)}")
            found = z.dtype, log_prob.dtype
            require(found == (dtype, dtype), f"in {dtype}: sample is {found[0]}, log_prob {found[1]}")
            require(inside(base.support, z).all(), f"a sample lies outside {ends(base.support)}")


@rules.add("normalization", 2)
def _normalization(s: Subject) -> None:
    if s.continuous and s.base.event_shape.numel() <= 2:
        context = s.contexts((4000,), row=0)
        samples = s.base.sample((4000,), context, generator=generator(0)).detach()

        def log_prob(z: Tensor) -> Tensor:
            return s.base.log_prob(z, s.contexts((len(z),), row=0))

        require_integral(log_prob, samples, s.base.support)


@rules.add("sampler", 6)
def _sampler(s: Subject) -> None:
    first, second = s.sample((7,), seed=1), s.sample((7,), seed=1)
    require(torch.equal(first, second), "one generator, two answers")
    require(not torch.equal(first, s.sample((7,), seed=2)), "the generator is not used")
    with seeded(0):
        before = torch.get_rng_state()
        s.sample((7,))
        require(
            torch.equal(before, torch.get_rng_state()),
            "torch's default generator is used in place of the one given",
        )
    for row in range((1 if s.context is None else 2) if s.continuous else 0):
        samples = s.base.sample((20_000,), s.contexts((20_000,), row), generator=generator(3)).detach()

        def log_prob(z: Tensor, row: int = row) -> Tensor:
            return s.base.log_prob(z, s.contexts((len(z),), row))

        require_sampled(log_prob, samples, s.base.support, "sample")


@rules.add("outside the support", 9)
def _outside(s: Subject) -> None:
    for number, _ in outside(s.base.support):
        z = s.z.clone()
        z[0].flatten()[0] = number
        z.requires_grad_()
        log_prob = s.base.log_prob(z, s.context)
        require(log_prob[0] == -math.inf, f"log_prob at {number:g} is {log_prob[0].item():g}, not -inf")
        require(log_prob[1:].isfinite().all(), f"a point at {number:g} touches other rows")
        (slope,) = torch.autograd.grad(log_prob.sum(), z)
        require(
            (slope[0].flatten()[0] == 0) & slope.isfinite().all(),
            f"gradients at {number:g}: {slope[0].tolist()}",
        )


@rules.add("NaN", 9)
def _nan(s: Subject) -> None:
    clean = s.base.log_prob(s.z, s.context)
    z = s.z.clone()
    z.reshape(len(z), -1)[0, 0] = math.nan
    log_prob = s.base.log_prob(z, s.context)
    require(log_prob[0].isnan(), f"log_prob of NaN is {log_prob[0].item():g}")
    require_close("log_prob of the other rows", log_prob[1:], clean[1:], 1e-12)


@rules.add("gradients", 10)
def _gradients(s: Subject) -> None:
    base = copy.deepcopy(s.base).float()
    low, high = ends(base.support)
    far = (s.z.float().sign() * 1e6).clamp(low, high)
    z = (far if s.continuous else s.z.float()).requires_grad_()
    context = None if s.context is None else s.context.float().requires_grad_()
    log_prob = base.log_prob(z, context)
    require(log_prob.isfinite().all(), f"log_prob at 1e6 in float32 is {log_prob.tolist()}")
    parameters = [p for p in base.parameters() if p.requires_grad]
    wanted = [z, *parameters, *([] if context is None else [context])]
    for g in torch.autograd.grad(log_prob.sum(), wanted, allow_unused=True):
        require(g is None or g.isfinite().all(), "gradients at 1e6 in float32 are not finite")
        require(g is not None, "a parameter, or the context, gets no gradient")


@rules.add("context", 3)
def _context(s: Subject) -> None:
    if s.context is not None:
        moved = s.context.clone()
        moved[0] += 1
        before, after = s.base.log_prob(s.z, s.context), s.base.log_prob(s.z, moved)
        require(before[0] != after[0], "log_prob ignores the context")
        require_close("rows whose context stayed", after[1:], before[1:], 1e-12)


@rules.add("determinism", 6)
def _determinism(s: Subject) -> None:
    z = s.z.clone()
    first = s.base.log_prob(z, s.context)
    require(torch.equal(first, s.base.log_prob(z, s.context)), "two evaluations differ")
    require(torch.equal(z, s.z), "log_prob changes its input in place")
