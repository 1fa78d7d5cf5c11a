"""The contestants: each module has functions that build a flow for a spec, and imports its library alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from peers.architecture import IMAGES, LAYERED, Spec


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
    packages: tuple[str, ...]
    builders: Mapping[str, str]
    """By model, the function that builds it; the models not here are not there."""
    about: str = ""
    """The function that says more than the versions do."""

    def build(self, spec: Spec) -> Contestant:
        return self._call(self.builders[spec.model], spec)

    def versions(self) -> dict[str, str]:
        from importlib.metadata import version

        found = {package: version(package) for package in self.packages}
        return found | (self._call(self.about) if self.about else {})

    def _call(self, function: str, *arguments: Any) -> Any:
        return getattr(import_module(f"peers.contestants.{self.module}"), function)(*arguments)


def _layered(function: str = "build", **others: str) -> dict[str, str]:
    """One function for all layered models, and those of other models."""
    return {**dict.fromkeys(LAYERED, function), **others}


GLOW = dict.fromkeys(IMAGES, "images")


OURS, DEFAULTS, COMPILED, FLOOR = "diffeo", "diffeo defaults", "diffeo compiled", "floor"
REVERSIBLE = "diffeo reversible"
ENTRIES = {
    "zuko": Entry("torch", "zuko", ("zuko",), _layered(FFJORD="continuous")),
    "nflows": Entry("torch", "nflows", ("nflows",), _layered()),
    "normflows": Entry("torch", "normflows", ("normflows",), _layered(ResidualFlow="residual") | GLOW),
    "FrEIA": Entry("torch", "freia", ("FrEIA",), _layered()),
    "FlowJAX": Entry("jax", "flowjax", ("flowjax", "jax", "jaxlib", "equinox", "optax"), _layered()),
    OURS: Entry(
        "torch",
        "diffeo",
        ("diffeo", "torch"),
        _layered(ResidualFlow="residual", FFJORD="continuous") | GLOW,
        about="about",
    ),
    DEFAULTS: Entry("torch", "diffeo", ("torchdiffeq",), {"FFJORD": "continuous_by_default"}),
    REVERSIBLE: Entry("torch", "diffeo", (), dict.fromkeys(IMAGES, "reversible_images")),
    COMPILED: Entry("torch", "diffeo", (), _layered("build_compiled")),
    FLOOR: Entry("torch", "floor", (), _layered()),
}
PEERS = ("zuko", "nflows", "normflows", "FrEIA", "FlowJAX")
