"""Targets from functions: of torch tensors, of NumPy arrays, of one point at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from diffeo.errors import ConfigError, ShapeError
from diffeo.targets.base import one_a_row


@final
class FromTorch:
    """A target from a function of rows in torch; gradients are the function's own.

    Args:
        function: ``(rows, D)`` to ``(rows,)``, the log-density in nats up to a constant.
        dtype: what the function is given; the answer comes back in the dtype of ``x``. None: whatever
            ``x`` is in.

    Shape:
        ``x``: ``(rows, D)``, log-density: ``(rows,)``.

    Raises:
        ShapeError: where the function does not give one number a row.
        ConfigError: where it fails on rows for another reason.

    Example:
        >>> import torch
        >>> from diffeo.targets import FromTorch
        >>> FromTorch(lambda x: -x.square().sum(-1)).log_prob(torch.ones(2, 3))
        tensor([-3., -3.])
    """

    def __init__(self, function: Callable[[Tensor], Tensor], dtype: torch.dtype | None = torch.float64):
        self.function = _callable(function)
        self.dtype = dtype

    def log_prob(self, x: Tensor) -> Tensor:
        given = x if self.dtype is None else x.to(self.dtype)
        return one_a_row(_call(self.function, given), x, _name(self.function)).to(x)


@final
class FromNumPy:
    """A target from a function of rows in NumPy, for densities that only exist there; it has no gradient.

    The function may keep or change its array: it gets a copy.

    Args:
        function: a float64 array ``(rows, D)`` to ``(rows,)``, the log-density in nats up to a constant.

    Shape:
        ``x``: ``(rows, D)``, log-density: ``(rows,)``, in the dtype and on the device of ``x``.

    Raises:
        ShapeError: where the function does not give one number a row.
        ConfigError: where it fails on rows for another reason.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from diffeo.targets import FromNumPy
        >>> FromNumPy(lambda x: -np.square(x).sum(-1)).log_prob(torch.ones(2, 3))
        tensor([-3., -3.])
    """

    def __init__(self, function: Callable[[np.ndarray], np.ndarray]):
        self.function = _callable(function)

    def log_prob(self, x: Tensor) -> Tensor:
        name = _name(self.function)
        given = np.array(x.detach().cpu().numpy(), dtype=np.float64)
        value = np.asarray(_call(self.function, given))
        if value.dtype.kind not in "fiub":
            raise ShapeError(f"{name} must return an array of real numbers, but its dtype is {value.dtype}.")
        return one_a_row(torch.from_numpy(value.astype(np.float64)), x, name).to(x)


def each_row(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of rows from one of a single point, called once a row; for ``FromTorch`` or ``FromNumPy``.

    Any Python goes, branches and loops too. It costs a call a row: write the function for all rows where
    evaluations are many and cheap.

    Args:
        function: a point ``(D,)`` to one number, in torch or in NumPy.

    Returns:
        ``(rows, D)`` to ``(rows,)``: a tensor for a tensor, an array for an array.

    Example:
        >>> import torch
        >>> from diffeo.targets import FromNumPy, each_row
        >>> FromNumPy(each_row(lambda p: -p[0] ** 2 if p[1] > 0 else -9.0)).log_prob(torch.eye(2))
        tensor([-9., -0.])
    """

    @wraps(_callable(function))
    def of_rows(x: Any) -> Any:
        values: list[Any]
        if isinstance(x, Tensor):
            values = [torch.as_tensor(function(row), dtype=x.dtype, device=x.device) for row in x]
        else:
            values = [np.asarray(function(row), dtype=np.float64) for row in x]
        wrong = [v for v in values if v.shape != ()]
        if wrong:
            raise ShapeError(
                f"{_name(function)} must return one number for one point of shape {tuple(x.shape[1:])}, but "
                f"it returned shape {tuple(wrong[0].shape)}; drop each_row if it takes rows."
            )
        if isinstance(x, Tensor):
            return torch.stack(values) if values else x.new_zeros(0)
        return np.array(values, dtype=np.float64)

    return of_rows


def _name(function: Callable[..., Any]) -> str:
    return function.__name__ if inspect.isroutine(function) else type(function).__name__


def _callable(function: Any) -> Any:
    if not callable(function):
        raise ConfigError(f"a target is made from a function, not from {type(function).__name__}.")
    return function


def _call(function: Callable[..., Any], x: Any) -> Any:
    """The function's answer; what it raises as one line that names it, the shape and a cure."""
    try:
        return function(x)
    except (ShapeError, ConfigError):
        raise
    except (ArithmeticError, AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(x, Tensor) and x.requires_grad and isinstance(error, RuntimeError):
            raise  # it may only be that x carries a gradient, which the Evaluator then leaves out
        said = " ".join(str(error).split()) or type(error).__name__
        what = f"{_name(function)} failed on x of shape {tuple(x.shape)}: {said[:200]}"
        if _takes_a_point(function, x):
            raise ShapeError(f"{what}; it takes one point at a time: wrap it in targets.each_row.") from error
        if isinstance(error, AttributeError) and isinstance(x, Tensor):
            cure = "tensors have no such thing: a NumPy function goes into targets.FromNumPy (--numpy)"
        elif isinstance(error, ArithmeticError) or "math domain" in said:
            cure = "where the density is zero, or beyond the range of numbers, it must give -inf"
        else:
            cure = "it must take rows of shape (rows, D), for any number of rows, and give (rows,)"
        raise ConfigError(f"{what}; {cure}.") from error


def _takes_a_point(function: Callable[..., Any], x: Any) -> bool:
    """Whether one point gives one number, and one row does not; asked only when the rows gave an error."""
    return len(x) > 0 and _gives(function, x[0], ()) and not _gives(function, x[:1], (1,))


def _gives(function: Callable[..., Any], x: Any, shape: tuple[int, ...]) -> bool:
    try:
        value = torch.as_tensor(function(x))
    except Exception:
        return False
    return value.shape == shape or (shape == () and value.numel() == 1)
