"""What the words of a text table stand for, where Arrow leaves them as text: gaps, numbers, dates."""

from __future__ import annotations

from typing import Any

from diffeo.tables.csv_dates import dates

GAPS = ("", "NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NaN", "nan", "NULL", "null", "?")
"""What stands for a missing value in any column, unless it stands in quotes."""
_NUMBER_GAPS = (
    *("", "na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "nat", "null", "?", "none", "nil"),
    *("-", "--", "---", ".", "..", "...", "*", "missing", "unknown", "n.a.", "#null!", "#div/0!", "#value!"),
)
"""What stands for one, in small letters, where all else are numbers or dates."""
_COMMAS = r"^[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?$"


def is_gap(word: str) -> bool:
    """Whether a word among numbers or dates marks a gap.

    Example:
        >>> is_gap(" Unknown "), is_gap("red")
        (True, False)
    """
    return word.strip().lower() in _NUMBER_GAPS


def typed(column: Any, commas: bool) -> Any:
    """A column as what its words stand for.

    A text column of numbers or dates, but for words that mark gaps, holds those, and its gaps are missing. In
    any other only what is empty is missing, and what Arrow was told of (``GAPS``).

    Args:
        column: of Arrow's.
        commas: whether a number may have a decimal comma.
    """
    import pyarrow as pa
    from pyarrow import compute, types

    if not types.is_string(column.type):
        return column
    call = compute.call_function
    different = column.dictionary_encode().combine_chunks()
    bare = call("utf8_trim_whitespace", [different.dictionary])
    gaps = call(
        "is_in", [call("utf8_lower", [bare])], compute.SetLookupOptions(pa.array(_NUMBER_GAPS, bare.type))
    )
    words = call("if_else", [gaps, pa.scalar(None, bare.type), bare])
    if words.null_count < len(words):
        for read in (_numbers, _flags, _with_commas, dates) if commas else (_numbers, _flags, dates):
            found = read(words)
            if found is not None:
                return found.take(different.indices)
    blank = different.dictionary.filter(call("equal", [bare, pa.scalar("")]))
    if not len(blank):
        return column
    gaps = call("is_in", [column], compute.SetLookupOptions(blank))
    return call("if_else", [gaps, pa.scalar(None, column.type), column])


def _numbers(words: Any) -> Any:
    import pyarrow as pa

    for kind in (pa.int64(), pa.float64()):
        try:
            return words.cast(kind)
        except pa.ArrowInvalid:
            continue
    return None


def _flags(words: Any) -> Any:
    import pyarrow as pa
    from pyarrow import compute

    small = compute.call_function("utf8_lower", [words])
    true = compute.call_function("equal", [small, pa.scalar("true")])
    false = compute.call_function("equal", [small, pa.scalar("false")])
    known = compute.call_function("or", [true, false])
    return true if compute.call_function("all", [known]).as_py() else None


def _with_commas(words: Any) -> Any:
    import pyarrow as pa
    from pyarrow import compute

    call = compute.call_function
    found = call("match_substring_regex", [words], compute.MatchSubstringOptions(_COMMAS))
    if not call("all", [found]).as_py():
        return None
    plain = call("replace_substring", [words], compute.ReplaceSubstringOptions(".", ""))
    return call("replace_substring", [plain], compute.ReplaceSubstringOptions(",", ".")).cast(pa.float64())
