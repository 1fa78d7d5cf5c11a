"""Dates and times as people write them in text tables, beside the ISO forms that Arrow knows."""

from __future__ import annotations

from typing import Any

import numpy as np

_CLOCK = (
    r"(?:(?:T| +)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.(?P<part>\d{1,6}))?)?"
    r"(?: ?(?P<half>[AaPp][Mm]))?)?$"
)
_WORD = r"(?P<word>[A-Za-z]{3,9})"
_FORMS = (
    r"^(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})" + _CLOCK,
    r"^(?P<year>\d{4})[-/](?P<month>\d{1,2})$",
    r"^(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})" + _CLOCK,
    r"^(?P<one>\d{1,2})[-/](?P<two>\d{1,2})[-/](?P<year>\d{4})" + _CLOCK,
    r"^" + _WORD + r"\.?[-/, ]+(?P<year>\d{4})$",
    r"^(?P<day>\d{1,2})\.?[-/ ]*" + _WORD + r"\.?[-/, ]+(?P<year>\d{4})" + _CLOCK,
    r"^" + _WORD + r"\.? +(?P<day>\d{1,2}),? +(?P<year>\d{4})" + _CLOCK,
)
"""Each is tried on all values of a column."""
_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "jan",
    "feb",
    "mar",
    "apr",
    "may",
    "jun",
    "jul",
    "aug",
    "sep",
    "oct",
    "nov",
    "dec",
    "sept",
]
_SEPT = len(_MONTHS) - 1


def dates(words: Any) -> Any:
    """A text column in which every value that is there is a date or an instant of one form, as such; or None.

    The forms are year-month-day, with ``/`` or ``.`` too and without the day; day.month.year; the month's
    English name with a year, a day or both; and day/month/year or month/day/year, where some value tells
    which of the two it is. What has a time of day becomes a timestamp, all
    else a date; a month is its first day.
    """
    from pyarrow import compute

    call = compute.call_function
    for form in _FORMS:
        found = call("extract_regex", [words], compute.ExtractRegexOptions(form))
        if found.null_count == words.null_count:
            there = np.asarray(words.is_valid())
            names = [found.type.field(i).name for i in range(found.type.num_fields)]
            parts = dict(zip(names, found.combine_chunks().flatten(), strict=True))
            return _assembled(parts, there)
    return None


def _assembled(parts: dict[str, Any], there: np.ndarray) -> Any:
    """The column of these parts of its dates, None where some day does not exist."""
    import pyarrow as pa

    year = _whole(parts.get("year"), there)
    month, day = _month_and_day(parts, there)
    if month is None or day is None or not ((month >= 1) & (month <= 12) & (day >= 1)).all():
        return None
    months = (year - 1970).astype("M8[M]") + (month - 1)
    days = months.astype("M8[D]") + (day - 1)
    if (days.astype("M8[M]") != months).any():  # the 31st of April
        return None
    if not (parts.get("hour") is not None and np.asarray(_text(parts["hour"]) != "").any()):
        return pa.array(days, mask=~there)
    hour, minute, second = (_whole(parts[name], there) for name in ("hour", "minute", "second"))
    half = np.char.lower(_text(parts["half"]))
    if (hour > 23).any() or (minute > 59).any() or (second > 59).any() or (hour[half != ""] > 12).any():
        return None
    hour = np.where(half == "", hour, hour % 12 + 12 * (half == "pm"))
    instants = days.astype("M8[s]") + (3600 * hour + 60 * minute + second)
    fraction = _text(parts["part"])
    if (fraction == "").all():
        return pa.array(instants, mask=~there)
    micro = np.array([int(digits.ljust(6, "0") or 0) for digits in fraction.tolist()])
    return pa.array(instants.astype("M8[us]") + micro, mask=~there)


def _month_and_day(parts: dict[str, Any], there: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    ones = np.ones(len(there), int)
    if "one" in parts:
        first, second = _whole(parts["one"], there, 1), _whole(parts["two"], there, 1)
        if (first > 12).any() == (second > 12).any():  # nothing tells, or it is neither
            return None, None
        return (second, first) if (first > 12).any() else (first, second)
    day = _whole(parts["day"], there, 1) if "day" in parts else ones
    if "word" not in parts:
        return _whole(parts["month"], there, 1), day
    names = np.char.lower(_text(parts["word"]))
    number = {name: 9 if i == _SEPT else i % 12 + 1 for i, name in enumerate(_MONTHS)}
    unique, inverse = np.unique(names, return_inverse=True)
    month = np.array([number.get(name, 0) for name in unique.tolist()], int)[inverse]
    return np.where(there, month, 1), day


def _text(part: Any) -> np.ndarray:
    return np.array(part.fill_null("").to_pylist(), dtype=str)


def _whole(part: Any, there: np.ndarray, absent: int = 0) -> np.ndarray:
    """A part of every row's date as a number; ``absent`` where the row has none."""
    text = _text(part)
    return np.where(there & (text != ""), np.where(text == "", "0", text).astype(int), absent)
