"""The simplex: k positive numbers that sum to one, from k - 1 real ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def to_simplex(u: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse isometric log-ratio: ``(*batch, k - 1)`` to logarithms ``(*batch, k)``, and its log-det.

    ``log x = log_softmax(V u)`` with orthonormal columns of V that are orthogonal to (1, .., 1): Helmert's,
    applied by one cumulative sum. u = 0 is the uniform point, and distances in u are those of the
    log-ratios, so no weight plays a role of its own, as the last one does in stick-breaking. The log-det is
    that of the first k - 1 weights, ``sum_j log x_j + log(k) / 2``: exact however small a weight is.

    References:
        Egozcue, Pawlowsky-Glahn, Mateu-Figueras and Barceló-Vidal (2003), *Isometric Logratio
        Transformations for Compositional Data Analysis*.

    Example:
        >>> log_x, log_det = to_simplex(torch.zeros(2))
        >>> log_x.exp()
        tensor([0.3333, 0.3333, 0.3333])
    """
    j = torch.arange(1, u.shape[-1] + 1, dtype=u.dtype, device=u.device)
    w = u / (j * (j + 1)).sqrt()
    zero = torch.zeros_like(u[..., :1])
    behind = torch.cat([w.flip(-1).cumsum(-1).flip(-1), zero], -1)
    log_x = torch.log_softmax(behind - torch.cat([zero, j * w], -1), -1)
    return log_x, log_x.sum(-1) + 0.5 * math.log(u.shape[-1] + 1)


def from_simplex(log_x: Tensor) -> Tensor:
    """``to_simplex`` undone, from the logarithms of the weights, up to a constant: they need not sum to one.

    Example:
        >>> u = torch.tensor([1.0, -2.0])
        >>> torch.allclose(from_simplex(to_simplex(u)[0]), u)
        True
    """
    j = torch.arange(1, log_x.shape[-1], dtype=log_x.dtype, device=log_x.device)
    return (log_x[..., :-1].cumsum(-1) - j * log_x[..., 1:]) / (j * (j + 1)).sqrt()
