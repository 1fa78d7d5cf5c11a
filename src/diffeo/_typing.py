"""Protocols and small value types shared by every room."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Traits:
    """What a kind promises; ``diffeo.testing`` holds it to exactly this.

    Args:
        closed_form: forward and inverse are finite formulas, no iteration.
        exact_log_det: ``log_det`` is exact, not an estimate.
        capturable: works under ``torch.compile(fullgraph=True)`` and ``torch.func``.
        tolerance: bound on the error of a numeric inverse; 0 for closed forms.
        forward_passes: network passes ``forward`` costs.
        inverse_passes: network passes' worth of work ``inverse`` costs.
    """

    closed_form: bool = True
    exact_log_det: bool = True
    capturable: bool = True
    tolerance: float = 0.0
    forward_passes: int = 1
    inverse_passes: int = 1

    def then(self, other: Traits) -> Traits:
        """The traits of this kind followed by another."""
        return Traits(
            self.closed_form and other.closed_form,
            self.exact_log_det and other.exact_log_det,
            self.capturable and other.capturable,
            max(self.tolerance, other.tolerance),
            self.forward_passes + other.forward_passes,
            self.inverse_passes + other.inverse_passes,
        )


class Initializable(ABC):
    """A module whose buffers or parameters are set from data, once, before training."""

    @abstractmethod
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set the module from training data ``x``; the flag that says so is a saved buffer."""


class Projectable(ABC):
    """A module that keeps a constraint by projection after each optimizer step."""

    @abstractmethod
    def project_(self) -> None:
        """Bring the parameters back into the feasible set, in place."""


class Net(Protocol):
    """Computes parameters from features and context; knows nothing of flows."""

    in_features: int
    out_features: int
    context_features: int

    def __call__(self, x: Tensor, context: Tensor | None = None) -> Tensor: ...


class Stepper(Protocol):
    """One masked pass, a column at a time: the parameters of column d given columns before it."""

    def __call__(self, previous: Tensor | None) -> Tensor:
        """Take column d-1, shape ``(*batch,)`` (None at d = 0); give ``(*batch, params)``."""
        ...


class MaskedNet(Protocol):
    """A net whose parameters for feature i see features before i, and context, only."""

    features: int
    params: int
    context_features: int

    def __call__(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(*batch, features)`` to ``(*batch, features, params)``."""
        ...

    def stepper(self, context: Tensor | None, batch_shape: torch.Size) -> Stepper: ...
