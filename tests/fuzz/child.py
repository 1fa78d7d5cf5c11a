"""Reads one damaged file after another, and says of each how that went: a line of JSON on standard output."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import diffeo
from diffeo.cli import report
from diffeo.encodings import Columns
from diffeo.errors import DiffeoError
from diffeo.images import read_images
from diffeo.tables import Table, sample_table
from diffeo.tables.codes import as_numbers, is_number_like

from .mutations import mutated
from .originals import ORIGINALS


def read_table(path: Path) -> None:
    """Read, count with what can be counted, write: a table that is held can be used."""
    table = Table.read(path)
    for name in table.names:
        if is_number_like(table.column(name)):
            as_numbers(table.column(name))
    with contextlib.suppress(DiffeoError):  # text that is no UTF-8, dates that nothing can write
        table.rows(slice(None, None, 2)).write(path.with_name("written.csv"))
        table.write(path.with_name("written.parquet"))


def read_pictures(path: Path) -> None:
    if path.suffix in (".npy", ".npz"):
        read_images(path, labels=path.suffix == ".npz")
    else:  # both ways: as the only file, and in a folder
        try:
            read_images(path, size=8)
        except DiffeoError:
            read_images(path.parent, size=8)
            raise


def read_model(path: Path) -> None:
    """Load, say what it is, draw: whoever is handed a model does these."""
    flow = diffeo.load(path)
    said = io.StringIO()
    with (
        contextlib.redirect_stdout(said),
        contextlib.suppress(DiffeoError),
    ):  # notes that are not what they say
        report.say_model(path, flow)
    if any(not c.isprintable() for c in said.getvalue().replace("\n", "")):
        raise AssertionError("what is printed is not printable")
    with contextlib.suppress(DiffeoError):  # numbers that lead nowhere
        if isinstance(flow.encoding, Columns):
            sample_table(flow, 2, given=dict.fromkeys(flow.encoding.given, 1.0) or None, seed=0)


READERS: dict[str, Callable[[Path], None]] = {
    "table": read_table,
    "picture": read_pictures,
    "model": read_model,
}


def damaged(kind: str, originals: dict[str, bytes], number: int) -> tuple[str, bytes]:
    """File number so and so: its suffix and its content, the same each time."""
    rng = random.Random(f"{kind} {number}")
    name = rng.choice(sorted(originals))
    return name[name.index(".") :], mutated(rng, name, originals[name])


def attempt(kind: str, path: Path) -> dict[str, Any]:
    """Read one file: what became of it, in how many seconds, with how much memory."""
    _forget_peak()
    start = time.process_time()
    found: dict[str, Any] = {"result": "read"}
    try:
        READERS[kind](path)
    except DiffeoError as error:
        message = str(error)
        found["result"] = "refused"
        if "\n" in message or len(message) > 2000 or path.name not in message:
            found = {"result": "bad message", "error": message[:2000]}
    except BaseException as error:
        found = {"result": "traceback", "error": f"{type(error).__name__}: {error}"[:500]}
    return {**found, "seconds": time.process_time() - start, "megabytes": _peak()}


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """The most memory that the process had since then, in MB; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1000
    return 0.0


def main() -> None:
    """``KIND FIRST COUNT``, in a folder of its own."""
    kind, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    originals = ORIGINALS[kind]()
    folder = Path("files")
    folder.mkdir(exist_ok=True)
    results = os.fdopen(os.dup(1), "w", buffering=1)
    for number in range(first, first + count):
        suffix, content = damaged(kind, originals, number)
        path = folder / f"{number}{suffix}"
        path.write_bytes(content)
        print(json.dumps({"number": number, "file": path.name}), file=results)
        print(json.dumps(attempt(kind, path)), file=results)
        path.unlink()


if __name__ == "__main__":
    main()
