"""Fields of frozen dataclasses that come from files: checked against their declared types and caps."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from diffeo.errors import ConfigError

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
    "size": 16384,
    "circular": 16384,
    "shape": 4096,
    "channels": 4096,
    "height": 4096,
    "width": 4096,
    "levels": 16,
    "patch": 256,
    "heads": 256,
    "kernel": 63,
}
"""The largest value of each size, by field name: a recipe from a foreign file must not eat the machine."""


PIXELS = 2**24
"""The most numbers an image may have."""


def check_pixels(*shape: int) -> None:
    """Refuse images of more numbers than any machine that this runs on could work with."""
    if math.prod(shape) > PIXELS:
        raise ConfigError(f"images of shape {shape} have more than {PIXELS} numbers; use smaller ones.")


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
