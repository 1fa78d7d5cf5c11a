"""Kinds of column: which values a table's column may hold, and their map to the real line.

A new kind costs its class and its place in ``COLUMN_KINDS``: how it is written, read from text and from a
file, laid out among the latent coordinates and drawn, it says itself.

Supports of targets (``diffeo.targets.supports``) have some of these names with other maps, which saved
models depend on.
"""

from __future__ import annotations

import math
import re
from abc import ABC
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffeo.encodings.column_kind import LARGEST, Kind
from diffeo.errors import ConfigError, FormatError

SMALLEST = 5e-324
EXACT_INTEGERS = 2.0**53


@dataclass(frozen=True)
class Continuous(Kind):
    """Any real number, taken as it is."""

    @property
    def support(self) -> tuple[float, float]:
        return -LARGEST, LARGEST

    def encode(self, x: Tensor, noise: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
        outside = self._outside(x)
        return x.masked_fill(outside, 0.0), _minus_inf(outside)


@dataclass(frozen=True)
class Positive(Kind):
    """Numbers above zero; modeled by their logarithm."""

    @property
    def support(self) -> tuple[float, float]:
        return SMALLEST, LARGEST

    def encode(self, x: Tensor, noise: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
        outside = self._outside(x)
        real = x.masked_fill(outside, 1.0).log()
        return real, _minus_inf(outside) - real

    def decode(self, real: Tensor) -> Tensor:
        return real.exp()


@dataclass(frozen=True)
class Bounded(Kind):
    """Numbers strictly between ``low`` and ``high``; modeled by their logit."""

    low: float
    high: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_ends(self.low, self.high, "bounded")

    @property
    def support(self) -> tuple[float, float]:
        return math.nextafter(self.low, math.inf), math.nextafter(self.high, -math.inf)

    def encode(self, x: Tensor, noise: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
        outside = self._outside(x)
        x = x.masked_fill(outside, 0.5 * (self.low + self.high))
        # the logit from both distances: exact next to either end
        below, above = (x - self.low).log(), (self.high - x).log()
        return below - above, _minus_inf(outside) + math.log(self.high - self.low) - below - above

    def decode(self, real: Tensor) -> Tensor:
        width = self.high - self.low
        lower = self.low + width * torch.sigmoid(real)
        return torch.where(real < 0, lower, self.high - width * torch.sigmoid(-real))


@dataclass(frozen=True)
class Circular(Kind):
    """Angles, hours, directions: ``low`` and ``high`` are the same point.

    Encoded as an angle in [-pi, pi), not standardized; needs a bijection that respects the circle.
    """

    low: float
    high: float
    standardized: ClassVar[bool] = False
    angles: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_ends(self.low, self.high, "circular")

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    @property
    def drawn(self) -> tuple[float, float]:
        return self.low, math.nextafter(self.high, -math.inf)

    def encode(self, x: Tensor, noise: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
        outside = self._outside(x)
        turn = (x.masked_fill(outside, self.low) - self.low) / (self.high - self.low)
        turn = torch.where(turn >= 1, turn - 1, turn)
        log_slope = math.log(2 * math.pi) - math.log(self.high - self.low)
        return (turn - 0.5) * (2 * math.pi), _minus_inf(outside) + log_slope

    def decode(self, real: Tensor) -> Tensor:
        turn = torch.remainder(real.clamp(-1e9, 1e9) / (2 * math.pi) + 0.5, 1.0)
        return self.low + (self.high - self.low) * turn


class Grid(Kind, ABC):
    """The values ``offset + step * k``, k an integer.

    A value stands for its cell, ``value + step * u`` with u in [-1/2, 1/2); the mass of the cell is
    ``step * E_u p(value + step * u)``. Decoding takes the nearest value of the grid.
    """

    step: float
    offset: float

    @property
    def noise(self) -> int:
        return 1

    @property
    def noise_std(self) -> float:
        return self.step / math.sqrt(12)

    @property
    def support(self) -> tuple[float, float]:
        reach = EXACT_INTEGERS * min(self.step, 1.0)
        return -reach, reach

    @property
    def whole(self) -> bool:
        return self.step.is_integer() and self.offset.is_integer()

    def inner(self, low: float, high: float) -> tuple[float, float]:
        first, last = math.ceil((low - self.offset) / self.step), math.floor((high - self.offset) / self.step)
        return self.offset + self.step * first, self.offset + self.step * last

    def encode(self, x: Tensor, noise: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
        assert noise is not None
        outside = self._outside(x)
        nearest, off = self._place(x.masked_fill(outside, self._inside), eps)
        real = self.offset + self.step * (nearest + noise)
        return real, (_minus_inf(outside | off) + math.log(self.step)).expand_as(real)

    def nearest(self, x: Tensor, eps: float) -> Tensor:
        return torch.where(self._place(x, eps)[1] & ~self._outside(x), Grid.decode(self, x), x)

    def _place(self, x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """How many steps from the offset the nearest point is, and whether the value is off it."""
        k = (x - self.offset) / self.step
        nearest = k.round()
        # x is known to eps |x|, which is so many steps; from half a step on nothing tells it from the grid
        slack = (1e-6 + 4 * eps * x.abs() / self.step).clamp(max=0.5)
        return nearest, (k - nearest).abs() > slack

    @property
    def _inside(self) -> float:
        """A point of the grid to compute with where a value is outside."""
        return self.offset

    def decode(self, real: Tensor) -> Tensor:
        x = self.offset + self.step * ((real - self.offset) / self.step).round()
        power = self._decimals
        return x if power is None else (x * power).round() / power  # 0.3, not 0.30000000000000004

    @property
    def _decimals(self) -> float | None:
        """The power of ten that makes the whole lattice integer, or None."""
        for power in (10.0**d for d in range(10)):
            scaled = (self.step * power, self.offset * power)
            if all(abs(a - round(a)) <= 1e-12 * abs(a) for a in scaled):
                return power
        return None


@dataclass(frozen=True)
class Lattice(Grid):
    """Repeated values on a regular grid, of any step."""

    step: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.step) and self.step > 0 and math.isfinite(self.offset)):
            raise ConfigError(
                f"a lattice needs a step above zero and a finite offset, not lattice({self.step:g}, "
                f"{self.offset:g}); write for example lattice(0.05)."
            )


@dataclass(frozen=True)
class Integer(Grid):
    """Whole numbers, the grid of step 1: all of them, or those from ``low`` on, or from ``low`` to ``high``.

    With ends the cells from ``low - 1/2`` to ``high + 1/2`` are all there is: they go through a logit (a
    logarithm where there is one end), so that no mass lies beyond and draws need no clipping.
    """

    low: float = -EXACT_INTEGERS
    high: float = EXACT_INTEGERS
    step: float = field(default=1.0, init=False)
    offset: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = float(self.low).is_integer() and float(self.high).is_integer()
        if not (whole and -EXACT_INTEGERS <= self.low < self.high <= EXACT_INTEGERS):
            raise ConfigError(
                f"integer takes two whole numbers, the lower first, or the lower alone, not "
                f"integer({self.low:g}, {self.high:g}); write for example integer(1, 31) or integer(0)."
            )

    @classmethod
    def usage(cls) -> str:
        return "integer or integer(low, high)"

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def encode(self, x: Tensor, noise: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
        real, log_weight = super().encode(x, noise, eps)
        has_low, has_high = self._ends
        if not (has_low or has_high):
            return real, log_weight
        # the noise may touch the very edge
        below = (real - (self.low - 0.5)).clamp(min=1e-9).log() if has_low else torch.zeros_like(real)
        above = (self.high + 0.5 - real).clamp(min=1e-9).log() if has_high else torch.zeros_like(real)
        width = math.log(self.high - self.low + 1) if has_low and has_high else 0.0
        return below - above, log_weight + width - below - above

    def decode(self, real: Tensor) -> Tensor:
        has_low, has_high = self._ends
        if has_low and has_high:
            real = Bounded(self.low - 0.5, self.high + 0.5).decode(real)
        elif has_low:
            real = self.low - 0.5 + real.exp()
        elif has_high:
            real = self.high + 0.5 - (-real).exp()
        return super().decode(real)

    @property
    def _ends(self) -> tuple[bool, bool]:
        return self.low > -EXACT_INTEGERS, self.high < EXACT_INTEGERS

    @property
    def _inside(self) -> float:
        return self.low if self._ends[0] else min(self.high, 0.0)


@dataclass(frozen=True)
class Constant(Kind):
    """One value only: set aside, and given back in every sample."""

    value: float
    declarable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.value):
            raise ConfigError(f"a constant column holds a finite number, not {self.value}.")

    @property
    def width(self) -> int:
        return 0

    @property
    def support(self) -> tuple[float, float]:
        return self.value, self.value

    @property
    def whole(self) -> bool:
        return self.value.is_integer()

    def encode(self, x: Tensor, noise: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
        other = (x - self.value).abs() > 4 * eps * abs(self.value)
        return x[..., :0], _minus_inf(other).masked_fill(x.isnan(), math.nan)

    def decode(self, real: Tensor) -> Tensor:
        return real.new_full((*real.shape[:-1], 1), self.value)


COLUMN_KINDS: dict[str, type[Kind]] = {
    kind.name(): kind for kind in (Continuous, Integer, Lattice, Constant, Positive, Bounded, Circular)
}
"""Every kind by its name, in the order of the help."""


def declarable_kinds() -> str:
    """How each kind that can be declared is written.

    Example:
        >>> declarable_kinds()[:42]
        'continuous, integer or integer(low, high),'
    """
    return ", ".join(kind.usage() for kind in COLUMN_KINDS.values() if kind.declarable)


def parse_kind(text: str) -> Kind:
    """A kind from what the user writes: ``positive``, ``bounded(0, 1)``, ``lattice(0.05)``.

    Raises:
        ConfigError: listing the kinds there are.

    Example:
        >>> parse_kind("circular(0, 360)")
        Circular(low=0.0, high=360.0)
    """
    match = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", text)
    kind = COLUMN_KINDS.get(match[1].lower()) if match else None
    if match is None or kind is None or not kind.declarable:
        raise ConfigError(f"{text!r} is not a kind of column; there are: {declarable_kinds()}.")
    try:
        return kind.parse(match[2] or "")
    except ConfigError:
        raise
    except (ValueError, TypeError):
        raise ConfigError(
            f"{text!r} has the wrong values in its brackets; there are: {declarable_kinds()}."
        ) from None


def kind_from_json(spec: Any) -> Kind:
    """A kind from ``Kind.to_json``'s answer; anything malformed is a ``FormatError``."""
    if (
        not isinstance(spec, dict)
        or not isinstance(spec.get("kind"), str)
        or spec["kind"] not in COLUMN_KINDS
    ):
        raise FormatError("a column in this file is of a kind that this release does not know.")
    try:
        return COLUMN_KINDS[spec["kind"]].from_json({k: v for k, v in spec.items() if k != "kind"})
    except ConfigError as error:
        raise FormatError(f"a column in this file is malformed: {error}") from None


def _minus_inf(where: Tensor) -> Tensor:
    zero = torch.zeros((), dtype=torch.float64, device=where.device)
    return torch.where(where, zero - math.inf, zero)


def _check_ends(low: float, high: float, kind: str) -> None:
    # at least a few floats must lie between the ends
    if not (math.isfinite(high - low) and high - low > 8 * max(math.ulp(low), math.ulp(high))):
        raise ConfigError(f"{kind} needs two finite ends, the lower first, not {kind}({low:g}, {high:g}).")
