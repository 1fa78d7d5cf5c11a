"""The compiled kernels, where this installation has them. Only ``functional`` calls them.

The best instruction set of the processor is taken when this is imported. ``DIFFEO_KERNELS`` in the
environment overrules it: ``0`` leaves the kernels out, ``avx512``, ``avx2`` or ``portable`` forces one.

The extension knows no torch: it is given addresses, and the address of ``torch_parallel_for``, torch's
stable entry to its own threads. So it builds without torch, for any torch, and brings no second thread pool.
Each instruction set is one compilation of the same vector-extension code in a namespace of its own.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

ABI = 7
"""The ``_native.ABI`` this Python code calls; both grow when a signature changes."""

SETS = ("avx512", "avx2", "portable")


class Kernels(NamedTuple):
    native: ModuleType | None
    instruction_set: str | None
    description: str


def load(wanted: str) -> Kernels:
    """The kernels as ``DIFFEO_KERNELS=wanted`` has them; an empty string leaves the choice open."""
    if wanted == "0":
        return Kernels(None, None, "off (DIFFEO_KERNELS=0)")
    if wanted not in ("", *SETS):
        raise ValueError(f"DIFFEO_KERNELS={wanted} is not one of 0, {', '.join(SETS)}.")
    try:
        native = _import()
    except ImportError as error:
        if wanted:
            raise ValueError(f"DIFFEO_KERNELS={wanted}, but there are no kernels: {error}.") from error
        return Kernels(None, None, f"none ({error}); pure PyTorch is used{_cure(error)}")
    sets = native.instruction_sets()
    if wanted and wanted not in sets:
        raise ValueError(
            f"DIFFEO_KERNELS={wanted} cannot run on this processor or was not compiled in; "
            f"the choices here: 0, {', '.join(sets)}."
        )
    chosen = wanted or sets[0]
    native.use(chosen)
    address = _torch_parallel_for()
    if address is not None:
        native.set_parallel_for(address)
    threads = "threads by torch" if address is not None else "one thread (more need torch 2.10 or later)"
    return Kernels(native, chosen, f"{chosen}, {threads}")


def describe() -> str:
    """What is in use, in one line; where there are no kernels, why, and what helps."""
    return f"kernels: {_loaded.description}"


class _Missing(ImportError):
    """Never built."""


def _import() -> ModuleType:
    name = f"{__name__}._native"
    try:
        native = import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        why = "they are not built on Windows" if sys.platform == "win32" else None
        raise _Missing(why or "this package was built without a compiler") from None
    abi = getattr(native, "ABI", None)
    if abi != ABI:
        raise ImportError(f"the compiled module is stale: it has ABI {abi}, the Python code calls {ABI}")
    return native


def _cure(error: ImportError) -> str:
    if not isinstance(error, _Missing):
        return ". Cure: reinstall diffeo"
    if sys.platform == "win32":
        return ""
    return ". Cure: install a C++ compiler and reinstall diffeo"


def _torch_parallel_for() -> int | None:
    """The address of ``torch_parallel_for``, torch's stable C entry to its own threads."""
    import ctypes

    import torch

    try:  # looked for in the extension and in all it is linked with
        entry = ctypes.CDLL(torch._C.__file__).torch_parallel_for
    except (AttributeError, OSError):
        return None
    return ctypes.cast(entry, ctypes.c_void_p).value


_loaded = load(os.environ.get("DIFFEO_KERNELS", ""))
native, instruction_set, _ = _loaded
