"""Dates and times as people write them in text tables, beside the ISO forms that Arrow knows."""

from __future__ import annotations

import calendar
from typing import Any

import numpy as np

_TIME = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.(?P<part>\d{1,6}))?)?"
    r"(?: ?(?P<half>[AaPp][Mm]))?"
)
_CLOCK = rf"(?:(?:T| +){_TIME})?"
_NAME = r"(?P<name>[A-Za-z]{3,9})"
_FORMS = (
    rf"^(?P<year>\d{{4}})[-/.](?P<month>\d{{1,2}})[-/.](?P<day>\d{{1,2}}){_CLOCK}$",
    r"^(?P<year>\d{4})[-/](?P<month>\d{1,2})$",
    rf"^(?P<day>\d{{1,2}})\.(?P<month>\d{{1,2}})\.(?P<year>\d{{4}}){_CLOCK}$",
    rf"^(?P<one>\d{{1,2}})[-/](?P<two>\d{{1,2}})[-/](?P<year>\d{{4}}){_CLOCK}$",
    rf"^{_NAME}\.?[-/, ]+(?P<year>\d{{4}})$",
    rf"^(?P<day>\d{{1,2}})\.?[-/ ]*{_NAME}\.?[-/, ]+(?P<year>\d{{4}}){_CLOCK}$",
    rf"^{_NAME}\.? +(?P<day>\d{{1,2}}),? +(?P<year>\d{{4}}){_CLOCK}$",
    rf"^{_TIME}$",
)
"""Each is tried on all values of a column."""
_ENGLISH = "january february march april may june july august september october november december"
_MONTHS = {name[:size]: i + 1 for i, name in enumerate(_ENGLISH.split()) for size in (3, len(name))}
_MONTHS["sept"] = 9
_LAST_DAYS = np.array(
    [[0, *(calendar.monthrange(year, m)[1] for m in range(1, 13))] for year in (2019, 2020)]
)


def dates(words: Any) -> Any:
    """A text array in which every value that is there is a date, a time or an instant of one form; or None.

    The forms are year-month-day, with ``/`` or ``.`` too and without the day; day.month.year; the month's
    English name with a year, a day or both; day/month/year or month/day/year, where some value tells which of
    the two it is; and a time of day, alone or behind a date. A month is its first day.
    """
    from pyarrow import compute

    call = compute.call_function
    for form in _FORMS:
        for some in (words[:100], words):  # most columns are told by their first values
            found = call("extract_regex", [some], compute.ExtractRegexOptions(form))
            if found.null_count > some.null_count:
                break
        else:
            names = [found.type.field(i).name for i in range(found.type.num_fields)]
            parts = [_text(part) for part in found.flatten()]
            return _assembled(dict(zip(names, parts, strict=True)), np.asarray(words.is_valid()))
    return None


def _assembled(parts: dict[str, np.ndarray], there: np.ndarray) -> Any:
    """The column of these parts of its values, None where some day or time does not exist."""
    import pyarrow as pa

    days = _days(parts, there) if "year" in parts else np.zeros(len(there), "M8[D]")
    if days is None:
        return None
    if "hour" not in parts or (parts["hour"] == "").all():
        return pa.array(days, mask=~there)
    hour, minute, second = (_whole(parts[name]) for name in ("hour", "minute", "second"))
    half = np.char.lower(parts["half"])
    if (hour > np.where(half == "", 23, 12)).any() or (minute > 59).any() or (second > 59).any():
        return None
    hour = np.where(half == "", hour, hour % 12 + 12 * (half == "pm"))
    found = days.astype("M8[s]") + (3600 * hour + 60 * minute + second)
    if (parts["part"] != "").any():
        found = found.astype("M8[us]") + _whole(np.char.ljust(parts["part"], 6, "0"))
    column = pa.array(found, mask=~there)
    if "year" in parts:
        return column
    if column.type.unit == "us":
        return column.cast(pa.time64("us"))
    return column.cast(pa.time32("s"))


def _days(parts: dict[str, np.ndarray], there: np.ndarray) -> np.ndarray | None:
    year = _whole(parts["year"])
    month, day = _month_and_day(parts)
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    last = _LAST_DAYS[leap.astype(int), np.where(month > 12, 0, month)]
    if ((year < 1) | (day < 1) | (day > last))[there].any():  # there is no month of 0 days
        return None
    return (12 * (year - 1970) + month - 1).astype("M8[M]").astype("M8[D]") + (day - 1)


def _month_and_day(parts: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The months, 0 where there is none such or where nothing tells, and the days of them."""
    if "one" in parts:
        one, two = _whole(parts["one"]), _whole(parts["two"])
        if (one > 12).any() == (two > 12).any():
            return np.zeros_like(one), two
        return (two, one) if (one > 12).any() else (one, two)
    day = _whole(parts["day"]) if "day" in parts else np.ones(len(parts["year"]), int)
    if "name" not in parts:
        return _whole(parts["month"]), day
    names, where = np.unique(np.char.lower(parts["name"]), return_inverse=True)
    return np.array([_MONTHS.get(name, 0) for name in names.tolist()], int)[where], day


def _text(part: Any) -> np.ndarray:
    return np.array(part.fill_null("").to_pylist(), dtype=str)


def _whole(text: np.ndarray) -> np.ndarray:
    """Digits as numbers; 0 where there are none."""
    return np.where(text == "", "0", text).astype(int)
