"""``OnColumns``: a bijection applied to some of the columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import constraints

from diffeo.bijections.base import Bijection
from diffeo.contracts import Initializable
from diffeo.errors import ConfigError, ShapeError
from diffeo.functional.domains import by_column, columns_of


class OnColumns(Bijection, Initializable):
    """A bijection of some of the columns; the others pass unchanged and may be what it depends on.

    Builds a flow for columns of different natures from flows for each: with ``given`` it is the
    factor ``p(columns | others)`` of the joint density, as general as the inner bijection.

    Formula: ``y[columns] = f(x[columns]; given(x[others]), context)``, the rest of y as in x; log-det
    that of f. Domain: f's own on its columns, the whole line on the others. Cost: f's, and ``given``'s.

    Args:
        columns: which of 0 .. features - 1, in the order the inner bijection takes them.
        bijection: f, of events ``(len(columns),)``.
        features: D, all columns.
        given: what the other columns go through before the inner bijection sees them, as the first part
            of its context; a bijection of events ``(D - len(columns),)``, for instance a
            ``Standardize``. Only its values count, not its log-det. None: f does not see them.

    Shape: ``(*batch, D)``; the inner context is ``(*batch, D - len(columns) + context)`` with ``given``,
    so that this layer's own is the rest, or none.

    Raises:
        ConfigError: for columns that are not distinct numbers below ``features``.
        ShapeError: where the parts' shapes do not fit.

    Example:
        >>> import torch
        >>> from diffeo.bijections import Exp, OnColumns
        >>> y, log_det = OnColumns([1], Exp((1,)), 3)(torch.zeros(3))
        >>> y.tolist(), log_det.item()
        ([0.0, 1.0, 0.0], 0.0)
    """

    columns: Tensor
    others: Tensor
    back: Tensor

    def __init__(
        self, columns: Sequence[int], bijection: Bijection, features: int, given: Bijection | None = None
    ):
        columns = [int(i) for i in columns]
        others = [i for i in range(features) if i not in columns]
        if not columns or len(columns) + len(others) != features:
            raise ConfigError(f"columns must be distinct numbers from 0 to {features - 1}, not {columns}.")
        _check_event("bijection", bijection, len(columns))
        if given is not None:
            _check_event("given", given, len(others))
        super().__init__(
            (features,), context_shape=_own_context(bijection, 0 if given is None else len(others))
        )
        self.bijection, self.given = bijection, given
        self.domain = _widen(bijection.domain, columns, features)
        self.codomain = _widen(bijection.codomain, columns, features)
        capturable = bijection.traits.capturable and (given is None or given.traits.capturable)
        self.traits = replace(bijection.traits, capturable=capturable)
        order = [*columns, *others]
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.register_buffer("others", torch.tensor(others, dtype=torch.long), persistent=False)
        self.register_buffer("back", torch.tensor(sorted(order, key=order.__getitem__)), persistent=False)

    def _context(self, others: Tensor, context: Tensor | None) -> Tensor | None:
        own = None if self.context_shape is None else context
        if self.given is None:
            return own
        seen = self.given.push(others)
        return seen if own is None else torch.cat([seen, own], -1)

    def _join(self, changed: Tensor, others: Tensor) -> Tensor:
        return torch.cat([changed, others], -1)[..., self.back]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        others = x[..., self.others]
        y, log_det = self.bijection(x[..., self.columns], self._context(others, context))
        return self._join(y, others), log_det

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        others = y[..., self.others]
        x, log_det = self.bijection.inverse(y[..., self.columns], self._context(others, context))
        return self._join(x, others), log_det

    def push(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        others = x[..., self.others]
        return self._join(self.bijection.push(x[..., self.columns], self._context(others, context)), others)

    def pull(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        others = y[..., self.others]
        return self._join(self.bijection.pull(y[..., self.columns], self._context(others, context)), others)

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Initialize ``given`` and the inner bijection, where they are set from data."""
        others = x[..., self.others]
        if isinstance(self.given, Initializable):
            self.given.initialize(others)
        if isinstance(self.bijection, Initializable):
            self.bijection.initialize(x[..., self.columns], self._context(others, context))

    def extra_repr(self) -> str:
        return f"columns={self.columns.tolist()}"


def _check_event(what: str, part: Bijection, size: int) -> None:
    if not part.event_shape == part.latent_shape == (size,):
        raise ShapeError(
            f"{what} takes events of shape {tuple(part.event_shape)} to {tuple(part.latent_shape)}, but it "
            f"stands on {size} columns; build it for ({size},)."
        )
    if what == "given" and part.context_shape is not None:
        raise ShapeError("given takes a context, but it sees the other columns alone; build it without one.")


def _own_context(bijection: Bijection, given: int) -> tuple[int, ...] | None:
    """What is left of the inner context when ``given`` numbers of it are columns."""
    shape = bijection.context_shape
    if not given:
        return shape
    if shape is None or len(shape) != 1 or shape[0] < given:
        raise ShapeError(
            f"the inner bijection's context has shape {None if shape is None else tuple(shape)}, but it is "
            f"to see {given} columns; build it with a context of {given} numbers, or drop given."
        )
    return None if shape[0] == given else (shape[0] - given,)


def _widen(
    domain: constraints.Constraint | None, columns: list[int], features: int
) -> constraints.Constraint | None:
    """``domain`` on its columns, the whole line elsewhere; any stays any."""
    if domain is None:
        return None
    parts: list[constraints.Constraint] = [constraints.real] * features
    for i, part in zip(columns, columns_of(domain, len(columns)), strict=True):
        parts[i] = part
    return by_column(parts)
