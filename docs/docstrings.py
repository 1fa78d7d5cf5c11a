"""Docstrings as the site shows them: what reads well in ``help()`` turned into Markdown.

The sections that Google's style knows (Args, Raises, Example) stay; ``Formula:``, ``Shape:``, ``Cost:`` and
the like become paragraphs with a bold word, and code under ``::`` a block of its own.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

WORDS = (
    "Formula",
    "Domain",
    "Domain and codomain",
    "Support",
    "Shape",
    "Params",
    "Cost",
    "Cost of a draw",
    "Limits",
    "Why",
    "To write one",
    "Departures from the paper",
    "Departures from the papers",
    "References",
)
_SECTION = re.compile(rf"^({'|'.join(WORDS)}):[ ]*(.*)$")


def as_markdown(text: str) -> str:
    """A docstring, its indentation cleaned, as Markdown with Google sections."""
    lines, out = text.split("\n"), []
    while lines:
        line = lines.pop(0)
        found = _SECTION.match(line)
        if found and (not out or not out[-1].strip()):
            inside = []
            while lines and (not lines[0].strip() or lines[0][0] == " "):
                inside.append(lines.pop(0))
            body = textwrap.dedent("\n".join(inside)).rstrip()
            out.append("\n".join(filter(None, [f"**{found[1]}:** {found[2]}".rstrip(), body])))
            out += [""] * bool(inside and not inside[-1].strip())
        elif line == "Example:":
            out.append("Examples:")
        elif line.endswith("::") and not line.startswith(" "):
            out.append(line[:-1])
        else:
            out.append(line)
    return "\n".join(out).rstrip()


class Docstrings(griffe.Extension):
    """Rewrites every docstring of a package once it is read."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        self._rewrite(pkg)

    def _rewrite(self, thing: griffe.Object | griffe.Alias) -> None:
        if thing.is_alias:
            return
        if thing.docstring:
            thing.docstring.value = as_markdown(thing.docstring.value)
        for member in thing.members.values():
            self._rewrite(member)
