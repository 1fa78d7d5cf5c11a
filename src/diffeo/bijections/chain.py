"""Composition and inversion of bijections.

Neighbors that the kernels know go through in one call (``functional.programs``). A chain without a context
keeps their description and looks at it again by identity before each use: replacing a parameter, a layer or
a mode makes a new one. Describing anew took longer than a small flow's density.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffeo.bijections.base import Bijection
from diffeo.contracts import Initializable, Traits
from diffeo.errors import ConfigError, DomainError, ShapeError
from diffeo.functional.domains import describe, same_interval
from diffeo.functional.exact import exactly
from diffeo.functional.layers import Layers
from diffeo.functional.programs import Program, Snapshot, applies
from diffeo.functional.stages import Stage
from diffeo.functional.wire import StageKind


class _Run(NamedTuple):
    """Neighboring parts, and their program where the kernels know them."""

    parts: list[Any]
    program: Program | None


class _Known:
    """The runs of a chain, and what they were made from; filled in place, as the snapshot holds it too."""

    snapshot: Snapshot | None = None
    runs: Sequence[_Run] = ()


_Described = tuple[Any, list[Stage] | None]


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
        self.parts: Layers[Bijection] = Layers(parts)
        self._known = _Known()
        self.traits = reduce(Traits.then, (p.traits for p in parts))

    def __iter__(self):
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._totalled(x, context, inverse=False)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._totalled(y, context, inverse=True)

    def push(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self._totalled(x, context, inverse=False, value_only=True)[0]

    def pull(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self._totalled(y, context, inverse=True, value_only=True)[0]

    def _totalled(
        self, x: Tensor, context: Tensor | None, inverse: bool, value_only: bool = False
    ) -> tuple[Tensor, Any]:
        value, total = x, None
        for value, log_det in self._steps(x, context, inverse, value_only):  # noqa: B007
            total = log_det if total is None or log_det is None else total + log_det
        return value, total

    def _steps(
        self, x: Tensor, context: Tensor | None, inverse: bool, value_only: bool
    ) -> Iterator[tuple[Tensor, Any]]:
        """Value and log-det of each part after the other, or of each run of parts the kernels take."""
        runs = self._runs(context) if applies(x) else [_Run(list(self.parts), None)]
        for run in reversed(runs) if inverse else runs:
            done = None if run.program is None else run.program.run(x, inverse=inverse)
            if done is not None:
                x = done[0]
                yield done
                continue
            for part in reversed(run.parts) if inverse else run.parts:
                if value_only:
                    x, log_det = part.pull(x, context) if inverse else part.push(x, context), None
                else:
                    x, log_det = part.inverse(x, context) if inverse else part(x, context)
                yield x, log_det

    def _runs(self, context: Tensor | None) -> Sequence[_Run]:
        """The parts, neighbors that the kernels take in one call together."""
        if self._known.snapshot is not None and self._known.snapshot.same():
            return self._known.runs
        described = [(part, part.as_stages(context)) for part in self.parts]
        runs = []
        for known, members in _together(described):
            parts, own = zip(*members, strict=True)
            runs.append(_Run(list(parts), Program([s for stages in own for s in stages]) if known else None))
        lasting = all(s.lasting for _, own in described if own is not None for s in own)
        # what depends on a context holds for that one alone
        if self.context_shape is None and lasting:
            self._known.snapshot, self._known.runs = Snapshot(self), runs
        return runs

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": _Known()}

    def as_stages(self, context: Tensor | None = None) -> list[Stage] | None:
        if not exactly(self, Chain):
            return None
        found: list[Stage] = []
        for part in self.parts:
            own = part.as_stages(context)
            if own is None:
                return None
            found += own
        return found

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Initialize each part on what the parts before it make of ``x``."""
        last = max((i for i, p in enumerate(self.parts) if isinstance(p, Initializable)), default=-1)
        for part in list(self.parts)[: last + 1]:
            if isinstance(part, Initializable):
                part.initialize(x, context)
            x = part.push(x, context)


def _together(described: list[_Described]) -> Iterator[tuple[bool, list[_Described]]]:
    """Neighbors for one call each: known to the kernels or not, and inverted or not.

    The kernels have gradients of whole programs, of which every layer goes the same way.
    """
    group: list[_Described] = []
    ways: set[bool] | None = set()
    for part, own in described:
        new = None if own is None else {s.inverted for s in own if s.kind is not StageKind.PERMUTE}
        if group and (ways is None or new is None or (ways and new)) and ways != new:
            yield ways is not None, group
            group, ways = [], set()
        group.append((part, own))
        ways = None if ways is None or new is None else ways | new
    yield ways is not None, group


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
            if "initialized" in dict(m.named_buffers(recurse=False)):
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

    def as_stages(self, context: Tensor | None = None) -> list[Stage] | None:
        own = self.bijection.as_stages(context) if exactly(self, Inverse) else None
        return None if own is None else [stage.invert() for stage in reversed(own)]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection(y, context)

    def push(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.bijection.pull(x, context)

    def pull(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.bijection.push(y, context)
