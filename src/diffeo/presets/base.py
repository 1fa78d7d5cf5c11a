"""What presets share: fields that serialize, caps on every size, ``build``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, ClassVar

from diffeo.bases import Normal
from diffeo.bases.base import Base
from diffeo.bijections.base import Bijection
from diffeo.encodings.base import Encoding
from diffeo.encodings.context import ContextEncoding, OneHotContext, StandardizedContext
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.objectives import Likelihood, Objective

CAPS = {
    "features": 16384,
    "layers": 256,
    "hidden": 16384,
    "blocks": 64,
    "bins": 512,
    "steps": 4096,
    "marginal": 256,
    "rank": 16384,
    "reflections": 16384,
    "units": 512,
    "components": 512,
    "degree": 128,
    "polynomials": 64,
    "embedding": 4096,
    "width": 4096,
    "size": 16384,
    "circular": 16384,
}
"""The largest value of each size, by field name: a recipe from a foreign file must not eat the machine."""


@dataclass(frozen=True)
class Vector:
    """A context of ``size`` numbers, standardized over the training rows."""

    size: int

    def __post_init__(self) -> None:
        check_fields(self)

    def build(self) -> ContextEncoding:
        return StandardizedContext(self.size)


@dataclass(frozen=True)
class Classes:
    """A context that is a class number, 0 .. size - 1."""

    size: int

    def __post_init__(self) -> None:
        check_fields(self)

    def build(self) -> ContextEncoding:
        return OneHotContext(self.size)


CONTEXTS: dict[str, type[Vector] | type[Classes]] = {"Vector": Vector, "Classes": Classes}


@dataclass(frozen=True)
class Preset(ABC):
    """A recipe for a flow: a frozen dataclass whose ``build`` gives a ``Flow`` that can be saved.

    Every field is a plain value, so the recipe goes into the model's file and rebuilds the flow.

    Args:
        features: D, columns of the data.
        context: ``Vector(n)``, ``Classes(n)``, an integer (short for ``Vector``), or None.
    """

    features: int
    context: Vector | Classes | int | None = None
    circular: ClassVar[tuple[int, ...]] = ()
    """Columns that are angles, in a preset that has this field; others take every column for real."""
    learning_rate: ClassVar[float] = 2e-3
    """Peak of the learning rate where ``fit`` is given no recipe."""

    def __post_init__(self) -> None:
        if isinstance(self.context, int) and not isinstance(self.context, bool):
            object.__setattr__(self, "context", Vector(self.context))
        check_fields(self)

    @abstractmethod
    def bijection(self, context_features: int) -> Bijection:
        """The map, its last layers at zero."""

    def base(self) -> Base:
        """The base density: standard normal unless the preset says otherwise."""
        return Normal((self.features,))

    def objective(self) -> Objective:
        """What ``fit`` minimizes unless told otherwise."""
        return Likelihood()

    def build(self, encoding: Encoding | None = None) -> Flow:
        """The untrained flow; it equals its base density up to fixed maps and permutations."""
        spec = self.context
        assert not isinstance(spec, int)
        context = None if spec is None else spec.build()
        flow = Flow(self.bijection(0 if spec is None else spec.size), self.base(), encoding, context)
        flow.recipe = self.to_recipe()
        return flow

    def to_recipe(self) -> dict[str, Any]:
        """The preset as plain JSON."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if is_dataclass(self.context) and not isinstance(self.context, type):
            values["context"] = {"kind": type(self.context).__name__, **asdict(self.context)}
        return {"preset": type(self).__name__, "fields": values}

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Preset:
        """The preset from a recipe's fields; a ``ConfigError`` names any that cannot be."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(
                f"{cls.__name__} has no field {unknown[0]!r}; it has {', '.join(sorted(known))}."
            )
        if "features" not in values:
            raise ConfigError(f"{cls.__name__} needs the field 'features'.")
        values = dict(values)
        spec = values.get("context")
        if isinstance(spec, Mapping):
            kind = CONTEXTS.get(str(spec.get("kind")))
            if kind is None or set(spec) != {"kind", "size"}:
                raise ConfigError(f"{dict(spec)} is no context; known kinds: {', '.join(CONTEXTS)}.")
            values["context"] = kind(spec["size"])
        for f in fields(cls):
            if isinstance(values.get(f.name), list):
                values[f.name] = tuple(values[f.name])
        return cls(**values)


def check_fields(spec: Any) -> None:
    """Check every field against its declared type and its cap."""
    for f in fields(spec):
        _check_field(f"{type(spec).__name__}.{f.name}", f.name, str(f.type), getattr(spec, f.name))


def _check_field(where: str, name: str, kind: str, value: Any) -> None:
    if kind == "int":
        low = 0 if name in ("blocks", "marginal", "circular") else 1
        if type(value) is not int or not low <= value <= CAPS.get(name, 2**31):
            raise ConfigError(
                f"{where} must be a whole number from {low} to {CAPS.get(name)}, not {value!r}."
            )
    elif kind == "float":
        if type(value) not in (int, float) or not 0 <= value <= 1e6:
            raise ConfigError(f"{where} must be a number from 0 to 1e6, not {value!r}.")
        if name == "dropout" and value >= 1:
            raise ConfigError(f"{where} must be below 1, not {value!r}.")
    elif kind == "bool":
        if type(value) is not bool:
            raise ConfigError(f"{where} must be True or False, not {value!r}.")
    elif kind.startswith("tuple"):
        low, most = (0, CAPS["circular"]) if name == "circular" else (1, CAPS["layers"])
        if not isinstance(value, tuple) or not low <= len(value) <= most:
            raise ConfigError(f"{where} must be {low} to {most} numbers, not {value!r}.")
        for item in value:
            _check_field(where, name, kind[len("tuple[") :].split(",")[0], item)
    elif name == "context" and not isinstance(value, Vector | Classes | None):
        raise ConfigError(f"{where} must be Vector(n), Classes(n), an integer or None, not {value!r}.")
