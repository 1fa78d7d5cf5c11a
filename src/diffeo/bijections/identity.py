"""The map that leaves everything as it is."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from diffeo.bijections.base import Bijection


class Identity(Bijection):
    """``z = x``: a flow whose base alone is learned.

    Domain: any. log-det: 0. Cost: none.

    Args:
        event_shape: shape of one point.

    Shape: ``(*batch, *event_shape)``.

    Example:
        >>> import torch
        >>> Identity((2,))(torch.tensor([[1.0, 2.0]]))
        (tensor([[1., 2.]]), tensor([0.]))
    """

    def __init__(self, event_shape: Sequence[int]):
        super().__init__(event_shape)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(x.shape[: x.dim() - len(self.event_shape)])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.forward(y, context)
