"""Options that several commands have, written down once, and what their text means."""

from __future__ import annotations

import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffeo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from diffeo.flow import Flow

NewModel = Annotated[Path, typer.Option("-o", "--output", metavar="MODEL", help="Model file to write.")]
TableOut = Annotated[
    str, typer.Option("-o", "--output", metavar="OUT", help="Table to write; `-`: CSV on stdout.")
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Set a preset's field (repeatable); an unknown one lists them."
    ),
]
MaxSteps = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Most optimizer steps; the shortest limit holds.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all that is random: one seed, the same model.")]
DrawSeed = Annotated[int | None, typer.Option(min=0, help="Seed; default: a different draw each time.")]
RunFile = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        metavar="F",
        help="Keep the run here; the same command then resumes it. Removed at its end.",
    ),
]

_OF_THE_DATA = ("features", "context", "circular", "shape")
"""Fields that the table or the images decide."""
WITH_NAMES = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".feather", ".arrow", ".ipc", ".npz")
"""Kinds of table that can hold names beside numbers."""


# -- files ----------------------------------------------------------------------------------------


def check_paths(outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None]) -> None:
    """Refuse outputs that cannot be written, and one file in two roles: one would overwrite the other."""
    from diffeo._files import check_output

    for path in outputs.values():
        if path is not None:
            check_output(path)
    seen: dict[str, str] = {}
    for option, path in {**inputs, **outputs}.items():
        if path is not None and (first := seen.setdefault(os.path.realpath(path), option)) != option:
            raise ConfigError(f"{first} and {option} are both {path}; name two different files.")


def load_model(path: Path) -> Flow:
    """The flow of a model file, in evaluation mode."""
    import diffeo

    if path.is_dir():
        raise DataError(f"{path} is a folder, not a model file.")
    return diffeo.load(path).eval()


# -- text -----------------------------------------------------------------------------------------


def assignments(items: Sequence[str], option: str, example: str) -> dict[str, str]:
    """``["a=1", "b=x"]`` to ``{"a": "1", "b": "x"}``; a name may hold ``=``, a value may not."""
    found: dict[str, str] = {}
    for item in items:
        name, equals, value = item.rpartition("=")
        name, value = name.strip(), value.strip()
        if not (equals and name and value):
            raise ConfigError(f"{option} {item!r} is not NAME=VALUE; write for example {option} {example}.")
        if name in found:
            raise ConfigError(f"{option} sets {name!r} twice; drop one.")
        found[name] = value
    return found


def parse_given(items: Sequence[str]) -> dict[str, float]:
    """``--given age=40`` to ``{"age": 40.0}``; whole numbers stay integers."""
    found: dict[str, float] = {}
    for name, text in assignments(items, "--given", "age=40").items():
        try:
            found[name] = parse(text, int | float)
        except ValueError:
            raise ConfigError(f"--given {name}={text}: {text!r} is not a finite number.") from None
    return found


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``64`` or ``48x64`` (height first) as height and width."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise ConfigError(
            f"--size {text!r} is not a size; write --size 64, or --size 48x64 for height x width."
        )
    return int(parts[0]), int(parts[-1])


# -- presets --------------------------------------------------------------------------------------


def preset_class(name: str, images: bool = False) -> type[Any]:
    """The preset of this name, in any case: one for tables, or one for images."""
    from diffeo import presets

    own = [key for key, kind in presets.PRESETS.items() if issubclass(kind, presets.ImagePreset) == images]
    for key, kind in presets.PRESETS.items():
        if key.lower() != name.lower():
            continue
        if key in own:
            return kind
        of, command = ("tables", "diffeo fit") if images else ("images", "diffeo images fit")
        raise ConfigError(f"{key} is for {of}: use {command}, or one of {', '.join(own)}.")
    raise ConfigError(f"there is no preset {name!r}; there are {', '.join(own)}.")


def settings(preset: type[Any] | None, items: Sequence[str]) -> dict[str, Any]:
    """``["bins=16"]`` as the preset's fields, each by its declared type."""
    texts = assignments(items, "--set", "bins=16")
    if not texts:
        return {}
    if preset is None:
        raise ConfigError("--set needs --preset: the fields belong to a preset.")
    hints = typing.get_type_hints(preset)
    known = [f.name for f in fields(preset) if f.init and f.name not in _OF_THE_DATA]
    found: dict[str, Any] = {}
    for name, text in texts.items():
        if name in _OF_THE_DATA:
            raise ConfigError(
                f"--set {name}: the {_data_of(preset)} this; its fields are {', '.join(known)}."
            )
        if name not in known:
            raise ConfigError(f"{preset.__name__} has no field {name!r}; its fields are {', '.join(known)}.")
        try:
            found[name] = parse(text, hints[name])
        except ValueError:
            raise ConfigError(f"--set {name}={text}: {text!r} is not {_wanted(hints[name])}.") from None
    return found


def _data_of(preset: type[Any]) -> str:
    return "images decide" if "shape" in (f.name for f in fields(preset)) else "table decides"


def _wanted(kind: Any) -> str:
    named = {int: "a whole number", float: "a number", bool: "true or false", type(None): "none"}
    choices = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    return " or ".join(named.get(c) or f"of type {c if typing.get_args(c) else c.__name__}" for c in choices)


_WORDS: Mapping[str, bool] = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse(text: str, kind: Any) -> Any:
    """A field's value from text, by the field's type; ``ValueError`` where it is none.

    Example:
        >>> parse("16", int), parse("64,64", tuple[int, ...]), parse("none", float | None)
        (16, (64, 64), None)
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments and text.lower() in ("none", "null"):
            return None
        for choice in (a for a in arguments if a is not type(None)):
            try:
                return parse(text, choice)
            except ValueError:
                continue
        raise ValueError(text)
    if origin is typing.Literal:
        match = [a for a in arguments if str(a).lower() == text.lower()]
        if not match:
            raise ValueError(text)
        return match[0]
    if origin is tuple:
        parts = [part.strip() for part in text.strip("()[] ").split(",") if part.strip()]
        each = arguments[:1] * len(parts) if arguments[-1] is Ellipsis else arguments
        if len(each) != len(parts):
            raise ValueError(text)
        return tuple(parse(part, a) for part, a in zip(parts, each, strict=True))
    if kind is bool:
        if text.lower() not in _WORDS:
            raise ValueError(text)
        return _WORDS[text.lower()]
    if kind in (int, float):
        value = kind(text)
        if not math.isfinite(value):
            raise ValueError(text)
        return value
    if kind is str:
        return text
    raise ValueError(text)
