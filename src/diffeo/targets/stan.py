"""Stan models as targets.

Milliseconds a row for value and gradient together, one thread, on posteriors of posteriordb with 17, 1,001
and 10,641 numbers of data:

| | eight schools | low_dim_gauss_mix | nes1972 |
|---|--:|--:|--:|
| PyStan's ``log_prob`` and ``grad_log_prob`` | 6 | | 30 |
| the module that PyStan compiles, called directly | 0.028 | 0.32 | 1.01 |
| here | 0.0012 | 0.14 | 0.065 |

PyStan's module builds the model anew from its data in every call, gives the value or the gradient but not
both, and drops constants of the density, without which log Z is not the evidence. The functions of
``stan_batch.hpp``, compiled with the model, do none of that.
"""

from __future__ import annotations

import ctypes
import json
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from diffeo.errors import DataError, ShapeError
from diffeo.functional.first_order import first_order
from diffeo.targets.base import Parameters
from diffeo.targets.stan_compiler import compiled, one_line


@final
class Stan(Parameters):
    """The posterior of a Stan program and its data, on Stan's unconstrained scale.

    Why: a model that is already written, with its constraints; Stan transforms the parameters and
    differentiates the density. Compiling takes half a minute a program, once, with httpstan, PyStan's
    compiler, whose cache keeps it. A Stan program is translated to C++ and run: treat a file of unknown
    origin as one of Python.

    The density is the program's own, with the Jacobian of its transforms and *with the constants* of its
    ``~`` statements, which Stan's samplers drop: where priors are normalized, log Z is the log evidence. A
    point that Stan rejects has log-density -inf and gradient 0. What the program prints is dropped.

    Args:
        program: the program's text, or a ``Path`` to a ``.stan`` file (what it includes is beside it).
        data: its data by name: numbers, lists, arrays, tensors; or a ``Path`` to a JSON file of them.

    Attributes:
        features: number of unconstrained parameters D.
        shapes: the parameters' shapes by name, in the program's order.

    Shape:
        ``u``: ``(rows, D)``, any floating dtype; computed in float64 on the CPU, one row after the other.

    Raises:
        ConfigError: without httpstan or a C++ compiler; for a program that does not compile, with the line.
        DataError: for data that the program cannot use, and when it fails other than by rejecting a point.

    Cost: that of Stan's own density and gradient; both come in one sweep. No second derivatives.

    References: Carpenter et al. 2017, "Stan: a probabilistic programming language"; transforms: Stan
    Reference Manual, "Constraint transforms".

    Example:
        >>> import torch
        >>> from diffeo.targets import Stan
        >>> program = '''
        ...     data { int N; vector[N] y; }
        ...     parameters { real mu; real<lower=0> sigma; }
        ...     model { mu ~ normal(0, 10); sigma ~ exponential(1); y ~ normal(mu, sigma); }'''
        >>> target = Stan(program, {"N": 3, "y": [1.0, 2.0, 4.0]})  # doctest: +SKIP
        >>> target.features, target.shapes  # doctest: +SKIP
        (2, {'mu': (), 'sigma': ()})
        >>> target.named(torch.zeros(1, 2))  # doctest: +SKIP
        {'mu': array([0.]), 'sigma': array([1.])}
    """

    def __init__(self, program: str | Path, data: Mapping[str, Any] | Path | None = None):
        text = _json(data)
        self._library = ctypes.CDLL(str(compiled(program)))
        self._library.diffeo_new.restype = ctypes.c_void_p
        for name in ("features", "variables", "log_prob", "constrain", "unconstrain"):
            getattr(self._library, f"diffeo_{name}").restype = ctypes.c_long
        message = ctypes.create_string_buffer(2000)
        address = self._library.diffeo_new(text.encode(), message, ctypes.c_long(len(message)))
        if not address:
            raise DataError(f"the Stan program cannot use the data: {_said(message)}")
        self._model = ctypes.c_void_p(address)
        weakref.finalize(self, self._library.diffeo_delete, self._model)
        self.features: int = self._library.diffeo_features(self._model)
        self.shapes = self._variables(derived=False)
        self._all = self._variables(derived=True)

    def log_prob(self, u: Tensor) -> Tensor:
        """``(rows, D)`` to ``(rows,)``, differentiable once; a row with NaN gives NaN."""
        self._check(u)
        why = "a Stan program has no second derivatives here; use an objective that asks for first ones only."
        u = first_order(u, why)
        return _LogProb.apply(u, self, u.requires_grad and torch.is_grad_enabled())  # type: ignore[no-any-return]

    def named(self, u: Tensor) -> dict[str, np.ndarray]:
        """Parameters, transformed parameters and generated quantities by name, ``(rows, *shape)`` each.

        Random generated quantities have a fixed seed. What Stan refuses to compute in a row is NaN there.
        """
        self._check(u)
        rows = _rows(u)
        widths = [int(np.prod(shape)) for shape in self._all.values()]
        out = np.empty((len(rows), sum(widths)))
        self._call("constrain", rows, len(rows), True, out, out.shape[1])
        parts = np.split(out, np.cumsum(widths)[:-1], axis=1) if widths else []
        return {
            name: _row_major(part, shape)
            for (name, shape), part in zip(self._all.items(), parts, strict=True)
        }

    def unconstrain(self, values: Mapping[str, Any]) -> Tensor:
        """The inverse of ``named``: ``(rows, D)``, float64, from each parameter's values ``(rows, *shape)``.

        Names that are not parameters are ignored, so it takes what ``named`` gives.

        Raises:
            DataError: for a parameter that is missing, or values outside its support.
            ShapeError: for arrays that are not ``(rows, *shape)``.
        """
        parts: list[np.ndarray] = []
        for name, shape in self.shapes.items():
            if name not in values:
                raise DataError(f"the Stan program's parameter {name!r} has no values.")
            value = np.asarray(values[name], dtype=np.float64)
            rows = parts[0].shape[:1] if parts else value.shape[:1]
            if not rows or value.shape != (*rows, *shape):
                wanted = ", ".join(map(str, [rows[0] if parts else "rows", *shape]))
                raise ShapeError(f"values of {name!r} have shape {value.shape}; expected ({wanted}).")
            parts.append(_column_major(value))
        flat = np.ascontiguousarray(np.concatenate(parts, axis=1)) if parts else np.empty((0, 0))
        out = np.empty((len(flat), self.features))
        self._call("unconstrain", flat, len(flat), flat.shape[1], out)
        return torch.from_numpy(out)

    def _evaluate(self, u: Tensor, differentiate: bool) -> tuple[Tensor, Tensor | None]:
        rows = _rows(u)
        value, grad = np.empty(len(rows)), np.empty(rows.shape) if differentiate else None
        self._call("log_prob", rows, len(rows), value, grad)
        value[np.isnan(rows).any(axis=1)] = np.nan  # Stan rejects such a row; here, NaN in is NaN out
        back = {"dtype": u.dtype, "device": u.device}
        return torch.from_numpy(value).to(**back), None if grad is None else torch.from_numpy(grad).to(**back)

    def _call(self, name: str, *arguments: Any) -> None:
        message = ctypes.create_string_buffer(2000)
        arguments = (*arguments, message, len(message))
        failed = getattr(self._library, f"diffeo_{name}")(self._model, *map(_c, arguments))
        if failed >= 0:
            raise DataError(f"the Stan program failed in row {failed}: {_said(message)}")

    def _variables(self, *, derived: bool) -> dict[str, tuple[int, ...]]:
        function = self._library.diffeo_variables
        size = 1 + function(self._model, derived, ctypes.create_string_buffer(1), ctypes.c_long(1))
        text = ctypes.create_string_buffer(size)
        function(self._model, derived, text, ctypes.c_long(size))
        lines = [line.split() for line in text.value.decode().splitlines()]
        return {name: tuple(map(int, dims)) for name, *dims in lines}

    def _check(self, u: Tensor) -> None:
        if u.dim() != 2 or u.shape[1] != self.features:
            raise ShapeError(
                f"the Stan program has {self.features} unconstrained parameters and takes rows "
                f"(rows, {self.features}), but got shape {tuple(u.shape)}."
            )


class _LogProb(torch.autograd.Function):
    """Stan's log-density; the gradient is computed with the value, in one sweep."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, model: Stan, differentiate: bool) -> Tensor:  # type: ignore[override]
        value, grad = model._evaluate(u, differentiate)
        if grad is not None:
            ctx.save_for_backward(grad)
        return value

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (grad,) = ctx.saved_tensors
        return grad_value.unsqueeze(1) * grad, None, None


def _said(message: ctypes.Array[ctypes.c_char]) -> str:
    return one_line(message.value.decode(errors="replace"))


def _c(value: Any) -> Any:
    """What ctypes hands on: addresses of arrays, whole numbers as C's long."""
    if isinstance(value, np.ndarray):
        return value.ctypes.data_as(ctypes.c_void_p)
    return ctypes.c_long(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _rows(u: Tensor) -> np.ndarray:
    return u.detach().to("cpu", torch.float64).contiguous().numpy()


def _row_major(flat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Stan writes the first index fastest."""
    return flat.reshape(len(flat), *shape[::-1]).transpose(0, *range(len(shape), 0, -1))


def _column_major(value: np.ndarray) -> np.ndarray:
    return value.transpose(0, *range(value.ndim - 1, 0, -1)).reshape(
        len(value), int(np.prod(value.shape[1:]))
    )


def _json(data: Mapping[str, Any] | Path | None) -> str:
    """The data as JSON text, which is what Stan reads."""
    if isinstance(data, Path):
        try:
            data = json.loads(data.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read the Stan data: {one_line(str(error))}") from None
    if not isinstance(data, Mapping | None):
        raise DataError(
            f"Stan data are values by name, a mapping or a JSON object; got {type(data).__name__}."
        )
    try:
        return json.dumps(dict(data or {}), default=_plain)
    except (TypeError, ValueError) as error:
        raise DataError(f"the Stan data cannot be written as JSON: {error}") from None


def _plain(value: Any) -> Any:
    if np.ma.is_masked(value):
        raise ValueError("masked (missing) values; fill them in or leave them out.")
    if isinstance(value, np.ndarray | np.generic | Tensor):
        array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
        return array.astype(np.int64 if array.dtype == np.bool_ else array.dtype).tolist()
    raise TypeError(f"{type(value).__name__} is not a number, list, array or tensor.")
