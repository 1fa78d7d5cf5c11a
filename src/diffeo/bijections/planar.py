"""The planar flow, and the one with several planes at once: Sylvester."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffeo.bijections.base import Bijection
from diffeo.bijections.context_parameters import ContextParameters
from diffeo.bijections.linear import _check_features, householder
from diffeo.contracts import Net, Traits
from diffeo.errors import ConfigError
from diffeo.functional.affine import soft_clip
from diffeo.functional.far import within
from diffeo.functional.gains import bend, lift_of, slope_of, unbend

MAX_LOG_SCALE = math.log(1000.0)
"""Bound of the log of the diagonal of Sylvester's inner matrix."""
NUMERIC = Traits(closed_form=False, tolerance=1e-10)
"""Of float64; a slope may be as small as 2^-10, and the inverse magnifies by its reciprocal."""


class Planar(Bijection):
    """Space moved along u, by a step across the plane ``w.x + b = 0``.

    Each layer makes one fold or gap along one plane, so it takes many. In the papers the map takes latent to
    data and is not inverted, so that no given data are scored; here it takes data to latent, and the inverse
    is found to round-off. ``Inverse(Planar(D))`` is the papers' direction.

    Formula: ``y = x + u tanh(w.x + b)``; ``log|det| = log(1 + u.w (1 - tanh^2))``. It is invertible where
    ``u.w > -1``, so a free u is moved along w until ``u.w = s + sqrt(s^2 + c^2) - c``, where s is the free
    ``u.w`` and ``c = 1 - 2^-10`` (the paper's softplus would move u = 0, too). Back, ``t = w.x + b`` solves
    the scalar equation ``t + u.w tanh(t) = w.y + b``; its root lies within ``|u.w|`` of the right-hand side.
    Domain: the whole line. Limits: ``u.w > -1 + 2^-10``. Cost: 2 D multiplications forward, some ten
    hyperbolic tangents more back. Derivatives of the inverse are implicit, first and second.

    It starts as the identity (u = 0), with w and b drawn by PyTorch's default generator, such that ``w.x``
    and b have variance 1 for standardized x.

    Args:
        features: D, at least 1.
        net: takes a context to the ``num_params(D)`` numbers that are added to the start:
            ``MLP(0, Planar.num_params(D), context_features=...)``; None for numbers of the layer's own.

    Shape: ``(*batch, D)``; context ``(*batch, net.context_features)`` where there is a net.

    Raises:
        ShapeError: when the net's sizes do not fit.
        NotConverged: by ``inverse``, where round-off keeps it from its tolerance.

    References: Rezende and Mohamed 2015, eqs. 10-13 and appendix A.1.

    Example:
        >>> import torch
        >>> y, log_det = Planar(3)(torch.ones(5, 3))
        >>> torch.equal(y, torch.ones(5, 3)), log_det.shape
        (True, torch.Size([5]))
    """

    traits = NUMERIC

    def __init__(self, features: int, net: Net | None = None):
        w = torch.randn(_check_features(features)) / math.sqrt(features)
        numbers = ContextParameters(torch.cat([w, torch.zeros(features), torch.randn(1)]), net)
        super().__init__((features,), context_shape=numbers.context_shape)
        self.numbers = numbers

    @staticmethod
    def num_params(features: int) -> int:
        """How many numbers a layer of D columns has: w, the free u, and b."""
        return 2 * features + 1

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        w, u, b, slope = self._parts(x, context)
        t = _dot(w, within(x)) + b
        return x + u * t.tanh(), bend(t, slope)[1].squeeze(-1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        w, u, b, slope = self._parts(y, context)
        t, log_slope = unbend(_dot(w, within(y)) + b, slope, "Planar")
        return y - u * t.tanh(), log_slope.squeeze(-1)

    def _parts(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """w, u, b and ``1 + u.w``."""
        features = x.shape[-1]
        w, free, b = self.numbers(x, context).split([features, features, 1], -1)
        s = _dot(w, free)
        # Of second order in u, so that it is smooth at w = 0 too; the floor is far below any w that matters.
        along = s * (s / _dot(w, w).clamp_min(1e-12)) * lift_of(s)
        return w, free + along * w, b, slope_of(s)


class Sylvester(Bijection):
    """Several planar steps at once, in directions that are orthonormal.

    For more columns than ``Planar``, whose layers change one direction each, can serve.
    As with ``Planar``, data to latent here, and the inverse is found to round-off.

    Formula: ``y = x + Q A tanh(B Q^T x + b)`` with Q of M orthonormal columns (the first ones of a product of
    Householder reflections) and A, B (the paper's R, R~) upper triangular. By Sylvester's identity
    ``log|det| = sum_i log(1 + a_ii b_ii (1 - tanh^2(t_i)))``, t being what tanh is taken of. Back, ``Q^T x``
    is found from its last component up, each by the scalar equation of ``Planar``. Domain: the whole line.
    Limits: ``a_ii b_ii > -1 + 2^-10``, smoothly, with b_ii within (1e-3, 1e3); that b_ii is positive loses
    nothing, since tanh is odd. Cost: 2 D M multiplications, and back M roots one after the other; with a net
    Q is made for every row, R D M more. Derivatives of the inverse are implicit, first and second.

    It starts as the identity (A = 0), with Q and b drawn by PyTorch's default generator.

    Args:
        features: D, at least 1.
        rank: M, from 1 to D.
        reflections: R, at least 1; M of them reach any M directions. Default: M.
        net: takes a context to the ``num_params(D, M, R)`` numbers that are added to the start, as
            ``MLP(0, num_params, context_features=...)`` does; None for numbers of the layer's own.

    Shape: ``(*batch, D)``; context ``(*batch, net.context_features)`` where there is a net.

    Raises:
        ConfigError: for a rank or a number of reflections that cannot be.
        ShapeError: when the net's sizes do not fit.
        NotConverged: by ``inverse``, where round-off keeps it from its tolerance.

    References: van den Berg, Hasenclever, Tomczak and Welling 2018, theorems 1 and 2, section 3.

    Example:
        >>> import torch
        >>> y, log_det = Sylvester(3, rank=2)(torch.ones(5, 3))
        >>> torch.equal(y, torch.ones(5, 3)), log_det.shape
        (True, torch.Size([5]))
    """

    traits = NUMERIC
    layout: Tensor

    def __init__(self, features: int, rank: int, reflections: int | None = None, net: Net | None = None):
        reflections = rank if reflections is None else reflections
        if not 1 <= rank <= _check_features(features):
            raise ConfigError(f"rank must be from 1 to the {features} features, got {rank}.")
        if reflections < 1:
            raise ConfigError(f"reflections must be at least 1, got {reflections}.")
        others = self.num_params(features, rank, reflections) - reflections * features - rank
        start = torch.cat([torch.randn(reflections * features), torch.zeros(others), torch.randn(rank)])
        numbers = ContextParameters(start, net)
        super().__init__((features,), context_shape=numbers.context_shape)
        self.rank, self.reflections = rank, reflections
        self.numbers = numbers
        # Where each entry of a triangle stands in [0, diagonal, above].
        layout = torch.diag(torch.arange(1, rank + 1))
        layout[tuple(torch.triu_indices(rank, rank, 1))] = torch.arange(rank + 1, rank * (rank + 1) // 2 + 1)
        self.register_buffer("layout", layout, persistent=False)

    @staticmethod
    def num_params(features: int, rank: int, reflections: int) -> int:
        """How many numbers a layer has: R vectors, two diagonals, what is above them, and b."""
        return reflections * features + 2 * rank + rank * (rank - 1) + rank

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, outer, inner, b, slope = self._parts(x, context)
        t = _times(inner, _times(q.mT, within(x))) + b
        return x + _times(q, _times(outer, t.tanh())), bend(t, slope)[1].sum(-1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, outer, inner, b, slope = self._parts(y, context)
        v = _times(q.mT, within(y))
        z, h, log_det = y[..., :0], y[..., :0], y.new_zeros(y.shape[:-1])  # z and h of the components found
        for i in reversed(range(self.rank)):
            later = slice(i + 1, None)
            e = v[..., i] - (outer[..., i, later] * h).sum(-1)
            known = inner[..., i, i] * e + (inner[..., i, later] * z).sum(-1) + b[..., i]
            t, log_slope = unbend(known, slope[..., i], "Sylvester")
            step = t.tanh()
            h = torch.cat([step.unsqueeze(-1), h], -1)
            z = torch.cat([(e - outer[..., i, i] * step).unsqueeze(-1), z], -1)
            log_det = log_det + log_slope
        return y - _times(q, _times(outer, h)), log_det

    def _parts(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Q, A, B, b, and the slopes ``1 + a_ii b_ii``."""
        m, above = self.rank, self.rank * (self.rank - 1) // 2
        sizes = [self.reflections * x.shape[-1], m, m, above, above, m]
        vectors, raw, log_scale, outer, inner, b = self.numbers(x, context).split(sizes, -1)
        slope, scale = slope_of(raw), soft_clip(log_scale, MAX_LOG_SCALE).exp()
        q = householder(vectors.unflatten(-1, (self.reflections, x.shape[-1])), m)
        return q, self._triangle((slope - 1) / scale, outer), self._triangle(scale, inner), b, slope

    def _triangle(self, diagonal: Tensor, above: Tensor) -> Tensor:
        zero = torch.zeros_like(diagonal[..., :1])
        return torch.cat([zero, diagonal, above], -1)[..., self.layout]

    def extra_repr(self) -> str:
        return f"rank={self.rank}, reflections={self.reflections}"


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


def _times(matrix: Tensor, v: Tensor) -> Tensor:
    """``matrix v``, one matrix or one for each vector."""
    return v @ matrix.mT if matrix.dim() == 2 else (matrix @ v.unsqueeze(-1)).squeeze(-1)
