"""``save`` and ``load``: between a flow and its file.

``load`` builds under a memory budget, a multiple of the file's size, and compares every name, shape and
dtype before it reads weights. Building on the meta device first was tried: it forbids any decision by tensor
value in a constructor and imports half of the compiler.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, is_dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from diffeo import encodings
from diffeo._reading import cleaned, opened, reading
from diffeo.encodings.base import Encoding
from diffeo.errors import ConfigError, FormatError
from diffeo.flow import Flow
from diffeo.functional.seeding import seeded
from diffeo.io.files import FileInfo, read_header, read_tensors, write
from diffeo.io.older import is_neutral, with_neutral
from diffeo.io.recipes import from_recipe, to_recipe

_SLACK = 64 * 2**20
"""Bytes that any flow may take while it is built, beyond a multiple of its tensors' size."""
_CALLS, _CALLS_EACH = 20_000, 64
"""Calls of torch that any flow's building may take, and those for each tensor of its file: at most 26 do."""
_UNLIMITED = nullcontext()
_LARGE = 2**12
"""Numbers above which what a function makes of a tensor may be too large."""


def save(flow: Flow, path: str | os.PathLike[str], *, weights_only: bool = False) -> None:
    """Write a flow to one file that rebuilds itself: see ``load``.

    The file appears whole or not at all: it is written beside ``path`` and then takes its place.

    Args:
        flow: made by a preset's ``build``, its weights trained or not. Its ``notes`` are written too, and
            ``inspect`` shows them.
        path: where to; safetensors' ending is ``.safetensors``.
        weights_only: leave out the preset, for a flow built by hand or edited after ``build``.

    Raises:
        ConfigError: for a flow that its preset does not rebuild, and for notes that are not JSON.

    Example:
        >>> import diffeo, tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> diffeo.save(diffeo.presets.NSF(features=2).build(), path)
        >>> diffeo.load(path).event_shape
        torch.Size([2])
    """
    about = {"recipe": None, "encoding": None} if weights_only else _rebuilds(flow)
    if not isinstance(flow.notes, dict):
        raise ConfigError(f"flow.notes is a {type(flow.notes).__name__}; make it a dict of plain JSON.")
    write(path, flow.state_dict(), {**about, "notes": flow.notes})


def load(path: str | os.PathLike[str], *, into: Flow | None = None) -> Flow:
    """Read a flow back, in evaluation mode, on the CPU, in the dtype it was saved in.

    Its ``preset`` and ``notes`` come back too. Nothing is unpickled. A recipe may take no more memory than
    the file's tensors explain, and the names, shapes and dtypes of all tensors are compared with the flow's
    before they are read.

    Args:
        path: a file written by ``save``.
        into: a flow to fill instead of building one: for a file of weights only. It keeps its
            device, is left untouched by an error, and is what is returned.

    Raises:
        FormatError: for a truncated, foreign, newer or edited file; one line that names the file.
        ConfigError: for a file of weights only without ``into``.
    """
    with reading(path, FormatError), opened(path) as file:
        info = read_header(file)
        if into is None:
            if info.recipe is None:
                raise ConfigError(
                    f"{os.fspath(path)} holds weights only; build its flow and use load(path, into=flow)."
                )
            budget = _Budget(_SLACK + 16 * _nbytes(info), _CALLS + _CALLS_EACH * len(info.tensors))
            flow = _rebuild(info.recipe, info.encoding, budget)
            _check_fits(info, flow, any_float=True)
            _adopt_dtypes(flow, info)
        else:
            flow = into
            _check_fits(info, flow, any_float=False)
        tensors = with_neutral(read_tensors(file, info), flow.state_dict())
        try:
            flow.load_state_dict(tensors)
        except RuntimeError as error:
            raise FormatError(f"the tensors do not fit the flow: {cleaned(error)}") from error
        flow.notes = info.notes
    return flow.eval()


def inspect(path: str | os.PathLike[str]) -> FileInfo:
    """What a model file says about itself, without reading its tensors.

    Raises:
        FormatError: for a truncated, foreign, newer or edited file.
    """
    with reading(path, FormatError), opened(path) as file:
        return read_header(file)


def _rebuilds(flow: Flow) -> dict[str, Any]:
    """The recipe and the encoding that rebuild a flow, which was tried."""
    cure = "save(flow, path, weights_only=True), and later load(path, into=flow)."
    if flow.preset is None:
        raise ConfigError(f"this flow was built by hand, so no preset rebuilds it; use {cure}")
    encoding = None
    if flow.encoding is not None:
        encoding = {"kind": type(flow.encoding).__name__, "spec": flow.encoding.to_json()}
    try:
        recipe = to_recipe(flow.preset)
        plan = _rebuild(recipe, encoding)
    except (ConfigError, FormatError) as error:
        raise ConfigError(f"this flow's preset does not rebuild it: {error} Use {cure}") from error
    if _shapes(plan) != _shapes(flow) or _outline(plan) != _outline(flow):
        raise ConfigError(
            f"this flow was edited after build(), so its preset does not rebuild it; use {cure}"
        )
    return {"recipe": recipe, "encoding": encoding}


def _shapes(flow: Flow) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in flow.state_dict().items()}


def _outline(flow: Flow) -> list[Any]:
    """Every module's name, class and settings: what ``build`` decides and training leaves alone."""
    return [
        (name, type(module), {key: _plain(value) for key, value in vars(module).items() if _is_setting(key)})
        for name, module in flow.named_modules()
    ]


def _is_setting(key: str) -> bool:
    return not key.startswith("_") and key not in ("training", "notes", "sampler")


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return type(value), {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return "nan" if value != value else value  # so that NaN equals NaN, and 1 equals 1.0
    return getattr(value, "__qualname__", type(value))  # functions by name, anything else by kind


def _rebuild(
    recipe: dict[str, Any],
    encoding: dict[str, Any] | None,
    budget: AbstractContextManager[Any] = _UNLIMITED,
) -> Flow:
    """The flow of a recipe, on the CPU, within a budget; torch's generator stays as it was."""
    with seeded(0), torch.device("cpu"), budget:
        before = None if encoding is None else _rebuild_encoding(encoding)
        try:
            return from_recipe(recipe).build(before)
        except Exception as error:  # the recipe comes from the file: whatever it breaks is the file's fault
            raise FormatError(f"its preset cannot be rebuilt: {cleaned(error)}") from error


def _rebuild_encoding(encoding: dict[str, Any]) -> Encoding:
    kind = encoding.get("kind")
    if not isinstance(kind, str) or kind not in encodings.ENCODINGS:
        raise FormatError(f"this release has no encoding {kind!r}; upgrade diffeo.")
    try:
        return encodings.ENCODINGS[kind].from_json(encoding["spec"])
    except Exception as error:  # likewise
        raise FormatError(f"its {kind} encoding cannot be rebuilt: {cleaned(error)}") from error


class _Budget(TorchFunctionMode):
    """Stops a build that takes more memory, or more calls of torch, than the file's own tensors can explain.

    Counts what every torch function returns before anything is written to it: memory that is never touched
    costs nothing. What a function may fill is foreseen from what it is given.
    """

    def __init__(self, limit: float, calls: float):
        super().__init__()
        self.left, self.calls = limit, calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.calls -= 1
        if self.calls < 0:
            raise FormatError("its recipe asks for far more parts than it has tensors")
        if _foreseen(func, args, kwargs) > self.left:
            raise self._exceeded()
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and not result._is_view() and all(result is not arg for arg in args):
            self.left -= result.nbytes
        if self.left < 0:
            raise self._exceeded()
        return result

    def _exceeded(self) -> FormatError:
        return FormatError("its recipe asks for far more memory than its tensors take")


def _foreseen(func: Any, args: Any, kwargs: Any) -> int:
    """The most memory that a function of tensors and of sizes is likely to fill.

    A device without memory would know it exactly, and imports half of the compiler for some functions.
    """
    shapes = [arg.shape for arg in args if isinstance(arg, Tensor)]
    if sum(shape.numel() for shape in shapes) > _LARGE:
        try:
            return 8 * math.prod(np.broadcast_shapes(*shapes))
        except ValueError:  # of a product of matrices, say, whose result is no larger
            return 0
    if func in (torch.zeros, torch.ones, torch.full, torch.rand, torch.randn):
        size = kwargs["size"] if "size" in kwargs else args[0] if isinstance(args[0], Sequence) else args
        return 8 * math.prod(size)
    if func is torch.eye:
        return 8 * math.prod(int(n) for n in (args * 2)[:2])
    if func in (torch.arange, torch.linspace):
        return 8 * int(max(args))
    return 0


def _check_fits(info: FileInfo, flow: Flow, *, any_float: bool) -> None:
    wanted = {name: (value.dtype, value.shape) for name, value in flow.state_dict().items()}
    if missing := sorted(name for name in wanted.keys() - info.tensors.keys() if not is_neutral(name)):
        raise FormatError(
            f"it lacks the flow's {missing[0]!r} ({len(missing)} missing); it is another flow's file."
        )
    if extra := sorted(info.tensors.keys() - wanted.keys()):
        raise FormatError(f"the flow has no {extra[0]!r} ({len(extra)} too many); it is another flow's file.")
    for name in wanted.keys() & info.tensors.keys():
        dtype, shape = wanted[name]
        found, size = info.tensors[name]
        if size != shape:
            raise FormatError(
                f"{name!r} has shape {tuple(size)}, the flow's is {tuple(shape)}; it is another flow's file."
            )
        if found != dtype and not (any_float and found.is_floating_point and dtype.is_floating_point):
            raise FormatError(f"{name!r} is {found} but the flow's is {dtype}; convert the flow first.")


def _adopt_dtypes(flow: Flow, info: FileInfo) -> None:
    """Turn a fresh flow to the file's floating dtypes: all of it, then what differs from the rest."""
    floats = [dtype for dtype, _ in info.tensors.values() if dtype.is_floating_point]
    if floats:
        flow.to(max(set(floats), key=floats.count))
    for name, value in chain(flow.named_parameters(), flow.named_buffers()):
        if name in info.tensors:
            value.data = value.data.to(info.tensors[name][0])


def _nbytes(info: FileInfo) -> int:
    return sum(dtype.itemsize * shape.numel() for dtype, shape in info.tensors.values())
