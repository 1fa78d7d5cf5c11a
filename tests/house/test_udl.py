"""Docstrings cite sections of Prince's book as docs/udl.md does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTIONS = {
    section: set(re.findall(r"\w+", row))
    for section, row in re.findall(r"^\| (16[.\d]+) \| (.*)$", (ROOT / "docs" / "udl.md").read_text(), re.M)
}
"""Section -> the words of its row."""


def citations() -> list[tuple[str, str]]:
    """Every class or function whose docstring cites a section of the book, and that section."""
    found = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                words = " ".join((ast.get_docstring(node) or "").split())
                cited = re.findall(r"Prince\D*(?:2023)?\D*section (16[.\d]*\d)", words)
                found += [(node.name, section) for section in cited]
    return found


CITATIONS = citations()


def test_the_book_is_cited():
    assert len(CITATIONS) >= 10


@pytest.mark.parametrize(("name", "section"), CITATIONS)
def test_sections_are_those_of_the_page(name: str, section: str):
    assert name in SECTIONS[section], f"docs/udl.md does not name {name} in section {section}"
