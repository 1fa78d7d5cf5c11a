"""The trace of a field's Jacobian: exact, or by Hutchinson's probes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffeo.errors import ConfigError
from diffeo.functional.linearize import Linearizable, basis, linearize, trace
from diffeo.functional.log_dets import EXACT_FEATURES, rademacher
from diffeo.functional.seeding import generator


class Traced(Linearizable, ABC):
    """A net that knows the exact trace of its own Jacobian in less than D products."""

    @abstractmethod
    def with_trace(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The net's value at x, and the trace of its Jacobian there, ``(*batch,)``."""


def with_trace(net: Any, x: Tensor, context: Tensor | None, probes: Tensor | None) -> tuple[Tensor, Tensor]:
    """``net(x, context)`` and the trace: exact without probes, else the mean of ``v' J v`` over them."""
    if probes is None and isinstance(net, Traced) and net.intact():
        return net.with_trace(x, context)
    value, product = linearize(net, x, context)
    if probes is None:
        return value, trace(product, x)
    return value, (product(probes) * probes).sum(-1).mean(0)


def with_norm(
    net: Any, x: Tensor, context: Tensor | None, probes: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, and the squared Frobenius norm of the Jacobian, by the same products."""
    value, product = linearize(net, x, context)
    tangents = basis(x) if probes is None else probes.expand(-1, *x.shape)
    columns = product(tangents)
    diagonal, squares = (columns * tangents).sum(-1), columns.square().sum(-1)
    if probes is None:
        return value, diagonal.sum(0), squares.sum(0)
    return value, diagonal.mean(0), squares.mean(0)


class Trace(ABC):
    """How a continuous layer finds the trace of its field's Jacobian."""

    exact: bool

    @abstractmethod
    def probes(self, x: Tensor) -> Tensor | None:
        """The probes of one solve in training, ``(K, rows, D)``; None for the exact trace."""

    @abstractmethod
    def fixed_probes(self, features: int) -> Tensor | None:
        """The probes of every solve in evaluation, ``(K, 1, D)``; None for the exact trace."""


@dataclass(frozen=True)
class ExactTrace(Trace):
    """Every diagonal element: D products, or less where the net is ``Traced``."""

    exact = True

    def probes(self, x: Tensor) -> Tensor | None:
        return None

    def fixed_probes(self, features: int) -> Tensor | None:
        return None


@dataclass(frozen=True)
class Hutchinson(Trace):
    """``E[v' J v]`` over vectors v of random signs: one product for any D, unbiased, noisy.

    One draw holds for a whole solve, so that the solver sees a smooth rate. In training it is from
    torch's default generator. In evaluation the trace is exact for up to 64 features; for more, the
    probes are fixed, and ``log_det`` stays an estimate, of the same value each time.

    Args:
        num_draws: probes in training.
        fixed: probes in evaluation, above 64 features.

    References: Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud 2019, "FFJORD", section 3.1.
    """

    num_draws: int = 1
    fixed: int = 16
    exact = False

    def __post_init__(self) -> None:
        if self.num_draws < 1 or self.fixed < 1:
            raise ConfigError(
                f"num_draws and fixed must be at least 1, not {self.num_draws} and {self.fixed}."
            )

    def probes(self, x: Tensor) -> Tensor | None:
        return rademacher(torch.Size((self.num_draws, *x.shape)), x)

    def fixed_probes(self, features: int) -> Tensor | None:
        if features <= EXACT_FEATURES:
            return None
        return rademacher(torch.Size((self.fixed, 1, features)), torch.empty(0), generator(0))
