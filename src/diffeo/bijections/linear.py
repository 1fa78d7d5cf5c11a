"""Linear maps of a vector: permutations, and matrices with a cheap determinant and inverse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffeo.bijections.base import Bijection
from diffeo.errors import ConfigError
from diffeo.functional import stages
from diffeo.functional.affine import soft_clip
from diffeo.functional.exact import exactly
from diffeo.functional.far import within
from diffeo.functional.programs import run_alone

MAX_LOG_DIAGONAL = math.log(1000.0)
"""Bound of the log of a triangular matrix's diagonal."""


def _check_features(features: int) -> int:
    if features < 1:
        raise ConfigError(f"features must be at least 1, got {features}.")
    return features


def _solve_rows(rows: Tensor, matrix: Tensor, *, upper: bool, unit: bool = False) -> Tensor:
    """``r @ matrix^-1`` for each row vector r, ``matrix`` triangular."""
    flat = rows.reshape(-1, rows.shape[-1])
    solved = torch.linalg.solve_triangular(matrix, flat, upper=upper, left=False, unitriangular=unit)
    return solved.reshape(rows.shape)


class Permute(Bijection):
    """Reorder the features: ``z[i] = x[permutation[i]]``.

    Between layers that treat features unequally (couplings, autoregressive layers), so that each
    feature takes every part. Domain: any. log-det: 0. Cost: one gather.

    Args:
        permutation: each of 0 to D - 1 once; part of the saved state.

    Shape:
        ``x``: ``(*batch, D)``, log-det: ``(*batch,)``.

    Raises:
        ConfigError: when it is not a permutation.

    Example:
        >>> import torch
        >>> from diffeo.bijections import Permute
        >>> Permute([2, 0, 1])(torch.tensor([10.0, 11.0, 12.0]))[0]
        tensor([12., 10., 11.])
    """

    domain = None
    codomain = None
    permutation: Tensor
    columns: Tensor

    def __init__(self, permutation: Sequence[int] | Tensor):
        order = torch.as_tensor(permutation, dtype=torch.long, device="cpu").clone()
        if order.dim() != 1 or not len(order) or not torch.equal(order.sort()[0], torch.arange(len(order))):
            raise ConfigError(f"a permutation holds each of 0 to D - 1 once, got {order.tolist()}.")
        super().__init__((len(order),))
        self.register_buffer("permutation", order)
        self.register_buffer("columns", order.int(), persistent=False)

    def as_stages(self, context: Tensor | None = None) -> list[stages.Stage] | None:
        return [stages.permutation(self.columns)] if exactly(self, Permute, Reverse) else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x[..., self.permutation], x.new_zeros(x.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y[..., self.permutation.argsort()], y.new_zeros(y.shape[:-1])


class Reverse(Bijection):
    """The features in reverse order: MAF's permutation between layers.

    Domain: any. log-det: 0. Its own inverse.

    Args:
        features: D, at least 1.

    Shape:
        ``x``: ``(*batch, D)``, log-det: ``(*batch,)``.

    Example:
        >>> import torch
        >>> from diffeo.bijections import Reverse
        >>> Reverse(3)(torch.tensor([0.0, 1.0, 2.0]))[0]
        tensor([2., 1., 0.])
    """

    domain = None
    codomain = None
    columns: Tensor

    def __init__(self, features: int):
        super().__init__((_check_features(features),))
        columns = torch.arange(features - 1, -1, -1, dtype=torch.int32)
        self.register_buffer("columns", columns, persistent=False)

    def as_stages(self, context: Tensor | None = None) -> list[stages.Stage] | None:
        return [stages.permutation(self.columns)] if exactly(self, Permute, Reverse) else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.flip(-1), x.new_zeros(x.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.forward(y)


class Triangular(Bijection):
    """``z = L x + bias`` with L lower-triangular and a positive diagonal.

    Alone before a normal base it is the full-covariance Gaussian: ``L^T L`` is the precision, and every
    precision factors so (a Cholesky factor, from the last feature up). Starts as the identity.

    Formula: ``log|det| = sum log L_ii``, with ``log L_ii`` soft-clipped to ``+-log 1000``. Cost: D^2 / 2
    multiplications a point, either way (the inverse is a triangular solve).

    Args:
        features: D, at least 1.
        bias: whether a learned vector is added.

    Shape:
        ``x``: ``(*batch, D)``, log-det: ``(*batch,)``.

    Example:
        >>> import torch
        >>> from diffeo.bijections import Triangular
        >>> z, log_det = Triangular(2)(torch.tensor([[1.0, 2.0]]))
        >>> z.tolist(), log_det.tolist()
        ([[1.0, 2.0]], [0.0])
    """

    def __init__(self, features: int, bias: bool = True):
        super().__init__((_check_features(features),))
        self.weight = nn.Parameter(torch.zeros(features, features))
        self.log_diagonal = nn.Parameter(torch.zeros(features))
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None

    def _parts(self) -> tuple[Tensor, Tensor]:
        log_diagonal = soft_clip(self.log_diagonal, MAX_LOG_DIAGONAL)
        return self.weight.tril(-1) + torch.diag(log_diagonal.exp()), log_diagonal.sum()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, log_det = self._parts()
        z = within(x) @ lower.T
        return z if self.bias is None else z + self.bias, log_det.expand(x.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, log_det = self._parts()
        y = within(y)
        centered = y if self.bias is None else y - self.bias
        return _solve_rows(centered, lower.T, upper=True), -log_det.expand(y.shape[:-1])


class LU(Bijection):
    """``z = L U x + bias``: a general linear map with a free determinant and a cheap inverse.

    Mixes all features between layers, and learns how. L is unit lower-triangular, U upper-triangular
    with a positive diagonal; a permutation, if wanted, is a layer of its own (``Permute``). Starts as
    the identity.

    Formula: ``log|det| = sum log U_ii``, with ``log U_ii`` soft-clipped to ``+-log 1000``. Limits: the
    inverse is as accurate as two triangular solves, so its error grows with the condition of L and U.
    Cost: D^2 multiplications a point either way, and ``L U`` itself once a forward call.

    Args:
        features: D, at least 1.
        bias: whether a learned vector is added.

    Shape:
        ``x``: ``(*batch, D)``, log-det: ``(*batch,)``.

    References:
        Kingma and Dhariwal (2018), *Glow*, equation 10; Durkan et al. (2019), *Neural Spline Flows*, who
        use it for tables.

    Example:
        >>> import torch
        >>> from diffeo.bijections import LU
        >>> z, log_det = LU(2)(torch.tensor([[1.0, 2.0]]))
        >>> z.tolist(), log_det.tolist()
        ([[1.0, 2.0]], [0.0])
    """

    def __init__(self, features: int, bias: bool = True):
        super().__init__((_check_features(features),))
        # One square holds both: L below the diagonal, U above it.
        self.weight = nn.Parameter(torch.zeros(features, features))
        self.log_diagonal = nn.Parameter(torch.zeros(features))
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None

    def as_stages(self, context: Tensor | None = None) -> list[stages.Stage] | None:
        if not exactly(self, LU):
            return None
        return [stages.lu(self.weight, self.log_diagonal, self.bias, MAX_LOG_DIAGONAL)]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return run_alone(self.as_stages, x, context) or self._forward(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return run_alone(self.as_stages, y, context, inverse=True) or self._inverse(y)

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        log_diagonal = soft_clip(self.log_diagonal, MAX_LOG_DIAGONAL)
        upper = self.weight.triu(1) + torch.diag(log_diagonal.exp())
        lower = self.weight.tril(-1) + torch.diag(torch.ones_like(log_diagonal))
        return lower, upper, log_diagonal.sum()

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper, log_det = self._parts()
        z = within(x) @ (lower @ upper).T
        return z if self.bias is None else z + self.bias, log_det.expand(x.shape[:-1])

    def _inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper, log_det = self._parts()
        y = within(y)
        centered = y if self.bias is None else y - self.bias
        half = _solve_rows(centered, lower.T, upper=True, unit=True)
        return _solve_rows(half, upper.T, upper=False), -log_det.expand(y.shape[:-1])


def householder(vectors: Tensor, columns: int | None = None) -> Tensor:
    """The product of the reflections along vectors ``(*batch, R, D)``, gathered as in ``Orthogonal``.

    ``(*batch, D, D)``, or its first columns.
    """
    v = nn.functional.normalize(vectors, dim=-1)
    gram = v @ v.mT
    s = gram.triu(1) + 0.5 * torch.eye(gram.shape[-1], dtype=v.dtype, device=v.device)
    # The diagonal is 1/2 rather than |v|^2 / 2, so that a zero vector reflects nothing.
    features = v.shape[-1]
    eye = torch.eye(features, columns or features, dtype=v.dtype, device=v.device)
    return eye - v.mT @ torch.linalg.solve_triangular(s, v[..., :columns], upper=True)


class Orthogonal(Bijection):
    """A learned rotation: the product of Householder reflections.

    Turns the axes without stretching: log-det 0, an inverse (the transpose) as exact as itself, and
    no conditioning to watch. Reflections start as equal pairs, which cancel: the identity, with the
    pairs' directions drawn from PyTorch's default generator.

    Formula: ``Q = H_1 ... H_R`` with ``H_i = 1 - 2 v_i v_i^T / |v_i|^2``, gathered into one matrix as
    ``Q = 1 - V S^-1 V^T``, where V's columns are the unit vectors and S is the upper triangle of
    ``V^T V`` with its diagonal halved. R even gives rotations only; R >= D gives all of them (D - 1 for
    odd D). Cost: ``O(R D^2)`` a call to gather, then D^2 multiplications a point.

    Args:
        features: D, at least 1.
        reflections: R, even and positive; default: D rounded up to an even number.

    Shape:
        ``x``: ``(*batch, D)``, log-det: ``(*batch,)``.

    Raises:
        ConfigError: for an odd number of reflections, or none.

    References:
        Tomczak and Welling (2016), *Householder flow*; Joffrain et al. (2006), *Accumulating Householder
        transformations, revisited*, for the gathering.

    Example:
        >>> import torch
        >>> from diffeo.bijections import Orthogonal
        >>> z, log_det = Orthogonal(3)(torch.ones(1, 3))
        >>> torch.allclose(z, torch.ones(1, 3), atol=1e-5), log_det
        (True, tensor([0.]))
    """

    def __init__(self, features: int, reflections: int | None = None):
        super().__init__((_check_features(features),))
        count = features + features % 2 if reflections is None else reflections
        if count < 2 or count % 2:
            raise ConfigError(
                f"reflections must be even and positive, got {count}: pairs cancel at the start, and an "
                f"odd one could not."
            )
        self.vectors = nn.Parameter(torch.randn(count // 2, features).repeat_interleave(2, 0))

    def matrix(self) -> Tensor:
        """Q, of shape ``(D, D)``: ``z = Q x``."""
        return householder(self.vectors)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return within(x) @ self.matrix().T, x.new_zeros(x.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return within(y) @ self.matrix(), y.new_zeros(y.shape[:-1])
