"""The additive family: a shift."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffeo.elementwise.base import Elementwise
from diffeo.functional.exact import exactly
from diffeo.functional.wire import FamilyKind, Scalar


@dataclass(frozen=True)
class Additive(Elementwise):
    """``y = x + shift``: NICE's volume-preserving map.

    The cheapest family, and the one whose log-slope is zero whatever the parameters.

    Params: ``[shift]``, in the units of x, any real value. Domain: the whole line. Cost: one
    addition.

    Shape:
        x: ``(*batch,)``, params: ``(*batch, 1)``; both results: ``(*batch,)``.

    References:
        Dinh, Krueger and Bengio (2015), *NICE*, the additive coupling law.

    Example:
        >>> import torch
        >>> from diffeo.elementwise import Additive
        >>> y, log_slope = Additive().forward(torch.tensor([1.0]), torch.tensor([[2.0]]))
        >>> y.item(), log_slope.item()
        (3.0, 0.0)
    """

    @property
    def num_params(self) -> int:
        return 1

    @property
    def scalar(self) -> Scalar | None:
        return Scalar(FamilyKind.ADDITIVE) if exactly(self, Additive) else None

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        self.check(params)
        return x + params[..., 0], torch.zeros_like(x)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        self.check(params)
        return y - params[..., 0], torch.zeros_like(y)
