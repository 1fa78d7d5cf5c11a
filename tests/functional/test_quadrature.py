"""Quadrature rules against integrals that are known."""

from __future__ import annotations

import pytest
import torch

from diffeo.functional.quadrature import clenshaw_curtis, gauss_legendre

LIKE = torch.zeros((), dtype=torch.float64)


@pytest.mark.parametrize("count", [1, 2, 5, 13])
def test_gauss_legendre_is_exact_to_its_degree(count: int):
    nodes, weights = gauss_legendre(count, LIKE)
    for k in range(2 * count + 2):
        wanted = 2 / (k + 1) if k % 2 == 0 else 0.0
        error = abs((weights * nodes**k).sum().item() - wanted)
        assert (error < 1e-14) == (k != 2 * count)  # the first even degree it misses


@pytest.mark.parametrize("n", [2, 4, 8, 16, 64])
def test_clenshaw_curtis(n: int):
    nodes, weights = clenshaw_curtis(n, LIKE)
    assert nodes[0] == 1
    assert nodes[-1] == -1
    assert (weights > 0).all()
    for k in range(n + 1):
        wanted = 2 / (k + 1) if k % 2 == 0 else 0.0
        assert abs((weights * nodes**k).sum().item() - wanted) < 1e-13
    if n > 2:
        torch.testing.assert_close(nodes[::2], clenshaw_curtis(n // 2, LIKE)[0])


def test_dtype_follows():
    for rule in (gauss_legendre, clenshaw_curtis):
        assert all(t.dtype == torch.float32 for t in rule(4, torch.zeros(())))
