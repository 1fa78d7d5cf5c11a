"""The contract of a family of increasing scalar maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor
from torch.distributions import constraints

from diffeo.contracts import Traits
from diffeo.errors import ShapeError
from diffeo.functional.wire import Scalar


class Elementwise(ABC):
    """A family of increasing scalar maps with unconstrained parameters.

    The parameters stand on a last axis of ``params``, shape ``(*x.shape, num_params)``, and may
    take any real values: the family bounds what must be bounded. All-zero parameters are the
    identity wherever the family allows. ``Pointwise``, ``Coupling`` and ``Autoregressive`` take any
    family, so a new scalar map is one small class.

    ``log_slope`` is log dy/dx (forward) or log dx/dy (inverse), elementwise, of ``x``'s shape.
    Usually a frozen dataclass; a family with weights of its own is also an ``nn.Module``.
    """

    domain: constraints.Constraint = constraints.real
    codomain: constraints.Constraint = constraints.real
    traits: Traits = Traits()

    @property
    @abstractmethod
    def num_params(self) -> int:
        """How many unconstrained parameters one scalar map takes."""

    @property
    def scale(self) -> float:
        """The length the map is built on (a spline's box); round-off is relative to it near 0."""
        return 0.0

    @property
    def features(self) -> int | None:
        """How many columns x has; None for any: one map a scalar, wherever it stands."""
        return None

    @property
    def scalar(self) -> Scalar | None:
        """The kernels' description of this family; None for one they do not run."""
        return None

    def columns(self, index: Sequence[int]) -> Elementwise:
        """The family for these columns of x alone, in this order: itself, unless columns differ."""
        return self

    def check(self, params: Tensor) -> None:
        """Refuse parameters of another width than ``num_params``; every family's maps begin with it.

        Raises:
            ShapeError: for such; it names both widths.
        """
        if not params.dim() or params.shape[-1] != self.num_params:
            raise ShapeError(
                f"{type(self).__name__} takes {self.num_params} parameters a scalar, on the last axis, but "
                f"params has shape {tuple(params.shape)}."
            )

    @abstractmethod
    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """``(y, log dy/dx)``."""

    @abstractmethod
    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """``(x, log dx/dy)``."""
