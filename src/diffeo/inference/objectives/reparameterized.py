"""Draws of a flow that carry its gradient: what every objective that fits to a density stands on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.functional.seeding import generator
from diffeo.inference.counting import CountsEvaluations
from diffeo.inference.importance import as_evaluator
from diffeo.objectives.base import Batch
from diffeo.targets import Evaluator, Target


@dataclass(frozen=True)
class DrawsForTarget(CountsEvaluations, ABC):
    """What objectives share that draw from the flow and ask a target.

    Args:
        target: anything with ``log_prob(x)`` that carries a gradient of x.
    """

    target: Target

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", as_evaluator(self.target))

    @property
    def evaluator(self) -> Evaluator:
        assert isinstance(self.target, Evaluator)
        return self.target

    @abstractmethod
    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        """The loss."""


LogDensity = Callable[[Tensor, Tensor | None], Tensor]
"""``(points, their context)`` to log-densities."""


@dataclass(frozen=True)
class Draws:
    """Reparameterized draws, and what the target and the flow say of them.

    The gradient goes through the *path* alone, ``x = f^-1(z; theta)``. Of the gradient in theta of
    ``log p(x) - log q(x; theta)`` the part at fixed x, the score of q, has mean zero: noise, and left out.
    What remains vanishes draw by draw where q = p, so a fit comes to rest there. With importance weights
    the score's mean is not zero, but another reparameterization turns it into a path too; each objective
    knows the coefficients.

    Args:
        x: ``(*draws, *event)``, with the graph of the parameters.
        log_q: log-density under the flow, ``(*draws,)``, without a graph where there is a slope.
        log_p: the same under the target, -inf for mass zero; float64.
        slope: the gradient in x of ``log p - log q`` with the parameters held, like x; None where no
            gradients are recorded, or not along the path.

    References: Roeder, Wu and Duvenaud 2017, "Sticking the landing", eq. 7; Tucker, Lawson, Gu and Maddison
    2019, "Doubly reparameterized gradient estimators", eqs. 5-8; Vaitl, Nicoli, Nakajima and Kessel 2022,
    "Gradients should stay on path", for flows.
    """

    x: Tensor
    log_q: Tensor
    log_p: Tensor
    slope: Tensor | None

    @property
    def log_weights(self) -> Tensor:
        """``log p - log q``, ``(*draws,)``."""
        return self.log_p - self.log_q

    def surrogate(self, value: Tensor, coefficients: Tensor) -> Tensor:
        """``value``, with the gradient ``sum_i c_i (dx_i / dtheta)' slope_i``."""
        value = value.detach().to(self.x.dtype)
        if self.slope is None:
            return value
        each = (self.slope * self.x).flatten(coefficients.dim()).sum(-1)
        path = (coefficients.detach().to(each.dtype) * each).sum()
        return value + (path - path.detach())


def draw(
    flow: Flow, log_density: LogDensity, batch: Batch, count: int | None = None, *, path: bool = True
) -> Draws:
    """A draw for each row of the batch, at its context, or ``count`` of them: ``(count, rows)``.

    In training they come from torch's default generator; in evaluation from a fixed seed, so that two
    evaluations differ by the flow alone. With ``path=False`` the log-densities keep their graphs and there is
    no slope, which spares the flow's density at x.

    Raises:
        ConfigError: for a flow behind an encoding.
    """
    if flow.encoding is not None:
        raise ConfigError(
            f"draws through {type(flow.encoding).__name__} carry no gradient; fit flow.without_encoding(), "
            f"whose points are real vectors."
        )
    fixed = None if flow.training else generator(0, batch.x.device)
    shape: tuple[int, ...] = () if flow.context_shape is not None else (len(batch.rows),)
    shape = shape if count is None else (count, *shape)
    x, log_q = flow.sample_and_log_prob(shape, batch.context, generator=fixed)
    context = batch.context
    if context is not None and count is not None:
        context = context.expand(count, *context.shape)
    if not (path and torch.is_grad_enabled()):
        return Draws(x, log_q, log_density(x, context), None)
    point = x.detach().requires_grad_()
    log_p = log_density(point, context)
    (slope,) = torch.autograd.grad((log_p - flow.log_prob(point, context)).sum(), point)
    return Draws(x, log_q.detach(), log_p.detach(), slope)


def of_target(target: Evaluator) -> LogDensity:
    """A target as a log-density of points with any batch axes.

    Raises:
        ConfigError: where gradients are recorded and the target gives none.
    """

    def log_density(x: Tensor, context: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if torch.is_grad_enabled() and not target.differentiable(rows.double()):
            raise ConfigError(
                "this objective follows the target's gradient, but its log_prob gives none of x; write it in "
                "torch operations, or use diffeo.fit_target, which fits without gradients."
            )
        # in float64: rounded to float32, weights of a density of 1e6 nats would be noise
        return target(rows.double()).reshape(x.shape[:-1])

    return log_density


def shares(batch: Batch) -> Tensor:
    """What part of the whole each row of the batch is, ``(rows,)``."""
    if batch.weights is None:
        return batch.x.new_full((len(batch.rows),), 1 / len(batch.rows))
    return batch.weights / batch.weights.sum()
