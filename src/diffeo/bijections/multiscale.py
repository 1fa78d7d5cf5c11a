"""Multiscale flows: at each level a part of the latent leaves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from diffeo.bijections.base import Bijection
from diffeo.contracts import Initializable, Traits
from diffeo.errors import ConfigError, DomainError, ShapeError
from diffeo.functional.domains import describe, same_interval
from diffeo.functional.layers import Layers


class Multiscale(Bijection, Initializable):
    """Levels one after the other; after each but the last, the later channels leave as finished latents.

    What leaves is not worked on any more, so that deep flows of large images stay affordable, and each level
    has its own share of the latent: the first the finest detail, the last the coarse image. Glow's learned
    prior of what leaves is an affine ``ImageCoupling`` at the end of a level, under a mask that passes what
    stays.

    Formula: ``(h_i, z_i) = f_i(h_{i-1})`` cut between channels, ``z = (z_1, ..., z_L)`` flat; log-det the
    sum of the levels'. Domain: the first level's.

    Args:
        levels: bijections of images; each takes what the one before it lets stay.
        keep: how many channels stay after each level but the last; half of them by default.

    Shape: ``(*batch, C, H, W)`` to ``(*batch, C H W)``; ``split`` names the levels' parts.

    Raises:
        ShapeError: where a level does not take what stays.
        ConfigError: for no levels, or a ``keep`` under which nothing stays or nothing leaves.

    References: Dinh et al. 2017, section 3.6; Kingma and Dhariwal 2018, section 3.4; Prince 2023, section
    16.4.

    Example:
        >>> import torch
        >>> from diffeo.bijections import Squeeze
        >>> flow = Multiscale([Squeeze((1, 4, 4)), Squeeze((2, 2, 2))])
        >>> z, _ = flow(torch.randn(5, 1, 4, 4))
        >>> [tuple(part.shape) for part in flow.split(z)]
        [(5, 2, 2, 2), (5, 8, 1, 1)]
    """

    def __init__(self, levels: Sequence[Bijection], keep: Sequence[int] | None = None):
        levels = list(levels)
        if not levels:
            raise ConfigError("a Multiscale flow needs at least one level.")
        if keep is None:
            keep = [level.latent_shape[0] // 2 for level in levels[:-1]]
        keep = [int(k) for k in keep]
        if len(keep) != len(levels) - 1:
            raise ConfigError(
                f"keep has {len(keep)} numbers, but {len(levels) - 1} levels have one after them."
            )
        contexts = {level.context_shape for level in levels if level.context_shape is not None}
        if len(contexts) > 1:
            raise ShapeError(f"the levels want different contexts: {sorted(map(tuple, contexts))}.")
        if len(levels[-1].latent_shape) != 3:
            raise ShapeError(
                f"the last level gives {tuple(levels[-1].latent_shape)}, but levels are of images; end it on "
                f"(channels, height, width)."
            )
        super().__init__(
            levels[0].event_shape,
            latent_shape=(levels[0].event_shape.numel(),),
            context_shape=next(iter(contexts), None),
        )
        self.parts = [torch.Size(levels[-1].latent_shape)]
        for i in reversed(range(len(keep))):
            self._check_cut(levels, i, keep[i])
            channels, *size = levels[i].latent_shape
            self.parts.insert(0, torch.Size((channels - keep[i], *size)))
        self.levels: Layers[Bijection] = Layers(levels)
        self.keep = tuple(keep)
        known = [p for p in levels if p.domain is not None]
        self.domain = known[0].domain if known else None
        self.codomain = known[0].codomain if known else None
        for part in known:
            if not all(same_interval(end, self.domain) for end in (part.domain, part.codomain)):  # type: ignore[arg-type]
                raise DomainError(
                    f"level {levels.index(part)} takes {describe(part.domain)} to {describe(part.codomain)}; "  # type: ignore[arg-type]
                    f"all levels must keep to one interval, so that their parts share a base."
                )
        self.traits = reduce(Traits.then, (p.traits for p in levels))

    @staticmethod
    def _check_cut(levels: Sequence[Bijection], i: int, keep: int) -> None:
        shape, taken = levels[i].latent_shape, levels[i + 1].event_shape
        if len(shape) != 3 or not 1 <= keep < shape[0]:
            raise ConfigError(
                f"level {i} gives {tuple(shape)}, of which {keep} channels cannot stay and the others leave; "
                f"put a Squeeze first, or keep between 1 and {shape[0] - 1}."
            )
        if taken != torch.Size((keep, *shape[1:])):
            raise ShapeError(
                f"level {i} lets {(keep, *shape[1:])} stay, but level {i + 1} takes {tuple(taken)}."
            )

    def split(self, z: Tensor) -> list[Tensor]:
        """A latent as the parts that left, ``(*batch, C_i, H_i, W_i)``, first level first."""
        parts = z.split([shape.numel() for shape in self.parts], -1)
        return [
            part.unflatten(-1, (*shape[1:], shape[0])).movedim(-1, -3)
            for part, shape in zip(parts, self.parts, strict=True)
        ]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The latent of these parts: undoes ``split``."""
        return torch.cat([part.movedim(-3, -1).flatten(-3) for part in parts], -1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        parts: list[Tensor] = []
        total = None
        for level, keep in zip(self.levels, (*self.keep, 0), strict=True):
            x, log_det = level(x, context)
            total = log_det if total is None else total + log_det
            parts.append(x[..., keep:, :, :])
            x = x[..., :keep, :, :]
        assert total is not None
        return self.join(parts), total

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = total = None
        for level, part in zip(reversed(self.levels), reversed(self.split(y)), strict=True):
            x = part if x is None else torch.cat([x, part], -3)
            x, log_det = level.inverse(x, context)
            total = log_det if total is None else total + log_det
        assert x is not None
        assert total is not None
        return x, total

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Initialize each level on what the levels before it let stay."""
        for level, keep in zip(self.levels, (*self.keep, 0), strict=True):
            if isinstance(level, Initializable):
                level.initialize(x, context)
            x = level.push(x, context)[..., :keep, :, :]
