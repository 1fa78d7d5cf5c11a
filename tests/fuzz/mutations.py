"""Damage: of bytes anywhere, of numbers in text, of what a model's header says, its checksums put right."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import re
import zipfile
from itertools import islice
from typing import Any

from diffeo.io.files import header_sum

from .originals import header

_NUMBERS = [0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1]
_WORDS = "0 -1 1e309 nan NaN inf '' , [ ( # None L O 99999999999999999999 300000000 \u202e"
_TOKENS = [*_WORDS.encode().split(), b"", b"\n", b"\r", b"\0", b"\xff", b'"', b"\x1b[2J", b"(" * 90]


def mutated(rng: random.Random, name: str, data: bytes) -> bytes:
    """The file with some damage; where a file is packed, it may be within."""
    kind = name.rpartition(".")[2]
    if kind == "safetensors" and rng.random() < 0.8:
        try:
            return forged(rng, data)
        except RecursionError:  # deeper than any reader goes
            pass
    if kind == "gz" and rng.random() < 0.7:
        return gzip.compress(_damaged(rng, gzip.decompress(data), text=True), 1)
    if kind == "npz" and rng.random() < 0.6:
        return _repacked(rng, data)
    return _damaged(rng, data, text=kind in ("csv", "tsv", "txt", "npy"))


def _damaged(rng: random.Random, data: bytes, text: bool) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(found) + 1)
        if rng.random() < 0.3:  # what describes the rest is at the ends
            at = min(at, 200) if rng.random() < 0.5 else max(0, len(found) - 1 - rng.randrange(400))
        length = int(2 ** rng.uniform(0, 8))
        match rng.randrange(8 if text else 7):
            case 0 if found:
                found[min(at, len(found) - 1)] ^= 1 << rng.randrange(8)
            case 1 if found:
                found[min(at, len(found) - 1)] = rng.randrange(256)
            case 2 | 3:
                size = rng.choice((1, 2, 4, 8))
                value = rng.choice(_NUMBERS) * rng.choice((1, 1, 1, -1)) % 2 ** (8 * size)
                found[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))
            case 4:
                del found[at : at + length]
            case 5:
                begin = rng.randrange(len(found) + 1)
                found[at:at] = found[begin : begin + length]
            case 6 if rng.random() < 0.3:
                del found[at:]
            case _:
                found[at : at + rng.choice((0, 1, 4))] = rng.choice(_TOKENS)
    if text and rng.random() < 0.3:  # another number, however long
        numbers = list(re.finditer(rb"\d+", bytes(found[:4000])))
        if numbers:
            where = rng.choice(numbers)
            found[where.start() : where.end()] = str(rng.choice(_NUMBERS)).encode()
    return bytes(found)


def _repacked(rng: random.Random, data: bytes) -> bytes:
    """An archive with a damaged member, or with one that is packed in another way."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        names = old.namelist()  # not two of one name
        hit = rng.choice(names)
        for name in names:
            content = old.read(name)
            if name == hit:
                content = _damaged(rng, content, text=True)
                name = rng.choice((name, name, "a.npy", "x", "d/", "\x1b.npy"))
            new.writestr(name, content, rng.choice((0, 8, 8, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
    return file.getvalue()


def forged(rng: random.Random, data: bytes) -> bytes:
    """A model whose header says something else and whose checksums are right, as one who knows makes it."""
    about, table, tensors = header(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        _edit(rng, table if rng.random() < 0.2 else about)
    about["sha256"] = hashlib.sha256(tensors).hexdigest() if rng.random() < 0.9 else about.get("sha256")
    text = json.dumps(about)
    if rng.random() < 0.05:
        text = text.replace('"', '"notes": {"x": 1}, "', 1)
    metadata = {"diffeo": text, "sha256": header_sum(text, table)}
    found = json.dumps({"__metadata__": metadata, **table}).encode()
    return len(found).to_bytes(8, "little") + found + tensors


def _edit(rng: random.Random, tree: Any) -> None:
    """Change one value somewhere in a tree of JSON."""
    places = list(islice(_places(tree), 5000))
    if not places:
        return
    parent, key = rng.choice(places)
    old = parent[key]
    match rng.randrange(6):
        case 0 if isinstance(parent, dict):
            del parent[key]
        case 1 if isinstance(parent, list):
            parent.extend([old] * (1 if isinstance(old, list | dict) else rng.choice((1, 3, 1000))))
        case 2 if isinstance(old, int | float) and abs(old) < 1e300:
            parent[key] = rng.choice((old + 1, -old, 2 * old, old * 1000, float(old)))
        case 3:
            other, name = rng.choice(places)
            parent[key] = json.loads(json.dumps(other[name]))
        case _:
            parent[key] = _value(rng)


def _places(tree: Any) -> Any:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield tree, key
        yield from _places(value)


def _value(rng: random.Random) -> Any:
    deep: Any = 0
    for _ in range(rng.choice((1, 50, 900))):
        deep = [deep]
    numbers = [*_NUMBERS, -1, 0.5, 1e308, float("nan"), float("inf"), 10**400, 10**2000, 16384, 4096, 512, 64]
    lists = [[], [16384] * 256, list(range(16384)), ["a"] * 3000, [1.0] * 20, deep]
    trees = [{}, {"kind": "Vector", "size": 16384}, {str(i): i for i in range(3000)}]
    others = [None, True, "", "x" * 20_000, "\x1b]0;a\x07\u202e\n"]
    return rng.choice(rng.choice((numbers, numbers, lists, trees, others)))
