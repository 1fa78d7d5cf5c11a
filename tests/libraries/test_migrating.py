"""docs/migrating.md runs, theirs and ours, and prints what it says; the defaults it names are theirs."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"
TEXT = PAGE.read_text(encoding="utf-8")
ON_TORCH = ("diffeo", "nflows", "zuko", "normflows", "FrEIA", "Pyro")
LIBRARIES = ON_TORCH if find_spec("torch") else ("FlowJAX",)
DEFAULTS = [
    ("diffeo", "diffeo.elementwise.RationalQuadratic", "bound", 3.0),
    ("diffeo", "diffeo.elementwise.RationalQuadratic", "bins", 8),
    ("nflows", "nflows.transforms.PiecewiseRationalQuadraticCouplingTransform", "tail_bound", 1.0),
    ("nflows", "nflows.transforms.PiecewiseRationalQuadraticCouplingTransform", "tails", None),
    ("nflows", "nflows.transforms.PiecewiseRationalQuadraticCouplingTransform", "num_bins", 10),
    ("zuko", "zuko.transforms.MonotonicRQSTransform", "bound", 5.0),
    ("zuko", "zuko.flows.NSF", "bins", 8),
    ("normflows", "normflows.flows.CoupledRationalQuadraticSpline", "tail_bound", 3.0),
    ("normflows", "normflows.flows.CoupledRationalQuadraticSpline", "num_bins", 8),
    ("FrEIA", "FrEIA.modules.AffineCouplingOneSided", "clamp", 2.0),
    ("Pyro", "pyro.distributions.transforms.spline_autoregressive", "bound", 3.0),
    ("Pyro", "pyro.distributions.transforms.spline_autoregressive", "count_bins", 8),
    ("Pyro", "pyro.distributions.transforms.AffineCoupling", "log_scale_min_clip", -5.0),
    ("Pyro", "pyro.distributions.transforms.AffineCoupling", "log_scale_max_clip", 3.0),
    ("FlowJAX", "flowjax.bijections.RationalQuadraticSpline", "interval", inspect.Parameter.empty),
]


def blocks(library: str) -> list[tuple[int, str]]:
    """Where each of a library's blocks starts, and its text; ours are those without a title."""
    title = "" if library == "diffeo" else f' title="{library}"'
    found = re.finditer(rf"^```python{title}\n(.*?)^```$", TEXT, re.M | re.S)
    return [(TEXT[: m.start()].count("\n") + 1, m[1]) for m in found]


def test_every_title_is_a_library():
    assert set(re.findall(r'^```python title="(.*)"$', TEXT, re.M)) == {*ON_TORCH[1:], "FlowJAX"}


@pytest.mark.skipif("diffeo" not in LIBRARIES, reason="diffeo is in the other environment")
def test_our_names_exist():
    rooms = ("bijections", "elementwise", "nets", "bases", "presets", "targets", "objectives", "autoencoders")
    known = {name for room in rooms for name in import_module(f"diffeo.{room}").__all__}
    known |= {*import_module("diffeo").__all__, *import_module("diffeo.encodings").__all__, "False"}
    cells = re.findall(r"^\| .*`.*\| (.*) \|$", TEXT, re.M)
    codes = " ".join(re.findall(r"`([^`]+)`", " ".join(cell for cell in cells if "there" not in cell)))
    named = set(re.findall(r"\b([A-Z][A-Za-z]+)\b(?=\()", codes))
    named |= set(re.findall(r"\b(?:presets|bases|objectives|targets)\.(\w+)", codes))
    assert len(named) > 30
    assert not named - known


@pytest.mark.parametrize("library", LIBRARIES)
def test_blocks_run_and_print_what_they_say(library, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    assert blocks(library)
    for line, text in blocks(library):
        exec(compile("\n" * line + text, str(PAGE), "exec"), names)
        says = re.findall(r"^print\(.*\)  # (.*)$", text, re.M)
        assert capsys.readouterr().out.splitlines() == says


@pytest.mark.parametrize("where, name, value", [row[1:] for row in DEFAULTS if row[0] in LIBRARIES])
def test_defaults(where, name, value):
    module, _, thing = where.rpartition(".")
    found = getattr(import_module(module), thing)
    parameters = inspect.signature(found).parameters
    if name not in parameters:  # a class that hands its arguments on
        parameters = inspect.signature(found.__init__).parameters
    assert parameters[name].default == value
