"""The page that chooses a flow: its tables are the measured rows, and what it says of kinds is so."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import diffeo
from diffeo import Flow
from diffeo.presets import PRESETS, VectorPreset
from diffeo.testing import randomize_

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "choosing.md"
MEASURED = ROOT / "docs" / "results" / "choosing.md"
VECTORS = [name for name, kind in PRESETS.items() if issubclass(kind, VectorPreset)]


sys.path.append(str(ROOT / "benchmarks"))
try:
    kit, pages = import_module("kit"), import_module("choosing_pages")
finally:
    sys.path.pop()
STORE = pages.store(ROOT / "benchmarks" / "results")
ROWS = STORE.read()
BLOCKS = pages.blocks(ROWS)


def limits() -> dict[str, list[str]]:
    """The cells of each preset's row under the heading of limits."""
    text = GUIDE.read_text(encoding="utf-8").split("## Limits")[1].split("\n## ")[0]
    lines = [line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {name: cells for cells in lines for name in re.findall(r"`(\w+)`", cells[0])}


def small(name: str) -> Flow:
    torch.manual_seed(0)
    return randomize_(PRESETS[name](features=3, layers=2).build(), scale=0.1).double().eval()  # type: ignore[call-arg]


def jump(flow: Flow, points: int) -> float:
    """How much the gradient of the log-density changes at most between neighbors on a line."""
    way = torch.linspace(-0.2, 0.2, points, dtype=torch.float64)[:, None]
    x = (way * torch.tensor([1.0, 0.7, -0.5], dtype=torch.float64) + 0.1).requires_grad_()
    (slope,) = torch.autograd.grad(flow.log_prob(x).sum(), x)
    return float(slope.diff(dim=0).abs().max())


def test_tables_are_the_measured_rows():
    for page in (GUIDE, MEASURED):
        text = page.read_text(encoding="utf-8")
        assert kit.filled(text, BLOCKS) == text, "run python benchmarks/choosing.py"


@pytest.mark.parametrize("name", BLOCKS)
def test_the_page_shows_every_table_and_the_guide_all_but_two(name: str):
    assert BLOCKS[name] in MEASURED.read_text(encoding="utf-8")
    if name not in ("trained", "commands"):
        assert BLOCKS[name] in GUIDE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", VECTORS)
def test_every_preset_of_vectors_was_measured(name: str):
    found = {STORE.key(row)[::2] for row in ROWS if row["preset"] == name}
    wanted = {("speed", f"{d} {kind}") for d in pages.COLUMNS for kind in pages.KINDS_OF_CALL}
    wanted |= {("quality", table) for table in pages.TABLES}
    wanted |= {("special", where) for where in pages.SPECIAL}
    assert wanted <= found
    assert name in limits()


@pytest.mark.parametrize("name", VECTORS)
def test_what_goes_both_ways_in_closed_form(name: str):
    assert limits()[name][1] == ("yes" if small(name).bijection.traits.closed_form else "no")


@pytest.mark.parametrize("name", VECTORS)
def test_what_is_smooth(name: str):
    """On a line ten times as fine, the jumps of a continuous gradient are a tenth."""
    flow = small(name)
    if name in ("FFJORD", "FlowMatching"):
        flow.train()  # fixed steps: those of evaluation change from row to row, within its tolerance
    finer = jump(flow, 2001) / jump(flow, 201)
    assert (finer < 0.2) == (limits()[name][2] != "no"), finer


def test_the_smooth_flow_of_the_guide_is_smooth():
    (block,) = re.findall(r"^def smooth.*?^    return .*?$", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    names: dict = {"torch": torch, "Flow": Flow}
    for module in (diffeo.bases, diffeo.bijections, diffeo.elementwise, diffeo.nets):
        names |= {name: getattr(module, name) for name in module.__all__}
    for activation, continuous in (("silu", True), ("relu", False)):
        exec(block.replace("silu", activation), names)
        torch.manual_seed(0)
        flow = randomize_(names["smooth"](3), scale=0.1).double().eval()
        assert (jump(flow, 2001) / jump(flow, 201) < 0.2) == continuous


def test_affine_maps_of_one_column_are_a_gaussian():
    gaps = {row["preset"]: row["test"] for row in ROWS if STORE.key(row)[::2] == ("special", "one column")}
    for name in ("NICE", "RealNVP", "RevNet", "MAF", "IAF"):
        assert abs(gaps[name] - gaps["Gaussian"]) < 0.002
    assert gaps["NSF"] > gaps["Gaussian"] + 0.1
