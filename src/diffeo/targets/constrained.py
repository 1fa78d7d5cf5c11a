"""A density over constrained parameters as one on the whole space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor

from diffeo.errors import ConfigError, DataError, ShapeError
from diffeo.targets.base import Parameters, Target, one_a_row
from diffeo.targets.supports import Support


@final
class Constrained(Parameters):
    """A target on R^D from a density over rates, proportions, angles: every column in its support.

    Flows live on the whole space. Here u does, and the wrapped target sees ``x = constrain(u)``, each
    parameter in its own support, in order.

    Formula: ``log p(u) = log target(x(u)) + log|det dx/du|``, exact, so both have the same normalizing
    constant. The gradient of u is that of the target and of the log-det; for a target that gives none the
    sum has none either, since half of it would be wrong.

    Args:
        target: the density of x, ``(rows, values)`` to ``(rows,)``, up to a constant.
        supports: what the columns of x are, in order: ``Real``, ``Positive``, ``Above``, ``Below``,
            ``Bounded``, ``Simplex``, ``Circular``; by name where ``named`` is to tell them apart.

    Attributes:
        features: D, the columns of u.
        values: the columns of x; more than D where there is a simplex.

    Shape:
        ``u``: ``(rows, features)``, ``x``: ``(rows, values)``, log-density: ``(rows,)``.

    Raises:
        ConfigError: for a support that is not a ``Support``.
        ShapeError: for rows of another width.
        DataError: from ``unconstrain``, for a point outside the supports.

    Example:
        >>> import torch
        >>> from diffeo.targets import Constrained, FromTorch, Positive, Simplex
        >>> gamma = FromTorch(lambda x: x[:, 0].log() - x[:, 0])  # of the rate; the weights are uniform
        >>> target = Constrained(gamma, {"rate": Positive(), "weights": Simplex(3)})
        >>> target.features, target.log_prob(torch.zeros(1, 3))
        (3, tensor([-3.7465]))
        >>> target.named(torch.zeros(1, 3).double())["weights"].round(3).tolist()
        [[0.333, 0.333, 0.333]]
    """

    def __init__(self, target: Target, supports: Sequence[Support] | Mapping[str, Support]):
        named = isinstance(supports, Mapping)
        parts = list(supports.values()) if isinstance(supports, Mapping) else list(supports)
        if not parts:
            raise ConfigError(
                "supports is empty; name a support for every column, such as [Real(3), Positive()]."
            )
        for part in parts:
            if not isinstance(part, Support):
                raise ConfigError(
                    f"{part!r} is not a support; use Real(), Positive(), Bounded(0, 1), Simplex(3), ..."
                )
        self.target = target
        self.supports = tuple(parts)
        self.names = tuple(supports) if named else None
        self._columns = [part.columns for part in parts]
        self._values = [part.values for part in parts]
        self.features = sum(self._columns)
        self.values = sum(self._values)

    def log_prob(self, u: Tensor) -> Tensor:
        """The log-density of u, of which x = constrain(u): ``(rows, features)`` to ``(rows,)``."""
        parts, log_dets = self._constrain(u)
        x = torch.cat(parts, -1)
        log_det = torch.stack(log_dets).sum(0)
        value = one_a_row(self.target.log_prob(x), x, f"{type(self.target).__name__}.log_prob")
        return value.to(u) + (log_det if value.requires_grad else log_det.detach())

    def constrain(self, u: Tensor) -> Tensor:
        """The parameters that the target sees: ``(rows, features)`` to ``(rows, values)``."""
        return torch.cat(self._constrain(u)[0], -1)

    def unconstrain(self, x: Tensor) -> Tensor:
        """``constrain`` undone: ``(rows, values)`` to ``(rows, features)``."""
        parts = _split(x, self._values, "x")
        found = []
        for i, (support, part) in enumerate(zip(self.supports, parts, strict=True)):
            try:
                found.append(support.unconstrain(part))
            except DataError as error:
                name = f"support {i}" if self.names is None else repr(self.names[i])
                raise DataError(f"{name}: {error}") from None
        return torch.cat(found, -1)

    def named(self, u: Tensor) -> dict[str, np.ndarray]:
        """The parameters by name, each ``(rows, *shape)``; all together as ``"x"`` where none was named."""
        parts = [part.cpu().numpy() for part in self._constrain(u.detach())[0]]
        if self.names is None:
            return {"x": np.concatenate(parts, -1)}
        shaped = (p.reshape(len(p), *s.shape) for p, s in zip(parts, self.supports, strict=True))
        return dict(zip(self.names, shaped, strict=True))

    def _constrain(self, u: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        pairs = [
            s.constrain(part) for s, part in zip(self.supports, _split(u, self._columns, "u"), strict=True)
        ]
        return [x for x, _ in pairs], [log_det for _, log_det in pairs]


def _split(t: Tensor, sizes: list[int], name: str) -> Sequence[Tensor]:
    if t.dim() != 2 or t.shape[1] != sum(sizes):
        raise ShapeError(
            f"{name} must have shape (rows, {sum(sizes)}) for these supports, not {tuple(t.shape)}."
        )
    return t.split(sizes, 1)
