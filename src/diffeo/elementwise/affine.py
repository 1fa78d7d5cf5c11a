"""The affine family: a bounded scale and a shift."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from diffeo.elementwise.base import Elementwise
from diffeo.errors import ConfigError
from diffeo.functional.affine import soft_clip
from diffeo.functional.exact import exactly
from diffeo.functional.scalar import apply
from diffeo.functional.wire import FamilyKind, Scalar


@dataclass(frozen=True)
class Affine(Elementwise):
    """``y = x exp(s) + shift``: the map of RealNVP and MAF, with a bounded log-scale.

    Formula: ``s = r / (1 + |r| / c)`` with ``c = log(max_scale)``, so that the scale stays within
    ``(1 / max_scale, max_scale)`` for any raw r and the map cannot overflow; ``s = r`` to first order.

    Params: ``[shift, r]``, any real values. Domain: the whole line. Cost: one exponential.

    Args:
        max_scale: bound of the scale and of its reciprocal, above one.

    Shape:
        x: ``(*batch,)``, params: ``(*batch, 2)``; both results: ``(*batch,)``.

    Raises:
        ConfigError: unless ``1 < max_scale < inf``.

    References:
        Dinh, Sohl-Dickstein and Bengio (2017), *RealNVP*, equations 4 and 5.

    Example:
        >>> import torch
        >>> from diffeo.elementwise import Affine
        >>> y, log_slope = Affine().forward(torch.tensor([3.0]), torch.tensor([[2.0, 0.0]]))
        >>> y.item(), log_slope.item()
        (5.0, 0.0)
    """

    max_scale: float = 1000.0

    def __post_init__(self) -> None:
        if not 1 < self.max_scale < math.inf:
            raise ConfigError(f"max_scale must be finite and above 1, got {self.max_scale}.")

    @property
    def num_params(self) -> int:
        return 2

    @property
    def scalar(self) -> Scalar | None:
        return Scalar(FamilyKind.AFFINE, high=math.log(self.max_scale)) if exactly(self, Affine) else None

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        self.check(params)
        return apply(self.scalar, x, params, self._forward)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        self.check(params)
        return apply(self.scalar, y, params, self._inverse, inverse=True)

    def _forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        log_scale = soft_clip(params[..., 1], math.log(self.max_scale))
        return x * log_scale.exp() + params[..., 0], log_scale

    def _inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        log_scale = soft_clip(params[..., 1], math.log(self.max_scale))
        return (y - params[..., 0]) / log_scale.exp(), -log_scale
