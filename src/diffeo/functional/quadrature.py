"""Nodes and weights of quadrature on [-1, 1]."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@lru_cache
def _gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(nodes), torch.from_numpy(weights)


def gauss_legendre(count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss and Legendre's rule: exact for polynomials of degree ``2 count - 1``."""
    nodes, weights = _gauss_legendre(count)
    return nodes.to(like), weights.to(like)


@lru_cache
def _clenshaw_curtis(n: int) -> tuple[Tensor, Tensor]:
    k, j = np.arange(n + 1), np.arange(1, n // 2 + 1)
    terms = np.where(j == n / 2, 1, 2) / (4 * j**2 - 1.0)
    weights = 1 - np.cos(2 * np.pi / n * np.outer(k, j)) @ terms
    weights *= np.where((k == 0) | (k == n), 1, 2) / n
    return torch.from_numpy(np.cos(np.pi / n * k)), torch.from_numpy(weights)


def clenshaw_curtis(n: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Clenshaw and Curtis's rule with n + 1 nodes, n even, from 1 down to -1; all weights are positive.

    The rule with n / 2 uses every second node. For analytic functions the error falls geometrically with n.
    """
    nodes, weights = _clenshaw_curtis(n)
    return nodes.to(like), weights.to(like)
