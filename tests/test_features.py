"""Every row of the feature table has tests behind it, and README and the detailed page say the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "results" / "features.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def table(text: str) -> dict[str, dict[str, str]]:
    """The matrix of a page: what each row says of each library."""
    found_at = re.search(r"^\| \|[^\n]* zuko \| nflows [^\n]*FrEIA[^\n]*\n(?:\|.*\n)+", text, re.M)
    assert found_at, "there is no table of features"
    head, _, *rows = found_at[0].splitlines()
    names = [cell.strip(" *") for cell in head.split("|")[2:-1]]
    found = {}
    for row in rows:
        title, *cells = (cell.strip() for cell in row.split("|")[1:-1])
        found[title] = dict(zip(names, cells, strict=True))
    return found


DETAILS = {m[1]: m[2] for m in re.finditer(r"^### ([^\n]*)\n(.*?)(?=^### |\Z)", PAGE, re.M | re.S)}
MATRIX = table(PAGE)


def defined_in(path: Path) -> set[str]:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("title", MATRIX)
def test_what_diffeo_has_is_tested(title):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+|\*)`", DETAILS[title])
    assert bool(named) == (MATRIX[title]["diffeo"] == "yes")
    for file, name in named:
        found = defined_in(ROOT / file)
        assert name in found or (name == "*" and found), f"{title}: there is no {file}::{name}"


@pytest.mark.parametrize("title", MATRIX)
def test_details_and_matrix_agree(title):
    rows = dict(re.findall(r"^\| (\w+) \| (yes|partly|no) \|", DETAILS[title], re.M))
    assert rows == MATRIX[title]


def test_the_readme_says_the_same():
    short = table(README)
    assert len(short) >= 10
    for title, cells in short.items():
        assert cells == {library: MATRIX[title][library] for library in cells}, title
    others = [library for library in MATRIX["Circular variables"] if library != "diffeo"]
    assert any(cells["diffeo"] == "no" for cells in short.values()), "what diffeo lacks belongs there too"
    assert all(library in cells for library in others for cells in short.values())
