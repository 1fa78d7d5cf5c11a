"""Model files: safetensors whose header also holds what rebuilds the flow. Never a pickle.

A file is eight bytes of header length, a JSON header and the tensors' bytes, as any reader of
safetensors expects. The header's ``__metadata__`` has two entries of ours:

``diffeo``
    JSON: the format version, diffeo's version, the recipe (preset and every field), the encoding,
    the notes, and the SHA-256 of the tensors' bytes.
``sha256``
    SHA-256 of that JSON and of the table of tensors, so that a damaged header is noticed.

The sums notice damage, not a forger: a file is only as trustworthy as its source, but loading one
runs no code of its own and allocates nothing that its bytes do not back.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from itertools import chain
from pathlib import Path
from textwrap import shorten
from types import NoneType
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from diffeo import __version__, encodings, presets
from diffeo.encodings.base import Encoding
from diffeo.errors import ConfigError, FormatError
from diffeo.flow import Flow

FORMAT = 1
"""The newest format version this release reads, and the one it writes."""

_HEADER_CAP = 64 * 2**20
_DAMAGED = "the file is damaged or was edited; get it again, or save the flow again."
_ENTRIES = {
    "format": int,
    "version": str,
    "recipe": (dict, NoneType),
    "encoding": (dict, NoneType),
    "notes": dict,
    "sha256": str,
}
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class FileInfo:
    """What a model file says about itself.

    Args:
        format: format version.
        version: the diffeo that wrote it.
        recipe: the preset and its fields; None for a file of weights only.
        encoding: ``{"kind": ..., "spec": ...}`` or None.
        notes: whatever the writer added.
        tensors: each tensor's dtype and shape, by name.
        sha256: the sum of the tensors' bytes.
    """

    format: int
    version: str
    recipe: dict[str, Any] | None
    encoding: dict[str, Any] | None
    notes: dict[str, Any]
    tensors: dict[str, tuple[torch.dtype, torch.Size]]
    sha256: str


# -- writing ----------------------------------------------------------------------------------


def save(
    flow: Flow,
    path: str | os.PathLike[str],
    *,
    weights_only: bool = False,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write a flow to one file that rebuilds itself: see ``load``.

    The file appears whole or not at all: it is written beside ``path`` and then takes its place.

    Args:
        flow: made by a preset's ``build``, its weights trained or not.
        path: where to; safetensors' ending is ``.safetensors``.
        weights_only: leave out the recipe, for a flow built by hand or edited after ``build``.
        notes: anything JSON can hold, to keep with the model; ``inspect`` gives it back.

    Raises:
        ConfigError: for a flow whose recipe does not rebuild it, and for notes that are not JSON.

    Example:
        >>> import diffeo, tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> diffeo.save(diffeo.presets.NSF(features=2).build(), path)
        >>> diffeo.load(path).event_shape
        torch.Size([2])
    """
    state = _state(flow)
    recipe, encoding = None, None
    if not weights_only:
        recipe = flow.recipe
        if flow.encoding is not None:
            encoding = {"kind": type(flow.encoding).__name__, "spec": flow.encoding.to_json()}
        _check_rebuilds(flow, state, recipe, encoding)
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    blob = safetensors.torch.save(tensors)
    size = int.from_bytes(blob[:8], "little")
    table, data = json.loads(blob[8 : 8 + size]), memoryview(blob)[8 + size :]
    about = {
        "format": FORMAT,
        "version": __version__,
        "recipe": recipe,
        "encoding": encoding,
        "notes": dict(notes or {}),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    try:
        text = json.dumps(about)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the recipe, encoding or notes are not plain JSON: {error}") from error
    metadata = {"diffeo": text, "sha256": _header_sum(text, table)}
    header = json.dumps({"__metadata__": metadata, **table}).encode()
    header += b" " * (-len(header) % 8)
    with replacing(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.write(data)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that takes the place of ``path`` when the block ends well, else leaves no trace."""
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is not a regular file; give the path of a file to write.")
    temporary = path.with_name(f".diffeo-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _state(flow: Flow) -> dict[str, Tensor]:
    state = flow.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.dtype not in _DTYPES.values():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(f"{name!r} is a {kind}, which a model file cannot hold; make it a real tensor.")
    return state


def _check_rebuilds(
    flow: Flow, state: dict[str, Tensor], recipe: dict[str, Any] | None, encoding: dict[str, Any] | None
) -> None:
    cure = "save(flow, path, weights_only=True), and later load(path, into=flow)."
    if recipe is None:
        raise ConfigError(f"this flow was built by hand, so no recipe rebuilds it; use {cure}")
    try:
        plan = _build(recipe, _build_encoding(encoding), "meta")
    except FormatError as error:
        raise ConfigError(f"this flow's recipe does not rebuild it: {error} Use {cure}") from error
    rebuilt = {name: value.shape for name, value in plan.state_dict().items()}
    if rebuilt != {name: value.shape for name, value in state.items()} or _outline(plan) != _outline(flow):
        raise ConfigError(f"this flow was edited after build(), so its recipe does not rebuild it; use {cure}")


def _outline(flow: Flow) -> list[Any]:
    """Every module's name, class and settings: what ``build`` decides and training leaves alone."""
    return [
        (name, type(module), {key: _plain(value) for key, value in vars(module).items() if _is_setting(key)})
        for name, module in flow.named_modules()
    ]


def _is_setting(key: str) -> bool:
    return not key.startswith("_") and key not in ("training", "recipe")


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int | float | str) or is_dataclass(value):
        return repr(value)  # so that NaN equals NaN
    return getattr(value, "__qualname__", type(value))  # functions by name, anything else by kind


# -- reading ----------------------------------------------------------------------------------


def load(path: str | os.PathLike[str], *, into: Flow | None = None) -> Flow:
    """Read a flow back, in evaluation mode, on the CPU, in the dtype it was saved in.

    Nothing is unpickled. The names, shapes and dtypes of all tensors are compared with the flow's
    before any memory is allocated for them.

    Args:
        path: a file written by ``save``.
        into: a flow to fill instead of building one: for a file of weights only. It keeps its
            device, is left untouched by an error, and is what is returned.

    Raises:
        FormatError: for a truncated, foreign, newer or edited file; one line that names the file.
        ConfigError: for a file of weights only without ``into``.
    """
    with open(path, "rb") as file, _naming(path):
        info = _read_header(file)
        encoding = None
        if into is None:
            if info.recipe is None:
                raise ConfigError(
                    f"{os.fspath(path)} holds weights only; build the same flow and use load(path, into=flow)."
                )
            encoding = _build_encoding(info.encoding)
            _check_fits(info, _build(info.recipe, encoding, "meta"), any_float=True)
        else:
            _check_fits(info, into, any_float=False)
        tensors = _read_tensors(file, info)
        flow = into
        if flow is None:
            assert info.recipe is not None
            flow = _build(info.recipe, encoding, "cpu")
            _adopt_dtypes(flow, info)
        try:
            flow.load_state_dict(tensors)
        except RuntimeError as error:
            raise FormatError(f"the tensors do not fit the flow: {_one_line(error)}") from error
    return flow.eval()


def inspect(path: str | os.PathLike[str]) -> FileInfo:
    """What a model file says about itself, without reading its tensors.

    Raises:
        FormatError: for a truncated, foreign, newer or edited file.
    """
    with open(path, "rb") as file, _naming(path):
        return _read_header(file)


@contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Puts the file's name before every complaint about it."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{os.fspath(path)}: {_one_line(error)}") from error.__cause__


def _read_header(file: BinaryIO) -> FileInfo:
    total = os.fstat(file.fileno()).st_size
    start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if start[8:] != b"{" or length > _HEADER_CAP:
        raise FormatError("not a diffeo model file; diffeo.save writes one.")
    if 8 + length > total:
        raise FormatError("cut short inside its header; copy the file again.")
    try:
        table = json.loads(b"{" + file.read(length - 1))
        metadata = table.pop("__metadata__")
        text, header_sum = metadata["diffeo"], metadata["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FormatError("not a diffeo model file, or its header is damaged; diffeo.save writes one.") from None
    about = _parse_about(text)
    if _header_sum(text, table) != header_sum:
        raise FormatError(f"its header does not match its checksum: {_DAMAGED}")
    return FileInfo(**about, tensors=_parse_table(table, total - 8 - length))


def _parse_about(text: Any) -> dict[str, Any]:
    """Our part of the header, each entry of the type it should have."""
    bad = FormatError(f"its header is not one that diffeo wrote: {_DAMAGED}")
    try:
        about = json.loads(text)
        version, number = about["version"], about["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise bad from None
    if type(number) is not int or number < 1 or type(version) is not str:
        raise bad
    if number > FORMAT:
        raise FormatError(
            f"written by diffeo {version} in format {number}, and this release reads formats up to {FORMAT}; "
            "upgrade diffeo."
        )
    if about.keys() != _ENTRIES.keys() or not all(isinstance(about[key], _ENTRIES[key]) for key in _ENTRIES):
        raise bad
    return about


def _parse_table(table: dict[str, Any], size: int) -> dict[str, tuple[torch.dtype, torch.Size]]:
    """The tensors' dtypes and shapes; their bytes must cover the rest of the file exactly once."""
    tensors, spans = {}, []
    try:
        for name, entry in table.items():
            dtype, shape, (begin, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
            if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
                raise ValueError
            if end - begin != math.prod(shape) * dtype.itemsize:
                raise ValueError
            spans.append((begin, end))
            tensors[name] = (dtype, torch.Size(shape))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError):
        raise FormatError(f"its header describes a tensor that cannot be: {_DAMAGED}") from None
    spans.sort()
    ends = [0, *(end for _, end in spans)]
    if [begin for begin, _ in spans] != ends[:-1]:
        raise FormatError(f"its tensors overlap or leave gaps: {_DAMAGED}")
    if ends[-1] != size:
        how = "cut short" if size < ends[-1] else "longer than its header says"
        raise FormatError(f"{how} ({size} bytes of tensors, {ends[-1]} expected); copy the file again.")
    return tensors


def _read_tensors(file: BinaryIO, info: FileInfo) -> dict[str, Tensor]:
    file.seek(0)
    blob = file.read()
    start = 8 + int.from_bytes(blob[:8], "little")
    if hashlib.sha256(memoryview(blob)[start:]).hexdigest() != info.sha256:
        raise FormatError(f"its weights do not match their checksum: {_DAMAGED}")
    try:
        return safetensors.torch.load(blob)
    except Exception as error:
        raise FormatError(f"not valid safetensors ({_one_line(error)}): {_DAMAGED}") from error


# -- between file and flow --------------------------------------------------------------------


def _build_encoding(encoding: dict[str, Any] | None) -> Encoding | None:
    if encoding is None:
        return None
    kind = encoding.get("kind")
    if not isinstance(kind, str) or kind not in encodings.KINDS:
        raise FormatError(f"this release has no encoding {kind!r}; upgrade diffeo.")
    try:
        return encodings.KINDS[kind].from_json(encoding["spec"])
    except Exception as error:  # the spec comes from the file: whatever it breaks is the file's fault
        raise FormatError(f"its {kind} encoding cannot be rebuilt: {_one_line(error)}") from error


def _build(recipe: dict[str, Any], encoding: Encoding | None, device: str) -> Flow:
    """The flow of a recipe; on the meta device it takes no memory. Leaves torch's generator alone."""
    kind = recipe.get("preset")
    if not isinstance(kind, str) or kind not in presets.KINDS:
        raise FormatError(f"this release has no preset {kind!r}; upgrade diffeo.")
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            return presets.KINDS[kind].from_fields(recipe["fields"]).build(encoding)
    except Exception as error:  # the recipe comes from the file: whatever it breaks is the file's fault
        raise FormatError(f"its {kind} cannot be rebuilt: {_one_line(error)}") from error


def _check_fits(info: FileInfo, flow: Flow, *, any_float: bool) -> None:
    wanted = {name: (value.dtype, value.shape) for name, value in flow.state_dict().items()}
    if missing := sorted(wanted.keys() - info.tensors.keys()):
        raise FormatError(f"it lacks the flow's {missing[0]!r} ({len(missing)} missing); it is another flow's file.")
    if extra := sorted(info.tensors.keys() - wanted.keys()):
        raise FormatError(f"the flow has no {extra[0]!r} ({len(extra)} too many); it is another flow's file.")
    for name, (dtype, shape) in wanted.items():
        found, size = info.tensors[name]
        if size != shape:
            raise FormatError(
                f"{name!r} has shape {tuple(size)} but the flow's is {tuple(shape)}; it is another flow's file."
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


def _header_sum(text: str, table: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([text, table], sort_keys=True).encode()).hexdigest()


def _one_line(error: Exception) -> str:
    return shorten(str(error), 400) or type(error).__name__
