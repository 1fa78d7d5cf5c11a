"""Limits of fields, declared where a field stands and checked when it is set.

A frozen dataclass whose values may come from a file writes ``layers: Annotated[int, Whole(1, 256)] = 5`` and
calls ``check_fields(self)``: a file from anywhere must not eat the machine. Numbers of any make and lists
become Python's numbers and tuples, so that equal specs compare, print and are written alike.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from diffeo.errors import ConfigError


class Limit(ABC):
    """What the value of a field must be."""

    @abstractmethod
    def checked(self, where: str, value: Any) -> Any:
        """The value as plain Python; a ``ConfigError`` that names the field where it is beyond this limit."""


@dataclass(frozen=True)
class Whole(Limit):
    """A whole number from ``low`` to ``high``."""

    low: int
    high: int

    def checked(self, where: str, value: Any) -> int:
        whole = operator.index(value) if isinstance(value, Integral) else math.nan
        if isinstance(value, bool) or not self.low <= whole <= self.high:
            raise ConfigError(
                f"{where} must be a whole number from {self.low} to {self.high}, not {value!r}."
            )
        return operator.index(value)


@dataclass(frozen=True)
class Number(Limit):
    """A number of at least ``low`` and below ``below``."""

    low: float
    below: float

    def checked(self, where: str, value: Any) -> float:
        try:
            number = float(value) if isinstance(value, Real) else math.nan
        except OverflowError:  # a huge integer
            number = math.nan
        if isinstance(value, bool) or not self.low <= number < self.below:
            raise ConfigError(
                f"{where} must be a number of at least {self.low:g} and below {self.below:g}, not {value!r}."
            )
        return number


@dataclass(frozen=True)
class Several(Limit):
    """A tuple of ``low`` to ``high`` values, each within a limit of its own."""

    each: Limit
    low: int
    high: int

    def checked(self, where: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, tuple | list) or not self.low <= len(value) <= self.high:
            count = f"{self.low}" if self.low == self.high else f"{self.low} to {self.high}"
            raise ConfigError(f"{where} must be a tuple of {count} numbers, not {value!r}.")
        return tuple(self.each.checked(where, item) for item in value)


MOST_BINS = 512
"""The most bins of a spline."""

Size = Annotated[int, Whole(1, 16384)]
Widths = Annotated[tuple[int, ...], Several(Whole(1, 16384), 1, 256)]
Layers = Annotated[int, Whole(1, 256)]
Blocks = Annotated[int, Whole(0, 64)]
Bins = Annotated[int, Whole(1, MOST_BINS)]
Side = Annotated[int, Whole(1, 4096)]
Shape = Annotated[tuple[int, int, int], Several(Whole(1, 4096), 3, 3)]
Scale = Annotated[float, Number(0, 1e6)]
Stretch = Annotated[float, Number(1, 1e6)]
Probability = Annotated[float, Number(0, 1)]


def check_fields(spec: Any) -> None:
    """Check every field of a frozen dataclass against the limits that its type declares."""
    for name, hint in _hints(type(spec)).items():
        where, value = f"{type(spec).__name__}.{name}", getattr(spec, name)
        if hint is bool and type(value) is not bool:
            raise ConfigError(f"{where} must be True or False, not {value!r}.")
        for limit in get_args(hint)[1:] if get_origin(hint) is Annotated else ():
            object.__setattr__(spec, name, limit.checked(where, value))


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {f.name: hints[f.name] for f in fields(kind)}
