"""The loader of the compiled kernels: what it takes, what it refuses, and what it says."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from diffeo import kernels

NAME = "diffeo.kernels._native"
SOURCE = Path(kernels.__file__).parents[2]


class Native(SimpleNamespace):
    """Stands in for the compiled module on a processor without AVX-512."""

    def __init__(self, abi: int = kernels.ABI):
        super().__init__(ABI=abi, used=[], address=None)

    def instruction_sets(self):
        return ["avx2", "portable"]

    def use(self, name):
        self.used.append(name)

    def set_parallel_for(self, address):
        self.address = address


@pytest.fixture
def native(monkeypatch):
    found = Native()
    monkeypatch.setitem(sys.modules, NAME, found)
    return found


def run(code: str, wanted: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "DIFFEO_KERNELS"} | {"PYTHONPATH": str(SOURCE)}
    if wanted is not None:
        env["DIFFEO_KERNELS"] = wanted
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=env
    )


# -- the choice -------------------------------------------------------------------------------------


def test_the_best_set_and_torchs_threads_are_taken(native):
    found = kernels.load("")
    assert found.native is native
    assert native.used == [found.instruction_set] == ["avx2"]
    assert isinstance(native.address, int)
    assert found.description == "avx2, threads by torch"


def test_a_set_is_forced(native):
    assert kernels.load("portable").instruction_set == "portable"
    assert native.used == ["portable"]


def test_one_thread_where_torch_does_not_lend_its_own(native, monkeypatch):
    monkeypatch.setattr(kernels, "_torch_parallel_for", lambda: None)
    assert kernels.load("").description == "avx2, one thread (more need torch 2.10 or later)"
    assert native.address is None


def test_off(native):
    assert kernels.load("0") == (None, None, "off (DIFFEO_KERNELS=0)")
    assert native.used == []


@pytest.mark.parametrize("wanted", ["1", "AVX2", "sse"])
def test_an_unknown_choice_is_refused_with_the_choices(native, wanted):
    with pytest.raises(ValueError, match="0, avx512, avx2, portable"):
        kernels.load(wanted)


def test_a_set_the_processor_lacks_is_refused_with_the_choices(native):
    with pytest.raises(ValueError, match="DIFFEO_KERNELS=avx512 .* 0, avx2, portable"):
        kernels.load("avx512")


# -- absence ----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="never built there")
def test_without_a_compiler_there_is_a_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, NAME, None)
    found = kernels.load("")
    assert found[:2] == (None, None)
    assert found.description == (
        "none (this package was built without a compiler); pure PyTorch is used. "
        "Cure: install a C++ compiler and reinstall diffeo"
    )


def test_a_stale_module_counts_as_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, NAME, Native(abi=kernels.ABI - 1))
    found = kernels.load("")
    assert found[:2] == (None, None)
    assert f"stale: it has ABI {kernels.ABI - 1}, the Python code calls {kernels.ABI}" in found.description
    assert found.description.endswith("Cure: reinstall diffeo")


def test_a_broken_module_counts_as_absent(monkeypatch):
    def broken(name):
        raise ImportError("undefined symbol: x")

    monkeypatch.setattr(kernels, "import_module", broken)
    assert "undefined symbol: x" in kernels.load("").description


def test_a_set_cannot_be_forced_where_there_are_no_kernels(monkeypatch):
    monkeypatch.setitem(sys.modules, NAME, None)
    with pytest.raises(ValueError, match="DIFFEO_KERNELS=portable, but there are no kernels: "):
        kernels.load("portable")


# -- the sources -------------------------------------------------------------------------------------


def test_the_map_of_the_sources_is_right():
    """Each file with what it includes, in an order in which it includes only files above it."""
    folder = Path(kernels.__file__).parent / "cpp"
    rows = re.findall(
        r"^\| `([\w.]+)` \|(.*?)\|", (folder / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    listed = {name: re.findall(r"`([\w.]+)`", included) for name, included in rows}
    sources = (path for path in folder.iterdir() if path.suffix in {".hpp", ".cpp"})
    assert listed == {
        path.name: re.findall(r'^#include "(.+)"', path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for path in sources
    }
    above: set[str] = set()
    for name, included in listed.items():
        assert above.issuperset(included), name
        above.add(name)


# -- this installation ------------------------------------------------------------------------------


def test_loading_without_kernels_is_light():
    done = run("import sys, diffeo.kernels as k; print(k.describe(), 'torch' in sys.modules, sep='|')", "0")
    assert done.stdout.strip() == "kernels: off (DIFFEO_KERNELS=0)|False", done.stderr


def test_a_wrong_choice_is_a_config_error():
    done = run("import diffeo.functional.native", "sse")
    assert "diffeo.errors.ConfigError: DIFFEO_KERNELS=sse is not one of 0, " in done.stderr


@pytest.mark.skipif(kernels.native is None, reason=kernels.describe())
def test_every_compiled_set_loads():
    code = "from diffeo.kernels import *; print([instruction_set, describe(), native.instruction_sets()])"
    best, line, sets = ast.literal_eval(run(code).stdout)
    assert line == f"kernels: {best}, threads by torch"
    assert best == sets[0]
    assert sets[-1] == "portable"
    assert set(sets) <= set(kernels.SETS)
    for name in sets[1:]:
        assert ast.literal_eval(run(code, name).stdout)[0] == name
