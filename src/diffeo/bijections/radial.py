"""The radial flow."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffeo.bijections.base import Bijection
from diffeo.bijections.context_parameters import ContextParameters
from diffeo.bijections.linear import _check_features
from diffeo.contracts import Net
from diffeo.functional.affine import soft_clip
from diffeo.functional.far import within
from diffeo.functional.gains import slope_of

MAX_LOG_RADIUS = math.log(1000.0)
"""Bound of the log of the radius around its start, 1."""


class Radial(Bijection):
    """Space drawn in or pushed out around a point.

    Each layer makes one round dent or bump, so it takes many. In the papers the map takes latent to data and
    cannot be inverted in practice, so that no given data are scored; here it takes data to latent, and both
    directions are closed forms. ``Inverse(Radial(D))`` is the papers' direction.

    Formula: ``y = x + beta (x - x0) / (alpha + r)``, ``r = |x - x0|``. With ``q = alpha / (alpha + r)`` and
    ``gamma = beta / alpha`` the distance grows by the factor ``1 + gamma q``, and ``log|det| = (D - 1)
    log(1 + gamma q) + log(1 + gamma q^2)``. Back, r solves a quadratic, of which the root without
    cancellation is taken. Domain: the whole line. Limits: alpha within (1e-3, 1e3); ``gamma > -1 + 2^-10``,
    by the same smooth bound as in ``Planar``. Cost: some D multiplications, either way.

    It starts as the identity (gamma = 0) with alpha = 1, and x0 drawn from a standard normal by PyTorch's
    default generator.

    Args:
        features: D, at least 1.
        net: takes a context to the ``num_params(D)`` numbers that are added to the start:
            ``MLP(0, Radial.num_params(D), context_features=...)``; None for numbers of the layer's own.

    Shape: ``(*batch, D)``; context ``(*batch, net.context_features)`` where there is a net.

    Raises:
        ShapeError: when the net's sizes do not fit.

    References: Rezende and Mohamed 2015, eq. 14 and appendix A.2.

    Example:
        >>> import torch
        >>> y, log_det = Radial(3)(torch.ones(5, 3))
        >>> torch.equal(y, torch.ones(5, 3)), log_det.tolist()
        (True, [0.0, 0.0, 0.0, 0.0, 0.0])
    """

    def __init__(self, features: int, net: Net | None = None):
        start = torch.cat([torch.randn(_check_features(features)), torch.zeros(2)])
        numbers = ContextParameters(start, net)
        super().__init__((features,), context_shape=numbers.context_shape)
        self.numbers = numbers

    @staticmethod
    def num_params(features: int) -> int:
        """How many numbers a layer of D columns has: the center, log alpha, and one for gamma."""
        return features + 2

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        away, distance, slope = self._parts(x, context)
        q = 1 / (1 + distance)
        return x + away * ((slope - 1) * q), self._log_det(q, slope)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        away, distance, slope = self._parts(y, context)
        # In units of alpha the distance before, r, solves r^2 + (slope - distance) r = distance.
        b = distance - slope
        size = distance.detach().clamp_min(1.0)  # taken out, so that squares do not overflow
        root = size * ((b / size).square() + 4 * (distance / size) / size).sqrt()
        r = torch.where(b > 0, 0.5 * (b + root), 2 * distance / (root - b.clamp_max(0)))
        q = 1 / (1 + r)
        shrink = (slope - 1) * q / (r * q + slope * q)
        return y - away * shrink, -self._log_det(q, slope)

    def _parts(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """``x - x0``, its length in units of alpha, and 1 + gamma: ``(*batch, D)``, ``(*batch, 1)`` twice."""
        center, log_radius, raw = self.numbers(x, context).split([x.shape[-1], 1, 1], -1)
        away = within(x - center)
        # The largest column is taken out, so that squares neither overflow nor vanish.
        unit = away.detach().abs().amax(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        length = unit * torch.linalg.vector_norm(away / unit, dim=-1, keepdim=True)
        return away, length * (-soft_clip(log_radius, MAX_LOG_RADIUS)).exp(), slope_of(raw)

    def _log_det(self, q: Tensor, slope: Tensor) -> Tensor:
        """Logs of 1 + gamma q and 1 + gamma q^2, as sums of positive terms."""
        across = ((1 - q) + slope * q).log()
        along = ((1 - q.square()) + slope * q.square()).log()
        return ((self.event_shape[0] - 1) * across + along).squeeze(-1)
