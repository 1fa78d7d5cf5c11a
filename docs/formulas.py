"""Formulas, written in LaTeX between dollars, become MathML when the site is built.

Browsers draw MathML themselves, so neither script nor font is loaded. The repository keeps the LaTeX.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_MARKED = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
"""What pymdownx.arithmatex makes of ``$...$`` and ``$$...$$``."""
_FUNCTION = re.compile(
    r"(?P<script><m(?:sub|sup)>)?<m([io])[^>]*>(?P<name>[A-Za-z]{2,})</m\2>(?P<open><mo[^>]*>&#x00028;)?"
)
"""A function by name, whether an index hangs on it, and whether a parenthesis opens behind it."""


def typeset(text: str) -> str:
    """A page's HTML with its formulas as MathML; a command that is not known is an error."""
    return _MARKED.sub(_mathml, text)


def _mathml(formula: re.Match[str]) -> str:
    latex = html.unescape(formula["latex"]).strip()
    made = convert(latex, display="block" if formula["tag"] == "div" else "inline")
    if "\\" in made:
        raise ValueError(f"no MathML for the formula {latex}")
    return _FUNCTION.sub(_named, made)


def _named(function: re.Match[str]) -> str:
    """A function's name with the thin space that TeX sets behind it."""
    script, opened = function["script"] or "", function["open"] or ""
    space = "" if script or opened else '<mspace width="0.167em" />'
    return f"{script}<mi>{function['name']}</mi>{space}{opened}"


def on_page_content(text: str, **kwargs: Any) -> str:
    """Typeset a page, its docstrings included."""
    return typeset(text)
