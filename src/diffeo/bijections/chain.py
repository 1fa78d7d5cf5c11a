"""Composition and inversion of bijections."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor, nn

from diffeo._typing import Initializable, Traits
from diffeo.bijections.base import Bijection
from diffeo.bijections.columns import OnColumns
from diffeo.errors import ConfigError, DomainError, ShapeError
from diffeo.functional.domains import describe, same_interval


class Chain(Bijection, Initializable):
    """Bijections one after the other: left to right in ``forward``, right to left in ``inverse``.

    Args:
        parts: at least one; each one's latent shape and codomain fit the next one's event shape and
            domain, and all that take a context take the same.

    Raises:
        ShapeError: where two neighbors' shapes differ.
        DomainError: where a codomain is not the next domain.

    Example:
        >>> import torch
        >>> from diffeo.bijections import Chain, Exp, Reverse
        >>> y, log_det = Chain([Reverse(2), Exp((2,))])(torch.tensor([0.0, 1.0]))
        >>> y.round(decimals=3).tolist(), log_det.item()
        ([2.7179999351501465, 1.0], 1.0)
    """

    def __init__(self, parts: Iterable[Bijection]):
        parts = list(parts)
        if not parts:
            raise ConfigError("a Chain needs at least one part.")
        contexts = {p.context_shape for p in parts if p.context_shape is not None}
        if len(contexts) > 1:
            raise ShapeError(f"parts of a Chain want different contexts: {sorted(map(tuple, contexts))}.")
        super().__init__(
            parts[0].event_shape,
            latent_shape=parts[-1].latent_shape,
            context_shape=next(iter(contexts), None),
        )
        here = parts[0].domain
        self.domain = here
        for i, part in enumerate(parts):
            previous = parts[i - 1] if i else part
            if i and part.event_shape != previous.latent_shape:
                raise ShapeError(
                    f"part {i - 1} ({type(previous).__name__}) gives {tuple(previous.latent_shape)} but "
                    f"part {i} ({type(part).__name__}) takes {tuple(part.event_shape)}."
                )
            if part.domain is None:
                continue
            if here is None:
                here = self.domain = part.domain
            elif not same_interval(here, part.domain):
                raise DomainError(
                    f"part {i} ({type(part).__name__}) takes {describe(part.domain)} but what comes "
                    f"before it ends on {describe(here)}; put a map such as Logit or Exp between."
                )
            here = part.codomain
        self.codomain = here
        self.parts = nn.ModuleList(parts)
        self.traits = reduce(Traits.then, (p.traits for p in parts))

    def __iter__(self):
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = None
        for part in self.parts:
            x, log_det = part(x, context)
            total = log_det if total is None else total + log_det
        assert total is not None
        return x, total

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = None
        for part in reversed(self.parts):
            y, log_det = part.inverse(y, context)  # type: ignore[operator]
            total = log_det if total is None else total + log_det
        assert total is not None
        return y, total

    def push(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        for part in self.parts:
            x = part.push(x, context)  # type: ignore[operator]
        return x

    def pull(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        for part in reversed(self.parts):
            y = part.pull(y, context)  # type: ignore[operator]
        return y

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Initialize each part on what the parts before it make of ``x``."""
        last = max((i for i, p in enumerate(self.parts) if isinstance(p, Initializable)), default=-1)
        for part in list(self.parts)[: last + 1]:
            if isinstance(part, Initializable):
                part.initialize(x, context)
            x = part.push(x, context)  # type: ignore[operator]


class Inverse(Bijection):
    """A bijection run backwards: ``forward`` is its ``inverse``.

    Turns MAF into IAF: fast sampling for fast density. Parts that are set from data are refused:
    the data would reach them from the wrong side.

    Args:
        bijection: the one to run backwards.

    Raises:
        ConfigError: for a bijection that ``initialize`` would set from data.
    """

    def __init__(self, bijection: Bijection):
        for m in bijection.modules():
            if isinstance(m, Initializable) and not isinstance(m, Chain | OnColumns):
                raise ConfigError(f"{type(m).__name__} is set from data and cannot run inside Inverse.")
        super().__init__(
            bijection.latent_shape,
            latent_shape=bijection.event_shape,
            context_shape=bijection.context_shape,
        )
        self.bijection = bijection
        self.domain, self.codomain = bijection.codomain, bijection.domain
        t = bijection.traits
        self.traits = Traits(
            t.closed_form, t.exact_log_det, t.capturable, t.tolerance, t.inverse_passes, t.forward_passes
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection(y, context)

    def push(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.bijection.pull(x, context)

    def pull(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.bijection.push(y, context)
