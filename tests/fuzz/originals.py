"""Good files of every kind that is read: what the mutations start from."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import csv, feather, parquet

import diffeo
from diffeo import encodings, presets
from diffeo.encodings import kinds

Files = dict[str, bytes]
"""A file's content by its name; several of one suffix differ in how they were written."""


def tables() -> Files:
    """Tables of numbers, and of all that is not numbers, in each format, packed and not."""
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=40), rng.integers(0, 9, 40), np.float32(rng.random(40))
    numbers = pa.table({"a": a, "b": b, "größe": c})
    words = pa.array(["red", "green", None, "blau"] * 10)
    everything = numbers.append_column("word", words)
    for name, column in {
        "day": pa.array(range(40), pa.timestamp("s", tz="Europe/Berlin")),
        "category": words.dictionary_encode(),
        "list": pa.array([[1.0], [2.0, 3.0]] * 20),
        "struct": pa.array([{"x": 1, "y": "z"}] * 40),
        "none": pa.nulls(40),
        "flag": pa.array([True, False] * 20),
        "price": pa.array([Decimal("1.50"), Decimal("2.25")] * 20),
        "view": words.cast(pa.string_view()),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([10, 40], pa.int32()), pa.array([1.0, 2.0])),
    }.items():
        everything = everything.append_column(name, column)
    plain = everything.drop_columns(["view", "runs"])
    held = everything.drop_columns(["list", "struct", "runs"])
    found: Files = {}
    for name, table in {"numbers": numbers, "held": held, "all": everything}.items():
        for packed in ("uncompressed", "lz4", "zstd"):
            found[f"{name}-{packed}.feather"] = _written(feather.write_feather, table, compression=packed)
        found[f"{name}.arrow"] = _stream(table)
    for name, table in {"numbers": numbers, "held": held, "all": plain}.items():
        for packed in ("none", "snappy", "gzip", "zstd"):
            found[f"{name}-{packed}.parquet"] = _written(parquet.write_table, table, compression=packed)
        found[f"{name}-v2.parquet"] = _written(parquet.write_table, table, data_page_version="2.0")
        found[f"{name}-plain.parquet"] = _written(parquet.write_table, table, use_dictionary=False)
    text = _written(csv.write_csv, numbers.append_column("word", words))
    found["a.csv"] = _written(csv.write_csv, numbers)
    found["b.csv"] = text
    found["c.csv"] = b"# made by hand\n" + text
    found["d.csv"] = text.replace(b"\n", b"\r\n").decode().encode("latin-1")
    found["e.csv"] = b"day,when,w\n" + b"31.1.2020,Mar-2018,?\n1.2.2020 3:04,May-2019,1.5\n" * 20
    found["f.csv"] = "a;b\n1,5;ö\n-;x\n".encode("utf-16")
    found["g.csv"] = b'# R\n"x","y"\n' + b'"r",1,"a\nb"\n"s",NA,"c"\n' * 9
    found["a.tsv"] = found["a.csv"].replace(b",", b"\t")
    found["a.txt"] = found["a.csv"].replace(b",", b";")
    found["a.csv.gz"] = gzip.compress(text)
    arrays = {"a": a, "b": b, "größe": c}
    rows = np.stack(list(arrays.values()), 1)
    found["rows.npy"] = _written(lambda file: np.save(file, rows))
    found["columns.npy"] = _written(lambda file: np.save(file, np.asfortranarray(rows[:, :2])))
    records = np.array([(1.0, 2, "x")] * 5, dtype=[("a", "<f8"), ("ö", "<i4"), ("c", "<U3")])
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(UserWarning)
        found["records.npy"] = _written(lambda file: np.save(file, records))
    found["a.npz"] = _written(lambda file: np.savez(file, X=rows, y=rows[:, 0]))
    found["b.npz"] = _written(lambda file: np.savez_compressed(file, **arrays))
    return found


def pictures() -> Files:
    """Pictures of each format and mode, those that are read and those that are not, and arrays of them."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 20, 4), dtype=np.uint8)
    color, clear = Image.fromarray(pixels[..., :3]), Image.fromarray(pixels)
    gray, deep = Image.fromarray(pixels[..., 0]), Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    found: Files = {}
    for name, image in {"color": color, "clear": clear, "gray": gray, "deep": deep}.items():
        found[f"{name}.png"] = _written(image.save, format="PNG")
        found[f"{name}.tiff"] = _written(image.save, format="TIFF")
    found["few.png"] = _written(clear.quantize(8).save, format="PNG")
    found["turned.png"] = _written(color.save, format="PNG", exif=exif)
    found["plain.jpg"] = _written(color.save, format="JPEG")
    found["turned.jpg"] = _written(color.save, format="JPEG", exif=exif, progressive=True)
    found["gray.jpeg"] = _written(gray.save, format="JPEG")
    found["print.jpg"] = _written(color.convert("CMYK").save, format="JPEG")
    found["lossy.webp"] = _written(color.save, format="WEBP")
    found["exact.webp"] = _written(clear.save, format="WEBP", lossless=True)
    found["moving.webp"] = _written(color.save, format="WEBP", save_all=True, append_images=[clear])
    found["moving.png"] = _written(color.save, format="PNG", save_all=True, append_images=[color])
    found["still.gif"] = _written(gray.save, format="GIF")
    found["other.png"] = found["still.gif"]
    images = rng.integers(0, 256, (3, 6, 5), dtype=np.uint8)
    found["images.npy"] = _written(lambda file: np.save(file, images))
    found["images.npz"] = _written(lambda file: np.savez_compressed(file, x=images, y=np.arange(3)))
    return found


def models() -> Files:
    """Models of tables, images and vectors, with contexts and notes."""
    columns = encodings.Columns(
        [
            encodings.Column("size", kinds.Positive(), loc=0.5, scale=2.0),
            encodings.Column("unit", kinds.Constant(7.0)),
            encodings.Column("count", kinds.Integer(), "int64", loc=3.0, scale=1.5),
            encodings.Column("angle", kinds.Circular(0.0, 360.0)),
        ],
        given=["age"],
    )
    tabular = presets.Tabular(3, 1, layers=1, hidden=4, blocks=1, bins=2, circular=(2,)).build(columns)
    scores = {"rows": 3, "values": [-2.0, -1.0, 0.5]}
    tabular.notes = {"held-out scores": scores, "rows": 3, "note": ["a", "b"]}
    vectors = presets.NSF(2, layers=1, hidden=4, blocks=1, bins=2).build()
    chained = presets.RealNVP(2, diffeo.contexts.Classes(3), layers=2, hidden=(4,)).build()
    preset = presets.RealNVPImage((1, 4, 4), levels=1, layers=2, hidden=4, blocks=0)
    images = preset.build(preset.encoding())
    path = Path("model")
    found: Files = {}
    for name, flow in {"tabular": tabular, "vectors": vectors, "chained": chained, "images": images}.items():
        diffeo.save(flow, path)
        found[f"{name}.safetensors"] = path.read_bytes()
    path.unlink()
    return found


def header(model: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """What a model file says of itself, its table of tensors, and their bytes."""
    end = 8 + int.from_bytes(model[:8], "little")
    table = json.loads(model[8:end])
    return json.loads(table.pop("__metadata__")["diffeo"]), table, model[end:]


def _written(write: Callable[..., Any], *args: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    write(*args, file, **options)
    return file.getvalue()


def _stream(table: pa.Table) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=9)
    return file.getvalue()


ORIGINALS: dict[str, Callable[[], Files]] = {"table": tables, "picture": pictures, "model": models}
