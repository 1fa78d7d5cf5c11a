"""The libraries, each in a module of its own, which has all that is written for it and imports it alone.

A module's builders make a flow of a ``Spec``, which is timed (`make bench`), probed (`make features`) and
checked (`make peers`). ``PROBES`` are the probes of features that are its own, by the keys of ``rows.ini``;
``port`` carries the weights of a flow over to diffeo. A new library is a module and an entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any, Protocol

from peers.spec import IMAGES, LAYERED, Spec


class Contestant(Protocol):
    """A built flow as the worker sees it."""

    parameters: int
    note: str
    compiles: bool
    """Whether the first call compiles, so that it says nothing about the next."""

    def prepare(self, kind: str, batch: int) -> Callable[[], Any]:
        """What is timed, its inputs made and, where the library compiles ahead, compiled."""
        ...

    def finite(self, result: Any) -> bool: ...


@dataclass(frozen=True)
class Entry:
    """A contestant, known without its library: environment, module, the packages it stands on."""

    venv: str
    module: str
    packages: tuple[str, ...]
    builders: Mapping[str, str] = field(default_factory=dict)
    """By model, the function that builds it for timing; the models not here are not there."""
    about: str = ""
    """The function that says more than the versions do."""

    @property
    def adapter(self) -> ModuleType:
        return import_module(f"peers.libraries.{self.module}")

    def build(self, spec: Spec) -> Contestant:
        return getattr(self.adapter, self.builders[spec.model])(spec)

    def versions(self) -> dict[str, str]:
        found = {package: version(package) for package in self.packages}
        return found | (getattr(self.adapter, self.about)() if self.about else {})


def _layered(function: str = "build", **others: str) -> dict[str, str]:
    """One function for all layered models, and those of other models."""
    return {**dict.fromkeys(LAYERED, function), **others}


GLOW = dict.fromkeys(IMAGES, "images")
OWN = _layered(ResidualFlow="residual", FFJORD="continuous") | GLOW
JAX = ("flowjax", "jax", "jaxlib", "equinox", "optax")

OURS, DEFAULTS, COMPILED, FLOOR = "diffeo", "diffeo defaults", "diffeo compiled", "floor"
REVERSIBLE = "diffeo reversible"
ENTRIES = {
    "zuko": Entry("torch", "zuko", ("zuko",), _layered(FFJORD="continuous")),
    "nflows": Entry("torch", "nflows", ("nflows",), _layered()),
    "normflows": Entry("torch", "normflows", ("normflows",), _layered(ResidualFlow="residual") | GLOW),
    "FrEIA": Entry("torch", "freia", ("FrEIA",), _layered()),
    "FlowJAX": Entry("jax", "flowjax", JAX, _layered()),
    "Pyro": Entry("torch", "pyro", ("pyro-ppl",)),
    OURS: Entry("torch", "diffeo", ("diffeo", "torch"), OWN, about="about"),
    DEFAULTS: Entry("torch", "diffeo", ("torchdiffeq",), {"FFJORD": "continuous_by_default"}),
    REVERSIBLE: Entry("torch", "diffeo", (), dict.fromkeys(IMAGES, "reversible_images")),
    COMPILED: Entry("torch", "diffeo", (), _layered("build_compiled")),
    FLOOR: Entry("torch", "floor", (), _layered()),
}
PEERS = ("zuko", "nflows", "normflows", "FrEIA", "FlowJAX")
