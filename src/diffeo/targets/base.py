"""The contracts of targets: an unnormalized log-density, named parameters, exact samples.

A target is one method. Whether it brings gradients is found out by asking it. Constraints are a target of
their own (``Constrained``, ``Stan``), so that a flow always lives on the whole space and nothing else knows
of supports.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Generator, Tensor

from diffeo.errors import ShapeError


@runtime_checkable
class Target(Protocol):
    """An unnormalized density on the whole space R^D: one method.

    A posterior, a Boltzmann distribution, another flow: anything that can say how probable a point is,
    up to a constant. Nothing is declared about gradients: a target is *differentiable* when its answer
    carries a gradient of ``x``, and ``Evaluator.differentiable`` finds out by trying. Any object with this
    method will do, without inheriting from here; ``FromTorch`` and ``FromNumPy`` make one of a
    function, ``Constrained`` one of a density that does not live on the whole space.

    Example:
        >>> import torch
        >>> from diffeo.targets import Evaluator, Target
        >>> class Cauchy:
        ...     def log_prob(self, x):
        ...         return -torch.log1p(x.square()).sum(-1)
        >>> isinstance(Cauchy(), Target), Evaluator(Cauchy()).differentiable(torch.zeros(1, 3))
        (True, True)
    """

    def log_prob(self, x: Tensor, /) -> Tensor:
        """The log-density in nats, up to a constant: ``(rows, D)`` to ``(rows,)``; -inf for mass zero."""
        ...


class Parameters(ABC):
    """A target whose unconstrained rows stand for named parameters on the user's own scale."""

    @abstractmethod
    def named(self, u: Tensor) -> dict[str, np.ndarray]:
        """Each parameter's values, ``(rows, *its shape)``, for unconstrained rows ``(rows, D)``."""


class Sampled(ABC):
    """A target that can be sampled exactly: what a fit to it is graded with."""

    @abstractmethod
    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """n independent rows, ``(n, D)``, in torch's default dtype."""


def named(target: Target, u: Tensor) -> dict[str, np.ndarray]:
    """Unconstrained rows as arrays of the target's own parameters, by name.

    Args:
        target: any target; one that is ``Parameters`` too names and constrains its own.
        u: ``(rows, D)``.

    Returns:
        An array ``(rows, *shape)`` a name; ``{"x": u}`` for a target without names.

    Example:
        >>> import torch
        >>> from diffeo.targets import Funnel, named
        >>> {name: values.shape for name, values in named(Funnel(3), torch.zeros(5, 3)).items()}
        {'x': (5, 3)}
    """
    if isinstance(target, Parameters):
        return target.named(u)
    return {"x": u.detach().cpu().numpy()}


def one_a_row(value: object, x: Tensor, name: str) -> Tensor:
    """``value`` if it is one real number for each row of ``x``; else an error that says who gave what."""
    if not isinstance(value, Tensor):
        raise ShapeError(
            f"{name} returned {type(value).__name__}, not a tensor; wrap a NumPy function in "
            f"targets.FromNumPy."
        )
    if value.shape != x.shape[:1] or value.is_complex():
        raise ShapeError(
            f"{name} must return one real number a row, shape ({len(x)},), but for x of shape "
            f"{tuple(x.shape)} it returned {tuple(value.shape)}, {value.dtype}; sum over the last axis, or "
            f"wrap a function of one point in targets.each_row."
        )
    return value
