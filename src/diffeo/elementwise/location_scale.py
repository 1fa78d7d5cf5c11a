"""A family with a location and a scale of its own behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor
from torch.distributions import constraints

from diffeo.elementwise.affine import Affine
from diffeo.elementwise.base import Elementwise
from diffeo.errors import ConfigError
from diffeo.functional.domains import describe, same_interval
from diffeo.functional.exact import exactly
from diffeo.functional.scalar import apply
from diffeo.functional.wire import FamilyKind, Scalar


@dataclass(frozen=True)
class LocationScale(Elementwise):
    """A family of the line, then an affine map: its tails follow a location and a scale.

    A spline bends in its box alone. Outside it is the identity, whatever a net or a context says. So the far
    rows of a narrow conditional density keep the width of all rows together. With an affine map behind the
    spline each tail is a line whose place and slope the net gives.

    Formula: ``y = f(x) exp(s) + shift``, s the soft-clipped log-scale of ``Affine``.

    Params: ``[shift, r, *family's]``, any real values; zero for the affine map's are no change. Cost: one
    exponential more than the family's.

    Args:
        family: a family of the line onto the line, in closed form.
        max_scale: bound of the scale and of its reciprocal, above one. With 10, five layers follow a
            conditional density that is a hundred thousand times as narrow as the data. With 1,000, draws of a
            heavy-tailed table ran away to 1e7 of its deviations.

    Shape:
        x: ``(*batch,)``, params: ``(*batch, 2 + family.num_params)``; both results: ``(*batch,)``.

    Raises:
        ConfigError: for a family of an interval or without a closed inverse; for another ``max_scale``.

    Example:
        >>> import torch
        >>> from diffeo.elementwise import RationalQuadratic
        >>> family = LocationScale(RationalQuadratic(bins=4))
        >>> params = torch.zeros(family.num_params)
        >>> params[0] = 2.0
        >>> y, log_slope = family.forward(torch.tensor([9.0]), params)
        >>> y.item(), log_slope.item()
        (11.0, 0.0)
    """

    family: Elementwise
    max_scale: float = 10.0
    affine: Affine = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for ends in (self.family.domain, self.family.codomain):
            if not same_interval(ends, constraints.real):
                raise ConfigError(f"{self.family} is a map of {describe(ends)}; give one of the whole line.")
        if not self.family.traits.closed_form:
            raise ConfigError(f"the inverse of {self.family} has no closed form; give a family that has one.")
        object.__setattr__(self, "affine", Affine(self.max_scale))  # the dataclass is frozen

    @property
    def num_params(self) -> int:
        return 2 + self.family.num_params

    @property
    def scale(self) -> float:
        return self.family.scale

    @property
    def features(self) -> int | None:
        return self.family.features

    def columns(self, index: Sequence[int]) -> LocationScale:
        return LocationScale(self.family.columns(index), self.max_scale)

    @property
    def scalar(self) -> Scalar | None:
        known = self.family.scalar
        if not exactly(self, LocationScale) or known is None or known.kind is not FamilyKind.SPLINE:
            return None
        return known._replace(reach=math.log(self.max_scale))

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        self.check(params)
        return apply(self.scalar, x, params, self._forward)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        self.check(params)
        return apply(self.scalar, y, params, self._inverse, inverse=True)

    def _forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        y, bent = self.family.forward(x, params[..., 2:])
        y, scaled = self.affine.forward(y, params[..., :2])
        return y, bent + scaled

    def _inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        x, scaled = self.affine.inverse(y, params[..., :2])
        x, bent = self.family.inverse(x, params[..., 2:])
        return x, bent + scaled
