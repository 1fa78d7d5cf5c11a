"""Recipes: a preset as the plain JSON of a model file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

from diffeo.contexts import CONTEXTS, ContextSpec
from diffeo.errors import ConfigError
from diffeo.flow import Builder
from diffeo.presets import PRESETS, Preset


def to_recipe(preset: Builder) -> dict[str, Any]:
    """A preset's name and every field, defaults included.

    Raises:
        ConfigError: for a preset or a context that a file cannot name: one of the user's own.

    Example:
        >>> from diffeo.presets import NICE
        >>> to_recipe(NICE(features=2, layers=4))["fields"]
        {'features': 2, 'context': None, 'layers': 4, 'hidden': (128, 128)}
    """
    name = type(preset).__name__
    if not isinstance(preset, Preset) or PRESETS.get(name) is not type(preset):
        raise ConfigError(f"{name} is not one of diffeo's presets, so no file can rebuild its flows.")
    return {"preset": name, "fields": {f.name: _to_json(getattr(preset, f.name)) for f in fields(preset)}}


def from_recipe(recipe: Mapping[str, Any]) -> Preset:
    """The preset that a recipe names.

    Raises:
        ConfigError: for a preset that this release does not have, and for fields that cannot be.
    """
    name, values = recipe.get("preset"), recipe.get("fields")
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(f"this release has no preset {name!r}; upgrade diffeo.")
    if not isinstance(values, Mapping):
        raise ConfigError(f"the fields of {name} are {values!r}, not a mapping.")
    kind = PRESETS[name]
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise ConfigError(f"{kind.__name__} has no field {unknown[0]!r}; it has {', '.join(sorted(known))}.")
    for f in fields(kind):
        if f.default is MISSING and f.name not in values:
            raise ConfigError(f"{kind.__name__} needs the field {f.name!r}.")
    return kind(**{name: _from_json(value) for name, value in values.items()})


def _to_json(value: Any) -> Any:
    if not isinstance(value, ContextSpec):
        return value
    kind = CONTEXTS.get(type(value).__name__)
    if kind is None or not isinstance(value, kind):
        raise ConfigError(
            f"{type(value).__name__} is not one of diffeo's contexts, so no file can rebuild it."
        )
    return {"kind": kind.__name__, **asdict(value)}


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return _context(value) if isinstance(value, Mapping) else value


def _context(spec: Mapping[str, Any]) -> ContextSpec:
    kind = CONTEXTS.get(str(spec.get("kind")))
    if kind is None or set(spec) != {"kind", *(f.name for f in fields(kind))}:
        raise ConfigError(f"{dict(spec)} is not a context; known kinds: {', '.join(CONTEXTS)}.")
    return kind(**{name: value for name, value in spec.items() if name != "kind"})
