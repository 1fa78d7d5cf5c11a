"""Every row of the feature table has tests behind it; JSON, detailed page and README say the same."""

from __future__ import annotations

import ast
import json
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from diffeo.bijections import Chain, Standardize
from diffeo.bijections.base import Bijection
from diffeo.inference import Hamiltonian, RandomWalk
from diffeo.presets import PRESETS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "results" / "features.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
JSON = json.loads((ROOT / "benchmarks" / "results" / "features.json").read_text(encoding="utf-8"))

sys.path.append(str(ROOT / "benchmarks"))
try:
    probes, page, rows = (import_module(f"peers.{m}") for m in ("features", "features.page", "features.rows"))
    kit = import_module("kit")
finally:
    sys.path.pop()


def table(text: str) -> dict[str, dict[str, str]]:
    """The matrix of a page: what each row says of each library."""
    found_at = re.search(r"^\| +\|[^\n]* zuko \| nflows [^\n]*FrEIA[^\n]*\n(?:\|.*\n)+", text, re.M)
    assert found_at, "there is no table of features"
    head, _, *rows = found_at[0].splitlines()
    names = [cell.strip(" *") for cell in head.split("|")[2:-1]]
    found = {}
    for row in rows:
        title, *cells = (cell.strip() for cell in row.split("|")[1:-1])
        found[title] = dict(zip(names, cells, strict=True))
    return found


MATRIX = table(PAGE)


def defined_in(path: Path) -> set[str]:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_the_page_is_what_was_probed():
    assert kit.filled(PAGE, page.blocks(JSON)) == PAGE, "run make features"
    assert all(made in PAGE for made in page.blocks(JSON).values())


@pytest.mark.parametrize("row", rows.ROWS, ids=lambda row: row.key)
def test_what_a_row_says_of_diffeo_is_tested(row):
    assert row.tests
    for test in row.tests:
        file, name = test.split("::")
        found = defined_in(ROOT / file)
        assert name in found or (name == "*" and found), f"{row.title}: there is no {test}"


def test_the_readme_says_the_same():
    short = table(README)
    assert len(short) >= 10
    for title, cells in short.items():
        assert cells == {library: MATRIX[title][library] for library in cells}, title
    others = [library for library in MATRIX["Circular variables"] if library != "diffeo"]
    assert any(cells["diffeo"] == "no" for cells in short.values()), "what diffeo lacks belongs there too"
    assert all(library in cells for library in others for cells in short.values())
    assert JSON["date"] in README
    without = re.search("would be “(yes|partly|no)”", JSON["rows"]["both_ways"]["diffeo"][1])
    assert without
    assert f'Without its kernels diffeo would have "{without[1]}" in' in README


# -- what diffeo has not ------------------------------------------------------------------------------


def test_the_search_finds_what_is_there():
    assert probes.names("diffeo", "^coupling$") == ["Coupling"]
    assert "Chain.forward" in probes.names("diffeo.bijections", r"^chain\.")
    assert "bijections/chain.py" in probes.imports("diffeo", "torch")
    assert probes.imports("diffeo.bijections", "nowhere") == []
    with pytest.raises(AssertionError, match="Coupling"):
        probes.absent("diffeo", "coupling", layer=True)


def test_a_chain_takes_no_graph():
    """A block's one output is the next one's one input."""
    assert probes.names("diffeo", "graph") == []
    start, left, right = (Standardize((2,)) for _ in range(3))
    with pytest.raises(AttributeError):
        Chain([start, [left, right]])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        start(torch.zeros(1, 2), None, torch.zeros(1, 2))  # type: ignore[call-arg]


def test_no_layer_is_stochastic():
    """Chains of Markov's kind are beside flows, in ``diffeo.inference``, and no layer of them."""
    assert probes.names("diffeo.bijections", "metropol|stochastic|langevin|mcmc") == []
    for kind in (RandomWalk, Hamiltonian):
        assert not issubclass(kind, Bijection)


def test_there_are_no_block_neural_flows():
    assert probes.names("diffeo", "blockauto|block_?neural|bnaf") == []
    assert not [name for name in PRESETS if re.search("block|bnaf", name, re.I)]


def test_nothing_imports_jax():
    assert probes.imports("diffeo", "jax") == []
