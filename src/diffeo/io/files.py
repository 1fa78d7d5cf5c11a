"""The file: safetensors whose header also holds what rebuilds the flow. Never a pickle.

A file is eight bytes of header length, a JSON header and the tensors' bytes, as any reader of
safetensors expects. The header's ``__metadata__`` has two entries of ours:

``diffeo``
    JSON: the format version, diffeo's version, the recipe (preset and every field), the encoding,
    the notes, and the SHA-256 of the tensors' bytes.
``sha256``
    SHA-256 of that JSON and of the table of tensors, so that a damaged header is noticed.

The sums notice damage, not a forger: a file is only as trustworthy as its source, but loading one
runs no code of its own and takes no memory beyond a multiple of its own size.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from diffeo._files import replacing
from diffeo._reading import cleaned
from diffeo._reading.door import may_be_model
from diffeo._version import __version__
from diffeo.errors import ConfigError, FormatError
from diffeo.io.older import modernize

FORMAT = 1
"""The newest format version this release reads, and the one it writes."""

_MOST_AXES, _MOST_DIGITS = 64, 1000
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
        notes: the flow's ``notes``: what is to be known of the model.
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


def write(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and what is said about them; ``about`` holds recipe, encoding and notes."""
    for name, value in tensors.items():
        if not isinstance(value, Tensor) or value.dtype not in _DTYPES.values():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(f"{name!r} is a {kind}, which a model file cannot hold; make it a real tensor.")
    owned = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    blob = safetensors.torch.save(owned)
    start = 8 + int.from_bytes(blob[:8], "little")
    table, data = json.loads(blob[8:start]), memoryview(blob)[start:]
    entries = {"format": FORMAT, "version": __version__, **about, "sha256": hashlib.sha256(data).hexdigest()}
    try:
        text = json.dumps(entries)
        _parsed(text)  # what load refuses is not written
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the encoding or the notes are not plain JSON: {error}") from error
    header = json.dumps(
        {"__metadata__": {"diffeo": text, "sha256": header_sum(text, table)}, **table}
    ).encode()
    header += b" " * (-len(header) % 8)
    if Path(path).exists() and not Path(path).is_file():
        raise ConfigError(f"{path} is not a regular file; give the path of a file to write.")
    with replacing(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.write(data)


def header_sum(text: str, table: dict[str, Any]) -> str:
    """The checksum of the header: our JSON and the table of tensors."""
    return hashlib.sha256(json.dumps([text, table], sort_keys=True).encode()).hexdigest()


# -- reading ----------------------------------------------------------------------------------


def read_header(file: BinaryIO) -> FileInfo:
    """The checked header: every tensor it lists is backed by the file's own bytes."""
    total = os.fstat(file.fileno()).st_size
    start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if not may_be_model(start):
        raise FormatError("not a diffeo model file; diffeo.save writes one.")
    if 8 + length > total:
        raise FormatError("cut short inside its header; copy the file again.")
    try:
        table = _parsed(b"{" + file.read(length - 1))
        metadata = table.pop("__metadata__")
        text, written_sum = metadata["diffeo"], metadata["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FormatError(
            "not a diffeo model file, or its header is damaged; diffeo.save writes one."
        ) from None
    about = _parse_about(text)
    if header_sum(text, table) != written_sum:
        raise FormatError(f"its header does not match its checksum: {_DAMAGED}")
    return FileInfo(**modernize(about), tensors=_parse_table(table, total - 8 - length))


def _parsed(text: str | bytes) -> Any:
    """JSON in which no name stands twice, and no whole number takes longer to compute with than to read."""
    return json.loads(text, parse_int=_whole, object_pairs_hook=_unique)


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name that stands twice")
    return found


def _parse_about(text: Any) -> dict[str, Any]:
    """Our part of the header, each entry of the type it should have."""
    bad = FormatError(f"its header is not one that diffeo wrote: {_DAMAGED}")
    try:
        about = _parsed(text)
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
            if len(shape) > _MOST_AXES or not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
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


def read_tensors(file: BinaryIO, info: FileInfo) -> dict[str, Tensor]:
    """The tensors behind a checked header."""
    file.seek(0)
    blob = file.read()
    start = 8 + int.from_bytes(blob[:8], "little")
    if hashlib.sha256(memoryview(blob)[start:]).hexdigest() != info.sha256:
        raise FormatError(f"its weights do not match their checksum: {_DAMAGED}")
    try:
        return safetensors.torch.load(blob)
    except Exception as error:
        raise FormatError(f"not valid safetensors ({cleaned(error)}): {_DAMAGED}") from error
