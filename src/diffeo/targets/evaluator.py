"""``Evaluator``: how all fitting code evaluates a target, checked and counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from diffeo.contracts import State, Stateful
from diffeo.errors import ConfigError, DataError, ShapeError
from diffeo.targets.base import Parameters, Target, named, one_a_row

MOST_FAILED = 0.25
"""Share of the rows at which a target may raise an error."""
MOST_IN_A_ROW = 500
"""Rows one after the other at which it may: more, and it is broken."""


@final
class Evaluator(Parameters, Stateful):
    """A target that is checked, cast, counted, and safe to differentiate; itself a target.

    Why: a density that a user wrote may answer in another dtype, with the wrong shape, with NaN where it
    overflows, or without gradients. Everything that fits sees only this.

    The target gets ``x`` in ``dtype``; the answer comes back in the dtype and on the device of ``x``. NaN
    counts as mass zero: it becomes -inf, and ``nans`` says how often. Gradients that are not finite become 0
    on their way to ``x``, so that one bad row does not spoil a batch. Where no gradient is asked for, the
    target runs under ``torch.no_grad``. A target that cannot take an ``x`` that requires a gradient (because
    it goes through NumPy) gets it detached, and the answer carries none.

    Args:
        target: the density.
        dtype: what the target computes in; by default that of its parameters, if it is a module that has any
            (a flow is a target too), else float64.
        device: where; default: wherever ``x`` is.

    A target that raises an error at some rows loses only these: they are found by halving, count as mass
    zero, and ``failed`` says how many. Where more than a quarter fail, 500 one after the other, or all of the
    first call, the error is raised.

    Attributes:
        evaluations: rows evaluated so far.
        gradients: those among them for which ``x`` required a gradient.
        nans: rows whose log-density was NaN.
        failed: rows at which the target raised an error.
        failure: the first of these errors, in its own words, and where; empty for none.

    Shape:
        ``x``: ``(rows, D)``, log-density: ``(rows,)``.

    Raises:
        ShapeError: for an ``x`` that is not rows, or an answer that is not one number a row.
        DataError: for an answer of +inf, which no density has where it can be evaluated.
        ConfigError: from ``value_and_grad``, for a target without gradients.

    Example:
        >>> import torch
        >>> from diffeo.targets import Evaluator, FromTorch
        >>> evaluator = Evaluator(FromTorch(lambda x: x.sqrt().sum(-1)))
        >>> evaluator(torch.tensor([[4.0], [-1.0]])), evaluator.nans, evaluator.evaluations
        (tensor([2., -inf]), 1, 2)
        >>> evaluator.value_and_grad(torch.tensor([[4.0], [-1.0]]))[1].tolist()
        [[0.25], [0.0]]
    """

    def __init__(
        self,
        target: Target,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        if not isinstance(target, Target):
            raise ConfigError(
                f"{target!r} is not a target: it has no method log_prob(x); for a function of rows use "
                f"targets.FromTorch(function) or targets.FromNumPy(function)."
            )
        self.target = target
        self.dtype = dtype or _own_dtype(target)
        self.device = device
        self.evaluations = 0
        self.gradients = 0
        self.nans = 0
        self.failed = 0
        self.failure = ""
        self._answered = False
        self._in_a_row = 0
        self._last: Exception | None = None
        self._differentiable: bool | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return self.log_prob(x)

    def log_prob(self, x: Tensor) -> Tensor:
        """``(rows, D)`` to ``(rows,)``: never NaN, never +inf."""
        if x.dim() != 2:
            raise ShapeError(f"a target takes rows (rows, D), but x has shape {tuple(x.shape)}.")
        wanted = x.requires_grad and torch.is_grad_enabled()
        self.evaluations += len(x)
        if wanted and self._differentiable is not False:
            inner = x.view_as(x)  # a node of its own, for the hook to be on
            inner.register_hook(_finite)
            value = self._survived(self._try, inner)
            self.gradients += len(x) * bool(value.requires_grad)
        else:
            value = self._survived(self._plain, x)
        if self._last is not None and not self._answered:
            raise self._last  # at every row that it was asked for
        value = self._checked(value, x)
        is_nan = value.isnan()
        self.nans += int(is_nan.sum())
        return torch.where(is_nan, -math.inf, value)

    def differentiable(self, x: Tensor) -> bool:
        """Whether the answer carries a gradient of ``x``: tried once, with a few rows of as many columns."""
        if self._differentiable is None:
            with torch.enable_grad():
                rows = (x[:8] if len(x) else x.new_zeros(1, *x.shape[1:])).detach().requires_grad_()
                value = self.log_prob(rows)
                if self._differentiable is None:
                    self._differentiable = _gradient(value, rows) is not None
        return self._differentiable

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The log-density ``(rows,)`` and its gradient ``(rows, D)``, both without a graph."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = self.log_prob(x)
            grad = _gradient(value, x)
        if grad is None:
            raise ConfigError(
                "this target's log_prob gives no gradient of x; write it in torch operations, or fit with an "
                "objective that needs no gradient of the target."
            )
        return value.detach(), grad

    def named(self, u: Tensor) -> dict[str, np.ndarray]:
        """What the target calls these rows: ``targets.named``."""
        return named(self.target, u)

    def state(self) -> State:
        """The counts, and what is known of gradients."""
        return {
            "evaluations": self.evaluations,
            "gradients": self.gradients,
            "nans": self.nans,
            "failed": self.failed,
            "failure": self.failure,
            "differentiable": self._differentiable,
        }, {}

    def restore(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Count on from there."""
        self.evaluations, self.gradients = state["evaluations"], state["gradients"]
        self.nans, self._differentiable = state["nans"], state["differentiable"]
        self.failed, self.failure = state["failed"], state["failure"]

    def _survived(self, answer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The answer for rows, and -inf for those of them at which there is none."""
        try:
            value = answer(x)
        except ShapeError:
            raise  # it is the target that is wrong, not a row
        except Exception as error:
            failure = error
        else:
            self._answered, self._in_a_row = True, 0
            return value
        if len(x) > 1:
            half = len(x) // 2
            parts = [self._survived(answer, part) for part in (x[:half], x[half:])]
            return torch.cat([part.to(x) for part in parts])
        self.failed += 1
        self._in_a_row += 1
        if not self.failure:
            said = " ".join(str(failure).split()) or type(failure).__name__
            self.failure = f"x = {_point(x[0])}: {said}" if len(x) else said
        many = self.failed > 10 + MOST_FAILED * self.evaluations
        if many or self._in_a_row > (MOST_IN_A_ROW if self._answered else 10):
            raise failure
        self._last = failure
        return 0.0 * x.sum(-1) - math.inf

    def _plain(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.target.log_prob(x.detach().to(self.device, self.dtype))

    def _try(self, x: Tensor) -> Tensor:
        """The target's answer with a graph, unless it goes through something that takes none."""
        try:
            return self.target.log_prob(x.to(self.device, self.dtype))
        except RuntimeError:
            if self._differentiable:
                raise
            value = self._plain(x)  # what fails here again was not about gradients
            self._differentiable = False
            return value

    def _checked(self, value: Tensor, x: Tensor) -> Tensor:
        """One number a row, in the dtype of ``x``, and none of them +inf."""
        name = f"{type(self.target).__name__}.log_prob"
        value = one_a_row(value, x, name).to(x)
        if (value == math.inf).any():
            row = int((value == math.inf).nonzero()[0])
            raise DataError(
                f"{name} is +inf at row {row}, x = {_point(x[row])}; a log-density must be finite or -inf: "
                f"bound it, or change variables so that its peak is finite."
            )
        return value


def _point(x: Tensor) -> str:
    """The first numbers of a row."""
    return f"({', '.join(f'{v:.4g}' for v in x[:8].tolist())}{', ...' if len(x) > 8 else ''})"


def _own_dtype(target: Target) -> torch.dtype:
    """That of a module's first parameter that has fractions; float64 for all else."""
    found = target.parameters() if isinstance(target, nn.Module) else ()
    return next((p.dtype for p in found if p.is_floating_point()), torch.float64)


def _finite(grad: Tensor | None) -> Tensor | None:
    return None if grad is None else torch.where(grad.isfinite(), grad, 0.0)


def _gradient(value: Tensor, x: Tensor) -> Tensor | None:
    """Of the sum; None where the value does not depend on ``x`` in the graph."""
    if not value.requires_grad:
        return None
    return torch.autograd.grad(value.sum(), x, allow_unused=True)[0]
