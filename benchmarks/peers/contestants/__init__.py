"""The contestants: each module has ``build(spec)``, and imports its library alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from peers.architecture import Spec


class Contestant(Protocol):
    """A built flow as the worker sees it."""

    parameters: int
    note: str
    compiles: bool
    """Whether the first call compiles, so that it says nothing about the next."""

    def prepare(self, kind: str, batch: int) -> Callable[[], Any]:
        """What is timed, its inputs made and, where the library compiles ahead, compiled."""
        ...

    def warm_up(self) -> None:
        """A tiny training step, so that its one-off allocations are not counted."""
        ...

    def finite(self, result: Any) -> bool: ...


@dataclass(frozen=True)
class Entry:
    """Where a contestant lives: its environment, its module, and the packages it stands on."""

    venv: str
    module: str
    packages: tuple[str, ...] = ()
    function: str = "build"
    about: str = ""
    """The function that says more than the versions do."""

    def build(self, spec: Spec) -> Contestant:
        return self._call(self.function, spec)

    def versions(self) -> dict[str, str]:
        from importlib.metadata import version

        found = {package: version(package) for package in self.packages}
        return found | (self._call(self.about) if self.about else {})

    def _call(self, function: str, *arguments: Any) -> Any:
        return getattr(import_module(f"peers.contestants.{self.module}"), function)(*arguments)


OURS, COMPILED, FLOOR = "diffeo", "diffeo compiled", "floor"
ENTRIES = {
    "zuko": Entry("torch", "zuko", ("zuko",)),
    "nflows": Entry("torch", "nflows", ("nflows",)),
    "normflows": Entry("torch", "normflows", ("normflows",)),
    "FrEIA": Entry("torch", "freia", ("FrEIA",)),
    "FlowJAX": Entry("jax", "flowjax", ("flowjax", "jax", "jaxlib", "equinox", "optax")),
    OURS: Entry("torch", "diffeo", ("diffeo", "torch"), about="about"),
    COMPILED: Entry("torch", "diffeo", function="build_compiled"),
    FLOOR: Entry("torch", "floor"),
}
PEERS = ("zuko", "nflows", "normflows", "FrEIA", "FlowJAX")
