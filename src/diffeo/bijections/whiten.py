"""A fixed linear map to uncorrelated columns, set from data."""

from __future__ import annotations

import torch
from torch import Tensor

from diffeo.bijections.set_from_data import SetFromData
from diffeo.functional.far import within

_JITTER = 1e-6
"""Added to the correlation matrix's diagonal: nearly collinear columns must not overflow float32."""


class Whiten(SetFromData):
    """``z = L^-1 (x - mean)`` with ``L L^T`` the covariance of training rows: uncorrelated columns.

    A flow behind it starts as the full-covariance Gaussian fitted to the rows instead of learning that
    first, which is the largest single gain on correlated tables. Fixed once set; the identity before.

    The covariance is shrunk toward its diagonal by (D / (D + rows))^2: few rows give a sane one, many are
    left alone.
    Domain: the whole line. Cost: D^2 / 2 multiplications a point; a triangular solve back.

    Args:
        features: D, columns.

    Shape: ``(*batch, D)``.

    Raises:
        DataError: by ``initialize`` for rows that are not finite.

    Example:
        >>> import torch
        >>> layer = Whiten(2)
        >>> noise = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> rows = noise @ torch.tensor([[2.0, 1.9], [0.0, 0.1]])
        >>> layer.initialize(rows)
        >>> torch.cov(layer(rows)[0].T).sub(torch.eye(2)).abs().max().item() < 0.05
        True
    """

    loc: Tensor
    matrix: Tensor

    def __init__(self, features: int):
        super().__init__((features,))
        self.register_buffer("loc", torch.zeros(features))
        self.register_buffer("matrix", torch.eye(features))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return within(x - self.loc) @ self.matrix.T, self._log_det(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows = within(y).reshape(-1, y.shape[-1])
        x = torch.linalg.solve_triangular(self.matrix.T, rows, upper=True, left=False)
        return x.reshape(y.shape) + self.loc, -self._log_det(y)

    def _log_det(self, like: Tensor) -> Tensor:
        return self.matrix.diagonal().log().sum().expand(like.shape[:-1])

    def set_from(self, rows: Tensor) -> None:
        """Mean and inverse Cholesky factor of the shrunk covariance."""
        n, features = rows.shape
        mean = rows.mean(0)
        rows = rows - mean
        std = rows.square().mean(0).sqrt()
        std = torch.where(std > 1e-12 * (1 + mean.abs()), std, torch.ones_like(std))
        rows = rows / std
        correlation = rows.T @ rows / n * (1 - (features / (n + features)) ** 2)
        correlation.diagonal().copy_(torch.ones_like(std) * (1 + _JITTER))
        factor = torch.linalg.cholesky(correlation) * std[:, None]
        inverse = torch.linalg.solve_triangular(factor, torch.eye(features, dtype=factor.dtype), upper=False)
        self.loc.copy_(mean)
        self.matrix.copy_(inverse)
