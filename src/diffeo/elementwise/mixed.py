"""One family per column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import torch
from torch import Tensor, nn

from diffeo.contracts import Traits
from diffeo.elementwise.base import Elementwise
from diffeo.errors import ConfigError, ShapeError
from diffeo.functional.domains import by_column

ScalarMap = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Mixed(Elementwise):
    """A family for each column: angles on the circle beside numbers on the line, in one layer.

    Domain and codomain: each column's own. Params: those of the column's family first; where it
    takes fewer than ``num_params``, the largest number of all, the rest are ignored. Cost: one call
    for each *distinct* family, whose columns go together.

    Args:
        families: one for each column, the event's last axis. They hold no weights of their own.

    Shape:
        x: ``(*batch, columns)``, params: ``(*batch, columns, num_params)``; both results as x.

    Raises:
        ConfigError: for no families, or for one that is a module.
        ShapeError: for an x of another number of columns, unless all families are equal.

    Example:
        >>> import torch
        >>> from diffeo.elementwise import Additive, CircularRationalQuadratic, Mixed
        >>> family = Mixed([Additive(), CircularRationalQuadratic(bins=4)])
        >>> y, log_slope = family.forward(torch.tensor([5.0, 5.0]), torch.zeros(2, family.num_params))
        >>> log_slope  # 5 is not an angle
        tensor([0., -inf])
    """

    families: Sequence[Elementwise]
    _groups: dict[Elementwise, list[int]] = field(init=False, repr=False, compare=False)
    _back: list[int] = field(init=False, repr=False, compare=False)
    _least: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        families = tuple(self.families)
        if not families:
            raise ConfigError("Mixed needs a family for each column, at least one.")
        groups: dict[Elementwise, list[int]] = {}
        for i, family in enumerate(families):
            if isinstance(family, nn.Module):
                raise ConfigError(f"{type(family).__name__} has weights of its own, which Mixed cannot hold.")
            groups.setdefault(family, []).append(i)
        order = [i for columns in groups.values() for i in columns]
        own = {
            "families": families,
            "_groups": groups,
            "_back": sorted(order, key=order.__getitem__),
            "domain": by_column([f.domain for f in families]),
            "codomain": by_column([f.codomain for f in families]),
            "traits": _side_by_side([f.traits for f in families]),
        }
        for name, value in own.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen

    @property
    def num_params(self) -> int:
        return max(self._least, *(f.num_params for f in self.families))

    @property
    def scale(self) -> float:
        return max(f.scale for f in self.families)

    @property
    def features(self) -> int | None:
        return None if len(self._groups) == 1 else len(self.families)

    def columns(self, index: Sequence[int]) -> Mixed:
        some = Mixed([self.families[i] for i in index])
        object.__setattr__(some, "_least", self.num_params)  # their parameters are as wide as before
        return some

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply([f.forward for f in self._groups], x, params)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply([f.inverse for f in self._groups], y, params)

    def _apply(self, maps: list[ScalarMap], x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        self.check(params)
        sizes = [f.num_params for f in self._groups]
        if len(maps) == 1:
            return maps[0](x, params[..., : sizes[0]])
        if x.shape[-1:] != (len(self.families),):
            raise ShapeError(
                f"x has shape {tuple(x.shape)}, but there are families for {len(self.families)} columns."
            )
        pairs = [
            scalar_map(x[..., columns], params[..., columns, :size])
            for scalar_map, columns, size in zip(maps, self._groups.values(), sizes, strict=True)
        ]
        values, log_slopes = (torch.cat(parts, -1)[..., self._back] for parts in zip(*pairs, strict=True))
        return values, log_slopes


def _side_by_side(traits: Sequence[Traits]) -> Traits:
    """The traits of maps of different columns side by side: passes are shared, not added."""
    passes = {name: max(getattr(t, name) for t in traits) for name in ("forward_passes", "inverse_passes")}
    return replace(reduce(Traits.then, traits), **passes)
