"""The house rules of docs/architecture.md, read off the source: who may import whom, and how much."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from abc import ABC
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "diffeo"
FILES = sorted(SOURCE.rglob("*.py"))
FORBIDDEN = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"} | {
    "socket", "ssl", "urllib", "urllib3", "http", "requests", "httpx", "aiohttp", "ftplib", "smtplib"
}  # fmt: skip


def lines_of_rooms() -> dict[str, int]:
    """Room -> line, from the table in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", text.split("## The rooms")[1], flags=re.MULTILINE)
    return {room: int(line) for line, rooms in rows for room in re.findall(r"`(\w+)`", rooms)}


LINES = lines_of_rooms()


def room_of(path: Path) -> str:
    """``bijections/chain.py`` and ``flow.py`` are in rooms ``bijections`` and ``flow``."""
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Every module a file imports, at any depth, with its line; TYPE_CHECKING blocks left out."""
    if isinstance(tree, ast.Import):
        for alias in tree.names:
            yield alias.name, tree.lineno
    elif isinstance(tree, ast.ImportFrom):
        module = tree.module or ""
        if tree.level:
            parents = package[: len(package) - tree.level + 1]
            module = ".".join([*parents, module] if module else parents)
        if module == "diffeo":
            for alias in tree.names:
                yield f"diffeo.{alias.name}", tree.lineno
        else:
            yield module, tree.lineno
    elif isinstance(tree, ast.Call) and ast.unparse(tree.func).endswith(("import_module", "__import__")):
        yield from (
            (str(name.value), tree.lineno) for name in tree.args[:1] if isinstance(name, ast.Constant)
        )
    guarded = isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test)
    for child in tree.orelse if guarded else ast.iter_child_nodes(tree):
        yield from imports(child, package)


def imports_of(path: Path) -> list[tuple[str, int]]:
    package = ("diffeo", *path.relative_to(SOURCE).parent.parts)
    return list(imports(ast.parse(path.read_text(encoding="utf-8")), package))


def breaches(path: Path) -> Iterator[str]:
    here = room_of(path)
    for module, line in imports_of(path):
        if not module.startswith("diffeo.") or module == "diffeo.__version__":
            continue
        there = module.split(".")[1]
        if there == here:
            continue
        if there not in LINES:
            yield f"{path.name}:{line} imports {module}, which docs/architecture.md does not list"
        elif LINES[there] >= LINES[here]:
            yield f"{path.name}:{line}: {here} (line {LINES[here]}) imports {module} (line {LINES[there]})"


def module_of(path: Path) -> str:
    parts = ("diffeo", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def known(module: str) -> str | None:
    """The file's module that an import names: ``from diffeo import io`` and a name of a module alike."""
    while module not in MODULES and "." in module:
        module = module.rpartition(".")[0]
    return module if module in MODULES and module != "diffeo" else None


def at_the_top(path: Path) -> set[str]:
    """The modules that a file imports as it is loaded, its packages' own ``__init__`` left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    package = ("diffeo", *path.relative_to(SOURCE).parent.parts)
    found = {known(module) for node in top for module, _ in imports(node, package)}
    return {module for module in found if module}


LOADED = {module: at_the_top(path) for module, path in MODULES.items()}


def reached(module: str) -> set[str]:
    """All that is loaded with a module."""
    found, left = set(), [module]
    while left:
        new = LOADED[left.pop()] - found
        found |= new
        left += new
    return found


def test_no_circle_and_none_dodged_inside_a_function():
    circles = [module for module in MODULES if module in reached(module)]
    assert not circles, circles
    for module, path in MODULES.items():
        if path == SOURCE / "__init__.py":
            continue
        later = {known(name) for name, _ in imports_of(path)} - LOADED[module] - {None, module}
        dodged = [
            there
            for there in later
            if there and not there.startswith(f"{module}.") and module in reached(there)
        ]
        assert not dodged, f"{module} imports {dodged} inside a function, and is imported by it"


def test_the_table_is_read():
    assert LINES["errors"] == 0
    assert LINES["nets"] == LINES["elementwise"] < LINES["flow"] < LINES["io"] < LINES["cli"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_arrows_point_down(path: Path):
    if path != SOURCE / "__init__.py":  # the lazy front door names every room and imports none
        assert room_of(path) in LINES, f"{path.name} is in no room of docs/architecture.md"
        assert list(breaches(path)) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f():\n    from diffeo.flow import Flow", ["diffeo.flow"]),
        ("from ..flow import Flow", ["diffeo.flow"]),
        ("from . import base", ["diffeo.nets"]),
        ("from diffeo import io, __version__", ["diffeo.io", "diffeo.__version__"]),
        ("import importlib\nimportlib.import_module('diffeo.io')", ["importlib", "diffeo.io"]),
        ("if TYPE_CHECKING:\n    import diffeo.io\nelse:\n    import diffeo.train", ["diffeo.train"]),
        ("try:\n    import a.b\nexcept ImportError:\n    import c", ["a.b", "c"]),
    ],
)
def test_every_way_of_importing_is_seen(source: str, found: list[str]):
    assert [module for module, _ in imports(ast.parse(source), ("diffeo", "nets"))] == found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_stay_small_and_import_nothing_dangerous(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    assert {module.split(".")[0] for module, _ in imports_of(path)} & FORBIDDEN == set()


def classes() -> set[type]:
    """Every class that the source defines."""
    found = set()
    for module in MODULES:
        for value in vars(importlib.import_module(module)).values():
            if isinstance(value, type) and value.__module__ in MODULES:
                found.add(value)
    return found


def test_a_class_is_abstract_or_final():
    extended = {base for kind in classes() for base in kind.__bases__ if base.__module__ in MODULES}
    open_ones = [
        base.__qualname__
        for base in extended
        if not (inspect.isabstract(base) or {ABC, Protocol} & set(base.__bases__))
        and not issubclass(base, Exception)
        and not base.__name__.startswith("_")  # made to be extended, in its own file
    ]
    assert sorted(open_ones) == []


def test_only_functional_sees_the_kernels():
    assert not [
        path.name
        for path in FILES
        if room_of(path) not in {"functional", "kernels"}
        and any(module.startswith("diffeo.kernels") for module, _ in imports_of(path))
    ]


def run(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(SOURCE.parent)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LATER = (
    "pyarrow",
    "sklearn",
    "scipy",
    "typer",
    "click",
    "rich",
    "matplotlib",
    "pandas",
    "PIL",
    "torch._dynamo",
)


def test_importing_is_light():
    loaded = run("import sys, diffeo; print(*sys.modules)").split()
    assert [name for name in loaded if name.startswith(("torch", "numpy", *LATER))] == []


def test_building_scoring_and_saving_load_only_what_they_need():
    code = (
        "import sys, tempfile, torch\n"
        "before = set(sys.modules)\n"
        "import diffeo\n"
        "flow = diffeo.presets.NSF(features=2).build()\n"
        "flow.log_prob(torch.zeros(3, 2)).sum().backward()\n"
        "flow.sample(3)\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    diffeo.save(flow, folder + '/model')\n"
        "    diffeo.load(folder + '/model')\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    new = run(code).split()
    assert "diffeo.io" in new
    assert [name for name in new if name.startswith(LATER)] == []
    third = {name.split(".")[0] for name in new} - set(sys.stdlib_module_names)
    assert {name for name in third if not name.startswith("_")} <= {
        "diffeo",
        "torch",
        "numpy",
        "safetensors",
        "packaging",
    }


def test_public_names():
    code = (
        "import diffeo\n"
        "assert set(dir(diffeo)) == {*diffeo.__all__, '__version__'}\n"
        "assert set(diffeo._NAMES) < set(diffeo.__all__)\n"
        "for name in diffeo.__all__:\n"
        "    getattr(diffeo, name)\n"
        "try:\n"
        "    diffeo.nothing\n"
        "except AttributeError as error:\n"
        "    print(error)\n"
    )
    assert run(code).strip() == "module 'diffeo' has no attribute 'nothing'"
