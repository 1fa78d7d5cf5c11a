"""What the rules on bijections are given: a private copy of the kind, points and contexts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.distributions import constraints

from diffeo.bijections.base import Bijection


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
