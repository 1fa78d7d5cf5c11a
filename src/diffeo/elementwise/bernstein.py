"""Bernstein polynomials with increasing coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffeo.elementwise.continued import Continued, check_bound
from diffeo.errors import ConfigError
from diffeo.functional.affine import soft_clip

MAX_SLOPE = 1e3


@dataclass(frozen=True)
class Bernstein(Continued):
    """A Bernstein polynomial of degree n on ``[-bound, bound]``, straight lines outside.

    A smooth map whose parameters act one neighborhood each; with more degrees it reaches any increasing
    function of the box, slowly (the width of what it can resolve shrinks as ``bound / sqrt(n)``).

    Formula: with ``u = (x + bound) / (2 bound)`` and ``b_k`` the Bernstein basis of degree n - 1,
    ``dy/dx = sum_k exp(s_k) b_k(u)``, ``s`` the logarithms of slopes, softly clipped at log 1000; y is
    its integral from 0, by de Casteljau's last step, and a shift. All terms of the slope are positive.

    Params: the shift, in the units of x, then n raw logarithms of slopes. Zeros are the identity.
    Domain: the whole line. Limits: slopes in (0.001, 1000). Cost: n powers twice; the inverse solves
    for x, some ten times that.

    Args:
        degree: n, 1 to 128.
        bound: half the box, in the units of x, positive.

    Shape:
        x: ``(*batch,)``, params: ``(*batch, degree + 1)``; both results: ``(*batch,)``.

    Raises:
        ConfigError: for a value out of its range.
        NotConverged: by ``inverse``, where a y cannot be reached to round-off.

    References:
        Ramasinghe, Fernando, Khan and Barnes (2021), *Robust normalizing flows using Bernstein-type
        polynomials*, section 3. There the box maps onto a box; the free ends and the lines are ours.

    Example:
        >>> import torch
        >>> from diffeo.elementwise import Bernstein
        >>> family = Bernstein(degree=4)
        >>> x, params = torch.tensor([-1e6, 0.5, 30.0]), torch.randn(3, family.num_params)
        >>> y, log_slope = family.forward(x, params)
        >>> torch.allclose(family.inverse(y, params)[0], x, rtol=1e-4)
        True
    """

    degree: int = 12
    bound: float = 4.0

    def __post_init__(self) -> None:
        if not 1 <= self.degree <= 128:
            raise ConfigError(f"degree must be 1 to 128, not {self.degree}.")
        check_bound(self.bound)

    @property
    def num_params(self) -> int:
        return self.degree + 1

    def within(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        slopes = soft_clip(params[..., 1:], math.log(MAX_SLOPE)).exp()
        steps = slopes * (2 * self.bound / self.degree)
        starts = steps.cumsum(-1) - steps
        u = 0.5 + x / (2 * self.bound)
        basis = self._basis(u)
        # the same at the middle, so that the shift is y(0)
        at_zero = self._basis(torch.full((), 0.5, dtype=x.dtype, device=x.device))
        middle = (at_zero * (starts + 0.5 * steps)).sum(-1)
        y = (basis * (starts + u.unsqueeze(-1) * steps)).sum(-1) - middle + params[..., 0]
        return y, (basis * slopes).sum(-1).log()

    def _basis(self, u: Tensor) -> Tensor:
        """The Bernstein basis of degree n - 1, ``(*, n)``."""
        n = self.degree - 1
        binomials = torch.tensor([math.comb(n, i) for i in range(n + 1)], dtype=torch.float64)
        return binomials.to(u) * _powers(u, self.degree) * _powers(1 - u, self.degree).flip(-1)


def _powers(u: Tensor, count: int) -> Tensor:
    """``u^0`` to ``u^(count - 1)`` on a last axis, by products: ``pow`` has second derivatives NaN at 0."""
    u = u.unsqueeze(-1)
    powers = torch.ones_like(u)
    while powers.shape[-1] < count:
        powers, u = torch.cat([powers, powers * u], -1), u * u
    return powers[..., :count]
