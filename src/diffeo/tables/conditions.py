"""What a question says of columns, in Python's words or as text: one value, an interval, a set of values."""

from __future__ import annotations

import csv
import datetime
import difflib
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diffeo.bases.cells import Part
from diffeo.encodings.cell_kinds import CellKind, Levels, Numbers
from diffeo.encodings.cells import Cells
from diffeo.errors import ConfigError, DataError
from diffeo.tables.codes import arrow_type, as_numbers
from diffeo.tables.regions import Region, SomeLevels, SomeNumbers, Span
from diffeo.tables.table import Table
from diffeo.tables.tensors import to_rows

_OPERATORS = re.compile(r"\s*(>=|<=|!=|=|>|<)\s*(.*)", re.DOTALL)
_ASSIGNED = re.compile(r"(.+?)\s*(>=|<=|!=|=|>|<)\s*(.*)", re.DOTALL)
_MISSING = "missing"
_SHOWN = 8
"""Most levels, or columns, that an error names."""

Given = Mapping[str, Any] | Sequence[str] | str | None
"""Conditions: values by column, or text such as ``age>=30``."""


@dataclass(frozen=True)
class Condition:
    """Which values of a column are meant.

    Args:
        column: its number.
        name: its name.
        text: the condition as text.
        region: the values.
        point: the value, where it is one; NaN for what is missing.
    """

    column: int
    name: str
    text: str
    region: Region
    point: float | None

    def holds(self, value: float) -> bool:
        """Whether a value, NaN for missing, is meant."""
        return self.region.holds(value)

    def meet(self, other: Condition) -> Condition:
        """Both conditions on one column."""
        point = other.point if self.point is None else self.point
        both = f"{self.text} and {other.text}"
        if point is not None and not (self.holds(point) and other.holds(point)):
            raise DataError(f"{both}: no value of column {self.name!r} is both.")
        return Condition(self.column, self.name, both, self.region.meet(other.region), point)

    def within(self, other: Condition | None) -> Condition:
        """This condition in addition to another; what both allow may be nothing."""
        region = self.region if other is None else self.region.meet(other.region)
        return Condition(self.column, self.name, self.text, region, None)

    @property
    def part(self) -> Part:
        """What the values are to the density.

        Raises:
            DataError: where they have no probability.
        """
        part = self.region.part()
        if part is None and self.point is not None:
            raise DataError(
                f"{self.text}: one value of a column with a density has no probability; give an interval, "
                f"{self.name}=LOW..HIGH."
            )
        if part is None:
            raise _never(self.text, self.name, self.region)
        return part


def conditions(encoding: Cells, given: Given) -> dict[int, Condition]:
    """The conditions on each column, by its number; several on one column must all hold.

    A mapping has a value for a column, a pair ``(low, high)`` for an interval with its ends, None for an open
    one, or a set or list of values; None or NaN is "missing". Text is ``age=30``, ``age=30..40``,
    ``age=30..``, ``age>=30``, ``age<5``, ``sex!=F``, ``state={CA,NY}`` or ``gap=missing``.

    Raises:
        DataError: for a column that is not there, and values that it never holds.
        ConfigError: for text that is no condition.

    Example:
        >>> encoding = Cells([Levels("sex", "string", False, ("F", "M"))])
        >>> [c.point for c in conditions(encoding, {"sex": "M"}).values()]
        [1.0]
        >>> [sorted(c.region.levels) for c in conditions(encoding, "sex={F,M}").values()]
        [[0, 1]]
    """
    if given is None:
        return {}
    if isinstance(given, str):
        given = [given]
    if isinstance(given, Mapping):
        found = [_of_value(encoding, column_number(encoding, name), value) for name, value in given.items()]
    else:
        found = [_of_text(encoding, text) for text in given]
    every: dict[int, Condition] = {}
    for condition in found:
        before = every.get(condition.column)
        every[condition.column] = condition if before is None else before.meet(condition)
    for condition in every.values():
        if condition.point is None:
            _ = condition.part  # refuses what has no probability
        elif condition.point == condition.point:
            x = torch.tensor([condition.point], dtype=torch.float64)
            if not encoding.columns[condition.column].encode(x)[1].isfinite().all():
                raise _never(condition.text, condition.name, condition.region)
    return every


def _never(text: str, name: str, region: Region) -> DataError:
    """The error of values that a column never holds, which says what it does hold."""
    holds: list[str] = []
    if isinstance(region, SomeNumbers):
        kind = region.kind
        holds += [f"{kind.low:.6g} or more"] if math.isfinite(kind.low) else []
        holds += [f"{kind.high:.6g} or less"] if math.isfinite(kind.high) else []
        holds += [f"a multiple of {kind.step:.6g} from {kind.offset:.6g}"] if kind.step else []
    such = f"; its values are {', '.join(holds)}" if holds else ""
    return DataError(f"{text}: column {name!r} never holds such a value{such}.")


# -- values -----------------------------------------------------------------------------------------


def _of_value(encoding: Cells, column: int, value: Any) -> Condition:
    kind = encoding.columns[column]
    if isinstance(value, tuple):
        if len(value) != 2:
            raise ConfigError(
                f"column {kind.name!r}: a tuple is an interval (low, high), not {value!r}; write a list or a "
                "set for several values."
            )
        low, high = value
        text = f"{kind.name}={'' if low is None else low}..{'' if high is None else high}"
        return _interval(kind, column, text, low, high)
    if isinstance(value, set | frozenset | list):
        values = sorted(value, key=str)
        return _some(kind, column, f"{kind.name}={{{','.join(map(str, values))}}}", values)
    return _some(kind, column, f"{kind.name}={value}", [value])


def _some(kind: CellKind, column: int, text: str, values: Iterable[Any]) -> Condition:
    points = [_number(kind, text, value) for value in values]
    if not points:
        raise ConfigError(f"column {kind.name!r}: a set without a value; give at least one.")
    point = points[0] if len(points) == 1 else None
    return Condition(column, kind.name, text, _points(kind, text, points), point)


def _points(kind: CellKind, text: str, points: Sequence[float]) -> Region:
    missing, there = any(p != p for p in points), [p for p in points if p == p]
    if missing and not kind.gaps:
        raise DataError(f"{text}: column {kind.name!r} is never missing.")
    if isinstance(kind, Levels):
        return SomeLevels(kind, frozenset(map(int, there)), missing)
    assert isinstance(kind, Numbers)
    return SomeNumbers(kind, tuple(Span(p, p) for p in there), missing)


def _interval(
    kind: CellKind,
    column: int,
    text: str,
    low: Any,
    high: Any,
    open_low: bool = False,
    open_high: bool = False,
) -> Condition:
    keys = _keys(kind)
    if isinstance(kind, Levels) and keys is None:
        raise DataError(f"{text}: column {kind.name!r} has levels without an order; give a set of them.")

    ends = (
        -np.inf if low is None else _end(kind, text, low),
        np.inf if high is None else _end(kind, text, high),
    )
    span = Span(*ends, open_low, open_high)
    if span.empty:
        raise DataError(f"{text}: nothing lies in this interval; give the lower end first.")
    if isinstance(kind, Levels):
        assert keys is not None
        region: Region = SomeLevels(kind, frozenset(i for i, key in enumerate(keys) if span.holds(key)))
    else:
        assert isinstance(kind, Numbers)
        region = SomeNumbers(kind, (span,))
    return Condition(column, kind.name, text, region, None)


def _other(kind: CellKind, column: int, text: str, values: Iterable[Any]) -> Condition:
    """All that is there but for these values."""
    points = [_number(kind, text, value) for value in values]
    there = sorted(p for p in points if p == p)
    if isinstance(kind, Levels):
        region: Region = SomeLevels(kind, frozenset(range(len(kind.levels))) - set(map(int, there)))
    else:
        assert isinstance(kind, Numbers)
        ends = [-np.inf, *there, np.inf]
        spans = (Span(a, b, a > -np.inf, b < np.inf) for a, b in itertools.pairwise(ends))
        region = SomeNumbers(kind, tuple(span for span in spans if not span.empty))
    return Condition(column, kind.name, text, region, None)


def _keys(kind: CellKind) -> list[float] | None:
    """What a category's levels are ordered by: their numbers, or their order where the type has one."""
    if not isinstance(kind, Levels):
        return None
    if not any(isinstance(level, str) for level in kind.levels):
        return [float(level) for level in kind.levels]
    return list(map(float, range(len(kind.levels)))) if kind.dtype.endswith("ordered=1>") else None


def _end(kind: CellKind, text: str, value: Any) -> float:
    """The end of an interval, as ``_keys`` has levels, or as a number."""
    words = isinstance(kind, Levels) and isinstance(kind.levels[0], str)
    return _number(kind, text, value) if words else _count(kind, text, value)


def _number(kind: CellKind, text: str, value: Any) -> float:
    """A value as the model takes it, NaN for missing."""
    if value is None or value != value:
        return float("nan")
    if not isinstance(kind, Levels):
        return _count(kind, text, value)
    code = float(to_rows(Cells([kind]), Table.from_columns({kind.name: [value]}))[0, 0])
    if code < 0:
        near = _near(str(value), map(str, kind.levels))
        raise DataError(f"{text}: column {kind.name!r} has no level {str(value)!r}; {near}.")
    return code


def _count(kind: CellKind, text: str, value: Any) -> float:
    """A number, or a time in the unit that the model counts it in."""
    from pyarrow import types

    dtype = arrow_type(kind.dtype)
    try:
        if types.is_temporal(dtype):
            return float(as_numbers(_times(dtype, value))[0])
        number = float(value)
        if math.isfinite(number):
            return number
    except (TypeError, ValueError, OverflowError):  # Arrow's errors are ValueErrors
        pass
    wanted = "times; write one as 2026-01-31 or 2026-01-31T12:00" if types.is_temporal(dtype) else "numbers"
    raise DataError(f"{text}: {str(value)!r} does not fit column {kind.name!r}, which holds {wanted}.")


def _times(dtype: Any, value: Any) -> Any:
    """A time, or text that says one, as an Arrow column of this type; in its zone where it names none."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    if isinstance(value, str):
        if types.is_duration(dtype):
            value = datetime.timedelta(seconds=float(value))
        elif types.is_time(dtype):
            value = datetime.time.fromisoformat(value)
        else:
            value = datetime.datetime.fromisoformat(value)
    column = pa.array([value])
    if getattr(dtype, "tz", None) is not None and getattr(column.type, "tz", None) is None:
        column = pc.call_function(
            "assume_timezone", [column.cast(pa.timestamp(dtype.unit))], pc.AssumeTimezoneOptions(dtype.tz)
        )
    return column.cast(dtype, safe=False)


# -- text -------------------------------------------------------------------------------------------


def _of_text(encoding: Cells, text: str) -> Condition:
    names = sorted((n for n in encoding.names if text.lstrip().startswith(n.strip())), key=len)
    for name in reversed(names):
        if found := _OPERATORS.fullmatch(text.lstrip()[len(name.strip()) :]):
            return _compared(encoding, encoding.names.index(name), text, *found.groups())
    parts = _ASSIGNED.fullmatch(text)
    if parts is None:
        raise ConfigError(
            f"{text!r} is not a condition; write for example age=30..40, age>=30, sex=F, state={{CA,NY}} or "
            "gap=missing."
        )
    return _compared(encoding, column_number(encoding, parts[1]), text, *parts.groups()[1:])


def _compared(encoding: Cells, column: int, text: str, operator: str, value: str) -> Condition:
    kind, text, value = encoding.columns[column], text.strip(), value.strip()
    if operator in ("=", "!="):
        of_set = value.startswith("{") and value.endswith("}")
        words = next(csv.reader([value[1:-1]], skipinitialspace=True), []) if of_set else [value]
        low, dots, high = value.partition("..")
        whole = _is_level(kind, value)
        if dots and not of_set and not whole and operator == "=":
            return _interval(kind, column, text, low.strip() or None, high.strip() or None)
        values = [None if word == _MISSING and not _is_level(kind, word) else word.strip() for word in words]
        if operator == "!=":
            return _other(kind, column, text, values)
        return _some(kind, column, text, values)
    if operator.startswith(">"):
        return _interval(kind, column, text, value, None, open_low=operator == ">")
    return _interval(kind, column, text, None, value, open_high=operator == "<")


def _is_level(kind: CellKind, word: str) -> bool:
    return isinstance(kind, Levels) and word in kind.levels


def column_number(encoding: Cells, name: str) -> int:
    """The number of a column, blanks around its name or not."""
    for known in (encoding.names, [n.strip() for n in encoding.names]):
        if str(name) in known:
            return known.index(str(name))
    if str(name).strip() != str(name):
        return column_number(encoding, str(name).strip())
    for decided in encoding.decided:
        if decided.name == str(name):
            raise DataError(
                f"column {decided.name!r} is computed from {', '.join(decided.factors)}; ask of these."
            )
    raise DataError(f"this model has no column {str(name)!r}; {_near(str(name), encoding.names)}.")


def _near(word: str, known: Iterable[str]) -> str:
    """What there is, the most alike first."""
    known = list(known)
    near = difflib.get_close_matches(word, known, _SHOWN, 0.5)
    shown = ", ".join(map(repr, near or known[:_SHOWN]))
    return (
        f"near to it are {shown}"
        if near
        else f"there are {shown}" + (" and more" if len(known) > _SHOWN else "")
    )
