"""A linear map by a free square matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffeo.bijections.base import Bijection
from diffeo.errors import ConfigError
from diffeo.functional.far import within


class Dense(Bijection):
    """``z = W x + bias`` with a free matrix: ``LU`` without its factors.

    For a few features, where a determinant is cheap and any matrix may be wanted, one that turns or
    reflects included; ``LU`` costs less and cannot become singular. Starts as the identity.

    Formula: ``log|det| = log|det W|``, by an LU factorization each call. Limits: the optimizer may come near
    a singular matrix, where values lose ``log10 cond(W)`` digits. Domain: the whole line. Cost: ``D^3`` a
    call and ``D^2`` a point.

    Args:
        features: D, at least 1.
        bias: whether a learned vector is added.

    Shape: ``(*batch, D)``, log-det ``(*batch,)``.

    References: Kingma and Dhariwal 2018 (Glow), equation 9; Prince 2023, section 16.3.1.

    Example:
        >>> import torch
        >>> z, log_det = Dense(2)(torch.tensor([[1.0, 2.0]]))
        >>> z.tolist(), log_det.tolist()
        ([[1.0, 2.0]], [0.0])
    """

    def __init__(self, features: int, bias: bool = True):
        if features < 1:
            raise ConfigError(f"features must be at least 1, not {features}.")
        super().__init__((features,))
        self.weight = nn.Parameter(torch.eye(features))
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return nn.functional.linear(within(x), self.weight, self.bias), self._log_det().expand(x.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = within(y)
        centered = y if self.bias is None else y - self.bias
        columns = centered.reshape(-1, len(self.weight)).mT
        x = torch.linalg.solve(self.weight, columns).mT.reshape(y.shape)
        return x, -self._log_det().expand(y.shape[:-1])

    def _log_det(self) -> Tensor:
        return torch.linalg.slogdet(self.weight)[1]
