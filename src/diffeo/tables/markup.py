"""Parts of a report's page: text from anywhere made safe, figures, tables and cards."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from diffeo.errors import DataError

_SHOWN = 12
"""Cards that are shown at once."""


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Refuse a path that is neither a page nor JSON.

    Raises:
        DataError: for another suffix.
    """
    if Path(path).suffix.lower() not in (".html", ".htm", ".json"):
        raise DataError(f"{path}: a report is a page or its figures; name it .html or .json.")


def safe(value: str) -> str:
    """Text from anywhere as HTML: escaped, and with a mark for each character that does not print.

    Example:
        >>> safe("<b>\\x00")
        '&lt;b&gt;\ufffd'
    """
    return escape("".join(c if c.isprintable() else "\ufffd" for c in value))


def name(value: str) -> str:
    """A name or an entry from anywhere, kept apart from the direction of the text around it."""
    return f"<bdi>{safe(value)}</bdi>"


def figure(value: float | None, how: str = ".3f") -> str:
    """A number with a true minus sign; nothing for None."""
    return "" if value is None else f"{value:{how}}".replace("-", "\u2212")


def with_error(value: float, error: float, how: str = ".3f") -> str:
    """A number and its standard error."""
    return f"{figure(value, how)} &plusmn; {error:.{how[-2:]}}"


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Iterable[int] = (),
    kind: str = "scroll",
) -> str:
    """A table within a box that scrolls where it is too wide.

    Args:
        caption, head, rows: HTML that is safe already; the first cell of a row is its heading.
        numbers: which columns hold figures.
        kind: the classes of the box.
    """
    right = set(numbers)

    def cell(tag: str, i: int, inside: str) -> str:
        return f'<{tag} class="number">{inside}' if i in right else f"<{tag}>{inside}"

    top = "".join(cell('th scope="col"', i, title) for i, title in enumerate(head))
    body = "".join(
        "<tr>" + "".join(cell("td" if i else 'th scope="row"', i, inside) for i, inside in enumerate(row))
        for row in rows
    )
    return (
        f'<div class="{kind}" role="region" aria-label="{caption}" tabindex="0"><table>'
        f"<caption>{caption}</caption><thead><tr>{top}</thead><tbody>{body}</tbody></table></div>"
    )


def cards(each: Sequence[str], kind: str = "cards") -> str:
    """A list of cards: the first ones, and the others behind a word that opens them."""
    first, more = (f'<ul class="{kind}">{"".join(some)}</ul>' for some in (each[:_SHOWN], each[_SHOWN:]))
    if len(each) <= _SHOWN:
        return first
    return f"{first}<details><summary>{len(each) - _SHOWN} more</summary>{more}</details>"
