"""A family with parameters of its own: the one-dimensional flow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffeo.bijections.base import Bijection, check_family
from diffeo.elementwise.base import Elementwise
from diffeo.functional.shapes import sum_event


class Pointwise(Bijection):
    """Each scalar of the event through a family's map, with learned parameters of its own.

    The one-dimensional flow of Prince, section 16.1, applied to every scalar at once. Parameters start at
    zero.

    Args:
        family: the scalar map.
        event_shape: shape of one data point; ``(1,)`` or ``()`` for one-dimensional data.

    Shape: ``(*batch, *event_shape)``.

    References: Prince 2023, section 16.1, figures 16.1-16.3.

    Example:
        >>> import torch
        >>> from diffeo.elementwise import RationalQuadratic
        >>> y, log_det = Pointwise(RationalQuadratic(), (1,))(torch.zeros(5, 1))
        >>> y.shape, log_det.shape
        (torch.Size([5, 1]), torch.Size([5]))
    """

    def __init__(self, family: Elementwise, event_shape: Sequence[int]):
        super().__init__(event_shape)
        check_family(family, self.event_shape[-1] if event_shape else 1)
        self.family = family
        self.domain, self.codomain, self.traits = family.domain, family.codomain, family.traits
        self.params = nn.Parameter(torch.zeros(*event_shape, family.num_params))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, log_slope = self.family.forward(x, self._params(x))
        return y, sum_event(log_slope, len(self.event_shape))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_slope = self.family.inverse(y, self._params(y))
        return x, sum_event(log_slope, len(self.event_shape))

    def _params(self, x: Tensor) -> Tensor:
        return self.params.expand(*x.shape, self.family.num_params)

    def extra_repr(self) -> str:
        return f"{self.family}, event_shape={tuple(self.event_shape)}"
