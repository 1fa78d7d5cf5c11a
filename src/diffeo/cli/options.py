"""Options that several commands have, written down once, and what their text means."""

from __future__ import annotations

import errno
import math
import os
import tempfile
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffeo._files import check_output
from diffeo._reading.door import may_be_model, opened
from diffeo.cli import BEGAN
from diffeo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from diffeo.flow import Flow
    from diffeo.train.checkpoint import Checkpoint

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
        help="Keep the run here; the same command then resumes it. Removed when the model is written.",
    ),
]

TABLE_PRESETS = (
    *("BPF", "CouplingNSF", "FFJORD", "FlowMatching", "Gaussianization", "IAF", "IResNet", "MAF", "Mixed"),
    "NAF",
    *("NICE", "NSF", "Planar", "Radial", "RealNVP", "ResidualFlow", "RevNet", "SOSPF", "Sylvester"),
    *("Tabular", "UNAF"),
)
IMAGE_PRESETS = ("Glow", "Jet", "PixelFlow", "RealNVPImage", "SplineGlow", "TarFlow")
"""The names in ``diffeo.presets.PRESETS``, whose import would slow every command's start."""

_OF_THE_DATA = ("features", "context", "circular", "shape")
"""Fields that the table or the images decide."""
WITH_NAMES = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".feather", ".arrow", ".ipc", ".npz")
"""Kinds of table that can hold names beside numbers."""


# -- files ----------------------------------------------------------------------------------------


def check_paths(
    outputs: Mapping[str, Path | str | None],
    inputs: Mapping[str, Path | str | None],
    suffixes: tuple[str, ...] = (),
) -> None:
    """Refuse inputs that are not there, outputs that cannot be written, and one file in two roles.

    Files are told apart by what they are, not by how they are spelled; an input folder stands for all that
    is in it.
    """
    seen = {option: Path(path) for option, path in inputs.items() if path is not None and str(path) != "-"}
    for option, path in outputs.items():
        if path is None:
            continue
        check_output(path, suffixes)
        if str(path) == "-":
            continue
        path = Path(path)
        for other, known in seen.items():
            if _same(path, known):
                raise ConfigError(f"{other} and {option} are both {path}; name two different files.")
            if other in inputs and known.is_dir() and path.exists() and _within(path, known):
                raise ConfigError(f"{option} {path} is one of the files in {other}; name another file.")
        seen[option] = path
    for path in (seen[option] for option in inputs if option in seen):
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))


def check_folders(outputs: Mapping[str, Path | None], inputs: Mapping[str, Path]) -> None:
    """Refuse a folder to write to that lies in one that is read: a later run would read what was written."""
    for option, folder in outputs.items():
        for other, known in inputs.items():
            if folder is not None and known.is_dir() and _within(folder, known):
                raise ConfigError(f"{option} {folder} lies in {other}; name a folder beside it.")


def _same(one: Path, other: Path) -> bool:
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    return one.exists() and other.exists() and one.samefile(other)


def _within(path: Path, folder: Path) -> bool:
    path = Path(os.path.realpath(path))
    return any(_same(above, folder) for above in (path, *path.parents))


# -- a run ----------------------------------------------------------------------------------------


def began() -> float | None:
    """When the command was started, by ``time.monotonic``; None where it was not from the shell."""
    return BEGAN.get()


@contextmanager
def kept(path: Path | None) -> Iterator[Checkpoint | None]:
    """The checkpoint of this name, which the block has for itself; it is removed once the block ends well."""
    if path is None:
        yield None
        return
    from diffeo.train.checkpoint import Checkpoint

    run = Checkpoint(path)
    with run.held():
        yield run
        run.remove()


def save_model(flow: Flow, path: Path, run: Checkpoint | None) -> None:
    """Write what a long run has made; where that fails, its result is kept elsewhere, and it says where."""
    import diffeo

    try:
        diffeo.save(flow, path)
    except OSError as error:
        if run is not None and run.path.exists():
            cure = f"the run is kept in {run.path}: mend this and run the same command again"
        else:
            rescued = Path(tempfile.mkdtemp(prefix="diffeo-"), path.name)
            diffeo.save(flow, rescued)
            cure = f"the model is in {rescued} instead"
        raise DataError(f"{path} cannot be written ({error.strerror or error}); {cure}.") from None


# -- models ---------------------------------------------------------------------------------------


def check_model(path: Path) -> None:
    """Refuse what cannot be a model file, before the libraries are imported that read one."""
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a model file.")
    with opened(path) as file:
        if not may_be_model(file.read(9)):
            raise DataError(f"{path}: not a diffeo model file; diffeo.save writes one.")


def load_model(path: Path) -> Flow:
    """The flow of a model file, in evaluation mode."""
    check_model(path)

    import diffeo

    return diffeo.load(path)


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


def parse_given(items: Sequence[str]) -> dict[str, float | str]:
    """``--given age=40`` to ``{"age": 40}``, and ``--given sex=F`` to ``{"sex": "F"}``."""
    found: dict[str, float | str] = {}
    for name, text in assignments(items, "--given", "age=40").items():
        try:
            found[name] = parse(text, int | float)
        except ValueError:
            found[name] = text
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


def check_preset(name: str, images: bool = False) -> None:
    """Refuse a name that no preset has, in any case, or only one of the other sort."""
    own, others = (IMAGE_PRESETS, TABLE_PRESETS) if images else (TABLE_PRESETS, IMAGE_PRESETS)
    if name.lower() in map(str.lower, own):
        return
    for other in (other for other in others if other.lower() == name.lower()):
        of, command = ("tables", "diffeo fit") if images else ("images", "diffeo images fit")
        raise ConfigError(f"{other} is for {of}: use {command}, or one of {', '.join(own)}.")
    raise ConfigError(f"there is no preset {name!r}; there are {', '.join(own)}.")


def preset_class(name: str, images: bool = False) -> type[Any]:
    """The preset of this name, in any case: one for tables, or one for images."""
    check_preset(name, images)

    from diffeo.presets import PRESETS

    return next(kind for key, kind in PRESETS.items() if key.lower() == name.lower())


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
