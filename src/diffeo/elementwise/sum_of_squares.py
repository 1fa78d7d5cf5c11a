"""Integrals of sums of squared polynomials."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from diffeo.elementwise.continued import Continued, check_bound
from diffeo.errors import ConfigError
from diffeo.functional.quadrature import gauss_legendre

FLOOR, CEILING = 1e-3, 1e3


@lru_cache
def _start(degree: int, polynomials: int) -> tuple[tuple[float, ...], ...]:
    """Coefficients at zero parameters, ``polynomials x (2 degree + 1)``: whose squares sum to ``1 - FLOOR``.

    Pair i is ``(T_n, U_{n-1})`` with ``T_n^2 + (1 - t^2) U_{n-1}^2 = 1``, a degree n of its own.
    """
    size = math.sqrt((1 - FLOOR) / polynomials)
    rows = []
    for i in range(polynomials):
        n = 1 + i % degree
        rows.append(tuple(size if j in (n, degree + n) else 0.0 for j in range(2 * degree + 1)))
    return tuple(rows)


@dataclass(frozen=True)
class SumOfSquares(Continued):
    """The integral of a sum of squared polynomials on ``[-bound, bound]``, straight lines outside.

    A polynomial map, increasing by its form: any slope that is a positive polynomial of degree 2 n on the
    box, and so in the limit any increasing function.

    Formula: with ``t = x / bound``,
    ``dy/dx = 0.001 + c sum_i (p_i(t)^2 + (1 - t^2) q_i(t)^2)``, p of degree n in the Chebyshev polynomials
    ``T_k``, q of degree n - 1 in ``U_k``; every polynomial that is positive on the box is such a sum. With
    ``t = cos a`` both are trigonometric sums, bounded by their coefficients. y is a shift and the integral
    from 0, exact by Gauss and Legendre's rule with n + 1 nodes, all terms positive.

    Params: the shift, in the units of x, then ``2 n + 1`` coefficients for each i, added to fixed ones: pair
    i starts as ``(T_j, U_{j-1})``, ``j = 1 + i mod n``, whose two squares sum to 1. So zeros are the
    identity, and no pair starts where its gradient vanishes (a square of zero would never leave it). The
    factor c, equal to 1 at zeros, bounds the slope by 1000, smoothly, as coefficients grow.
    Domain: the whole line. Cost: (n + 1)(2 n + 1) multiplications for each i; the inverse solves for x, some
    ten times that.

    Args:
        degree: n, 1 to 32.
        polynomials: how many pairs, 1 to 64.
        bound: half the box, in the units of x, positive.

    Shape:
        x: ``(*batch,)``, params: ``(*batch, 1 + polynomials (2 degree + 1))``; both results: ``(*batch,)``.

    Raises:
        ConfigError: for a value out of its range.
        NotConverged: by ``inverse``, where a y cannot be reached to round-off.

    References:
        Jaini, Selby and Yu (2019), *Sum-of-squares polynomial flow*, equation 8; there on the whole line, in
        powers of x, and without the weighted squares.

    Example:
        >>> import torch
        >>> from diffeo.elementwise import SumOfSquares
        >>> family = SumOfSquares(degree=3, polynomials=2)
        >>> x, params = torch.tensor([-1e6, 0.5, 30.0]), torch.randn(3, family.num_params)
        >>> y, log_slope = family.forward(x, params)
        >>> torch.allclose(family.inverse(y, params)[0], x, rtol=1e-4)
        True
    """

    degree: int = 4
    polynomials: int = 3
    bound: float = 4.0

    def __post_init__(self) -> None:
        if not 1 <= self.degree <= 32:
            raise ConfigError(f"degree must be 1 to 32, not {self.degree}.")
        if not 1 <= self.polynomials <= 64:
            raise ConfigError(f"polynomials must be 1 to 64, not {self.polynomials}.")
        check_bound(self.bound)

    @property
    def num_params(self) -> int:
        return 1 + self.polynomials * (2 * self.degree + 1)

    def within(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        c, s = self._coefficients(x, params)
        nodes, weights = gauss_legendre(self.degree + 1, x)
        # the nodes of [0, x], and x itself
        t = torch.cat([0.5 * (1 + nodes), nodes.new_ones(1)]) * (x / self.bound).unsqueeze(-1)
        first, second = self._basis(t)
        slopes = FLOOR + (c @ first).square().sum(-2) + (1 - t) * (1 + t) * (s @ second).square().sum(-2)
        mean = (slopes[..., :-1] * (0.5 * weights)).sum(-1)
        return params[..., 0] + x * mean, slopes[..., -1].log()

    def _coefficients(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """Of the T_k, ``(*, polynomials, degree + 1)``, and of the U_k, ``(*, polynomials, degree)``."""
        n = self.degree
        start = torch.tensor(_start(n, self.polynomials), dtype=x.dtype, device=x.device)
        both = params[..., 1:].unflatten(-1, start.shape) + start
        # by Cauchy's inequality the slope is at most FLOOR + (n + 1) total; that total starts at `first`
        total, first = both.square().sum((-2, -1)), 2 * (1 - FLOOR)
        c = (1 + (n + 1) * (total - first) / (CEILING + (n + 1) * first)).rsqrt()
        both = both * c[..., None, None]
        return both[..., : n + 1], both[..., n + 1 :]

    def _basis(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``T_k(t)``, k = 0 .. n, and ``U_k(t)``, k = 0 .. n - 1, on the axis before the nodes."""
        first, second = [torch.ones_like(t), t], [torch.ones_like(t), 2 * t]
        for _ in range(self.degree - 1):
            first.append(2 * t * first[-1] - first[-2])
            second.append(2 * t * second[-1] - second[-2])
        return torch.stack(first, -2), torch.stack(second[: self.degree], -2)
