"""Kinds of column: which values a table's column may hold, and their map to the real line.

Supports of targets (``diffeo.targets.supports``) have some of these names with other maps, which saved
models depend on.
"""

from __future__ import annotations

import inspect
import math
import re
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffeo.errors import ConfigError, FormatError

LARGEST = 1.7976931348623157e308
SMALLEST = 5e-324
EXACT_INTEGERS = 2.0**53


@dataclass(frozen=True)
class Kind(ABC):
    """One kind of column: which values it may hold and how they become real numbers.

    Works on float64 tensors. Outside the support ``encode`` gives a finite value and a log-weight
    of -inf; NaN in, NaN out.
    """

    discrete: ClassVar[bool] = False
    """Whether a value is a cell of the real line, so that its likelihood is a mass."""
    free: ClassVar[bool] = True
    """Whether the column needs a latent coordinate at all."""
    standardized: ClassVar[bool] = True
    """Whether the encoded values are to be shifted and scaled by the training rows' moments."""

    @property
    @abstractmethod
    def support(self) -> tuple[float, float]:
        """The smallest and the largest allowed float64 value."""

    @abstractmethod
    def encode(self, x: Tensor, noise: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
        """Values to ``(real, log_weight)``; ``noise`` in [-1/2, 1/2) is for discrete kinds, ``eps``
        is the relative precision the values were stored with."""

    def decode(self, real: Tensor) -> Tensor:
        """Real numbers to values; the caller clamps them to the support."""
        return real

    def __str__(self) -> str:
        values = ", ".join(f"{getattr(self, f.name):g}" for f in fields(self))
        return type(self).__name__.lower() + (f"({values})" if values else "")

    def to_json(self) -> dict[str, Any]:
        return {"kind": type(self).__name__.lower(), **asdict(self)}

    @property
    def drawn(self) -> tuple[float, float]:
        """Where samples lie: the support, but for a point it names twice."""
        return self.support

    def _outside(self, x: Tensor) -> Tensor:
        low, high = self.support
        return (x < low) | (x > high)  # False for NaN, which so passes through


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

    def __post_init__(self) -> None:
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


@dataclass(frozen=True)
class Lattice(Kind):
    """The values ``offset + step * k``, k an integer: repeated values on a regular grid.

    A value stands for its cell, ``value + step * u`` with u in [-1/2, 1/2); the mass of the cell is
    ``step * E_u p(value + step * u)``. Decoding takes the nearest lattice value.
    """

    step: float = 1.0
    offset: float = 0.0
    discrete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step) and self.step > 0 and math.isfinite(self.offset)):
            raise ConfigError(
                f"a lattice needs a step above zero and a finite offset, not lattice({self.step:g}, "
                f"{self.offset:g}); write for example lattice(0.05)."
            )

    @property
    def support(self) -> tuple[float, float]:
        reach = EXACT_INTEGERS * min(self.step, 1.0)
        return -reach, reach

    def encode(self, x: Tensor, noise: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
        assert noise is not None
        outside = self._outside(x)
        x = x.masked_fill(outside, self.offset)
        k = (x - self.offset) / self.step
        nearest = k.round()
        # x is known to eps |x|, which is so many steps
        slack = (1e-6 + 4 * eps * x.abs() / self.step).clamp(max=0.25)
        outside = outside | ((k - nearest).abs() > slack)
        real = self.offset + self.step * (nearest + noise)
        return real, (_minus_inf(outside) + math.log(self.step)).expand_as(real)

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
class Integer(Lattice):
    """Whole numbers: the lattice of step 1."""

    def __post_init__(self) -> None:
        if (self.step, self.offset) != (1.0, 0.0):
            raise ConfigError("an integer column has step 1 and offset 0; use lattice(step, offset).")

    def __str__(self) -> str:
        return "integer"


@dataclass(frozen=True)
class Constant(Kind):
    """One value only: set aside, and given back in every sample."""

    value: float
    free: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ConfigError(f"a constant column holds a finite number, not {self.value}.")

    @property
    def support(self) -> tuple[float, float]:
        return self.value, self.value

    def encode(self, x: Tensor, noise: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
        other = (x - self.value).abs() > 4 * eps * abs(self.value)
        return x, _minus_inf(other).masked_fill(x.isnan(), math.nan)

    def decode(self, real: Tensor) -> Tensor:
        return torch.full_like(real, self.value)


COLUMN_KINDS: dict[str, type[Kind]] = {
    kind.__name__.lower(): kind
    for kind in (Continuous, Integer, Lattice, Constant, Positive, Bounded, Circular)
}
DECLARED = "continuous, integer, lattice(step), positive, bounded(low, high), circular(low, high)"


def parse_kind(text: str) -> Kind:
    """A kind from what the user writes: ``positive``, ``bounded(0, 1)``, ``lattice(0.05)``.

    Raises:
        ConfigError: listing the kinds there are.

    Example:
        >>> parse_kind("circular(0, 360)")
        Circular(low=0.0, high=360.0)
    """
    match = re.fullmatch(r"\s*([a-z]+)\s*(?:\(([^()]*)\))?\s*", text.lower())
    kind = COLUMN_KINDS.get(match[1]) if match else None
    if match is None or kind is None or kind is Constant:
        raise ConfigError(f"{text!r} is not a kind of column; there are: {DECLARED}.")
    try:
        values = [float(v) for v in match[2].split(",")] if match[2] else []
        if kind is Integer and values:
            raise ValueError
        inspect.signature(kind).bind(*values)
        if kind is Lattice and not values:
            raise ValueError
    except (ValueError, TypeError):
        raise ConfigError(f"{text!r} has the wrong numbers in its brackets; there are: {DECLARED}.") from None
    return kind(*values)


def kind_from_json(spec: Any) -> Kind:
    """A kind from ``Kind.to_json``'s answer; anything malformed is a ``FormatError``."""
    if (
        not isinstance(spec, dict)
        or not isinstance(spec.get("kind"), str)
        or spec["kind"] not in COLUMN_KINDS
    ):
        raise FormatError("a column in this file is of a kind that this release does not know.")
    kind = COLUMN_KINDS[spec["kind"]]
    values = {key: value for key, value in spec.items() if key != "kind"}
    if set(values) != {f.name for f in fields(kind)}:
        raise FormatError(f"a {spec['kind']} column in this file has the wrong entries.")
    try:
        return kind(**{key: finite_number(value, f"the {key} of a column") for key, value in values.items()})
    except ConfigError as error:
        raise FormatError(f"a column in this file is malformed: {error}") from None


def finite_number(value: Any, what: str) -> float:
    """``value`` as a float when it is a finite JSON number, else a ``FormatError``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise FormatError(f"{what} in this file is not a finite number.")
    return float(value)


def _minus_inf(where: Tensor) -> Tensor:
    zero = torch.zeros((), dtype=torch.float64, device=where.device)
    return torch.where(where, zero - math.inf, zero)


def _check_ends(low: float, high: float, kind: str) -> None:
    # at least a few floats must lie between the ends
    if not (math.isfinite(high - low) and high - low > 8 * max(math.ulp(low), math.ulp(high))):
        raise ConfigError(f"{kind} needs two finite ends, the lower first, not {kind}({low:g}, {high:g}).")
