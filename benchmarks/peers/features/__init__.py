"""How a probe says what it saw.

A probe runs one library and answers ``(verdict, what was seen)``. Where a thing is absent, what was seen says
what was looked for; what was read in the source and not run ends in "(read)".
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

YES, PARTLY, NO = "yes", "partly", "no"
Seen = tuple[str, str]
LIBRARIES = ("diffeo", "zuko", "nflows", "normflows", "FlowJAX", "FrEIA", "Pyro")
PACKAGES = {library: library for library in LIBRARIES} | {"FlowJAX": "flowjax", "Pyro": "pyro"}
LAYERS = {"diffeo": "diffeo.bijections", "Pyro": "pyro.distributions.transforms"}
"""Where the layers of a flow are, in packages that hold more than flows."""


Probe = Callable[[], Seen]


def stated(verdict: str, text: str) -> Probe:
    """A cell from reading the source or the manual; nothing ran."""
    return lambda: (verdict, f"{text} (read)")


def ran(verdict: str, text: str, call: Callable[[], Any]) -> Probe:
    """A cell whose text holds because a call went through and, where it gives a number, that is finite."""

    def probe() -> Seen:
        found = call()
        assert found is None or math.isfinite(found)
        return verdict, text

    return probe


def sources(package: str) -> dict[str, ast.Module]:
    """The parsed files of a package by their path, without tests; none is imported but its parents."""
    spec = find_spec(package)
    assert spec is not None, f"there is no {package}"
    roots = [Path(root) for root in spec.submodule_search_locations or ()]
    files = {str(f.relative_to(root)): f for root in roots for f in sorted(root.rglob("*.py"))}
    if not roots:
        assert spec.origin is not None
        files = {Path(spec.origin).name: Path(spec.origin)}
    return {name: ast.parse(f.read_text(encoding="utf-8")) for name, f in files.items() if "test" not in name}


def names(package: str, pattern: str) -> list[str]:
    """Public classes, functions, methods and variables of a package whose names match."""
    found = set()
    for module in sources(package).values():
        for node in module.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                found.add(node.name)
            if isinstance(node, ast.ClassDef):
                found |= {f"{node.name}.{f.name}" for f in node.body if isinstance(f, ast.FunctionDef)}
            if isinstance(node, ast.Assign):
                found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return sorted(n for n in found if re.search(pattern, n, re.I) and not re.search(r"(^|\.)_", n))


def absent(library: str, pattern: str, *, layer: bool = False) -> Seen:
    """A "no", if no name matches; otherwise an error, so that it is looked at again.

    A layer is looked for where layers are; the cell says what has such a name elsewhere.
    """
    package = PACKAGES[library]
    where = LAYERS.get(library, package) if layer else package
    found = names(where, pattern)
    if found:
        raise AssertionError(f"{library} has {found}")
    text = f"no name like `{pattern}` in `{where}`"
    if where != package and (others := [n for n in names(package, pattern) if "." not in n]):
        text += f"; elsewhere, and no layer of a flow: {', '.join(f'`{n}`' for n in others[:4])}"
        text += ", ..." * (len(others) > 4)
    return NO, text


def imports(package: str, wanted: str) -> list[str]:
    """The files of a package that import another one."""
    return [
        name
        for name, module in sources(package).items()
        for node in ast.walk(module)
        if (isinstance(node, ast.Import) and any(a.name.split(".")[0] == wanted for a in node.names))
        or (isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] == wanted)
    ]


def console_scripts(distribution_name: str) -> list[str]:
    """The commands that an installed distribution brings."""
    points = distribution(distribution_name).entry_points
    return [point.name for point in points if point.group == "console_scripts"]


def verdict_of_times(times: dict[str, list[float]]) -> Seen:
    """One rule for all, of the shortest times: a pass for each of the 32 columns takes about 32 times one."""
    score, draw = times["score"][0], times["draw"][0]
    ratio = max(score, draw) / min(score, draw)
    slow, fast = ("sample", "log_prob") if draw > score else ("log_prob", "sample")
    verdict = YES if ratio < 6 else PARTLY if ratio < 16 else NO
    return verdict, f"{slow} takes {ratio:.1f} times as long as {fast}"
