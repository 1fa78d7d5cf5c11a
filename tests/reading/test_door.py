"""Files that are none, lie about their size, or never end: refused at once, in one line."""

from __future__ import annotations

import gzip
import os
import resource
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import feather, parquet

import diffeo
from diffeo._reading import Room, opened, reading
from diffeo.errors import ConfigError, DataError, FormatError
from diffeo.images import read_images
from diffeo.tables import Table
from diffeo.tables.files import read_columns


def npy(shape: str, descr: str = "<f8", version: tuple[int, int] = (1, 0), data: bytes = b"") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    length = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + text + data


READERS = {"table": Table.read, "pictures": read_images, "model": diffeo.load}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", ["folder", "loop", "pipe", "empty", "device"])
def test_what_is_not_a_file_is_refused_without_waiting(reader: str, what: str, tmp_path: Path):
    path = tmp_path / ("it.npy" if reader != "model" else "it.safetensors")
    match what:
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "pipe":
            os.mkfifo(path)
        case "empty":
            path.touch()
        case "device":
            path.symlink_to("/dev/zero")
    with pytest.raises((DataError, FormatError, FileNotFoundError)) as caught:
        READERS[reader](path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read_or_is_not_there_stays_an_error_of_the_system(tmp_path: Path):
    with pytest.raises(FileNotFoundError), reading(tmp_path / "x"), opened(tmp_path / "x"):
        pass
    with pytest.raises(PermissionError), reading(tmp_path):
        raise PermissionError(13, "Permission denied", "x")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (zipfile.BadZipFile("no"), "it is truncated, damaged or of another kind (no)"),
        (AttributeError("'bytes' object\n has none"), "('bytes' object has none)"),
        (MemoryError(), "asks for more memory than there is"),
        (OSError(40, "Too many levels of symbolic links"), "Too many levels of symbolic links."),
        (KeyError(), "(KeyError)"),
        (ConfigError("its 'x' is wrong"), "t.csv: its 'x' is wrong"),
        (ValueError("x " * 10**6), " ..."),
    ],
)
def test_whatever_a_reader_raises_is_one_line_that_names_the_file(error: Exception, says: str):
    with pytest.raises((DataError, ConfigError)) as caught, reading("/data/t.csv"):
        raise error
    message = str(caught.value)
    assert message.startswith("/data/t.csv")
    assert says in message
    assert len(message) < 600
    assert "\n" not in message


# -- sizes that are not true ------------------------------------------------------------------------


def refused(path: Path, says: str, megabytes: int = 100) -> None:
    """Refused, and without having taken so much memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=says) as caught:
        Table.read(path)
    assert path.name in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1000 * megabytes  # KiB


def test_an_array_is_as_large_as_its_file(tmp_path: Path):
    (tmp_path / "t.npy").write_bytes(npy("(300000000,)", data=b"\0" * 8))
    refused(tmp_path / "t.npy", "cannot be read as npy: .* by its header, and not by its length")


@pytest.mark.parametrize("descr", ["<U0", "|S0", "|V0"])
def test_many_items_of_no_size_are_refused(descr: str, tmp_path: Path):
    (tmp_path / "t.npy").write_bytes(npy("(1000000000000,)", descr))
    with pytest.raises(DataError, match="t.npy"):
        Table.read(tmp_path / "t.npy")


@pytest.mark.parametrize("shape", ["(0, 1000000000)", "(1000000000, 0)"])
def test_an_array_without_numbers_is_refused(shape: str, tmp_path: Path):
    (tmp_path / "t.npy").write_bytes(npy(shape))
    with pytest.raises(DataError, match="t.npy"):
        Table.read(tmp_path / "t.npy")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_headers_of_every_version_are_read(version: tuple[int, int], tmp_path: Path):
    rows = np.arange(6.0).reshape(3, 2)
    (tmp_path / "t.npy").write_bytes(npy("(3, 2)", version=version, data=rows.tobytes()))
    np.testing.assert_array_equal(Table.read(tmp_path / "t.npy").values, rows)


def test_a_bomb_in_an_archive_is_refused_and_an_honest_archive_read(tmp_path: Path):
    honest = tmp_path / "honest.npz"
    np.savez_compressed(honest, X=np.tile(np.arange(1000.0), (100, 1)))
    assert len(Table.read(honest)) == 100
    bomb = tmp_path / "bomb.npz"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(20):  # of 10 MB: 200 in all
            archive.writestr(f"c{i}.npy", npy("(1250000,)", data=bytes(10_000_000)))
    refused(bomb, "would take .* more than data are ever packed", 250)


def test_archives_packed_as_numpy_never_does_are_refused(tmp_path: Path):
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
            archive.writestr("X.npy", npy("(1,)", data=bytes(8)))
        with pytest.raises(DataError, match="packed as NumPy never does"):
            Table.read(tmp_path / "a.npz")
        with pytest.raises(DataError, match="packed as NumPy never does"):
            read_images(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", ["feather", "parquet", "csv.gz"])
def test_columns_that_unpack_to_far_more_are_refused(suffix: str, tmp_path: Path):
    path = tmp_path / f"t.{suffix}"
    if suffix == "feather":
        feather.write_feather(pa.table({"a": np.zeros(30_000_000)}), path, compression="zstd")
    elif suffix == "parquet":  # one text of 1 MB that 300 rows repeat
        parquet.write_table(pa.table({"a": pa.array(["x" * 2**20]).take(pa.array([0] * 300))}), path)
    else:
        path.write_bytes(gzip.compress(b"a\n") + gzip.compress(b"1\n" * 500_000) * 60)
    refused(path, "would take .* more than data are ever packed", 250)


def test_many_views_of_one_text_are_refused(tmp_path: Path):
    text = b"x" * 2**20
    view = np.array([len(text), int.from_bytes(text[:4], "little"), 0, 0], np.int32)
    buffers = [None, pa.py_buffer(np.tile(view, 1000)), pa.py_buffer(text)]
    views = pa.Array.from_buffers(pa.string_view(), 1000, buffers)
    levels = pa.DictionaryArray.from_arrays(pa.array([0, 1]), views)
    for column in (views, levels):
        feather.write_feather(pa.table({"a": column}), tmp_path / "t.feather", compression="uncompressed")
        assert (tmp_path / "t.feather").stat().st_size < 2**21
        refused(tmp_path / "t.feather", "would take .* more than data are ever packed")
    few = pa.table({"a": pa.array(["red", None, "a text of more than twelve bytes"] * 9, pa.string_view())})
    feather.write_feather(few, tmp_path / "few.feather")
    parquet.write_table(few, tmp_path / "few.parquet")
    for name in ("few.feather", "few.parquet"):
        column = Table.read(tmp_path / name).column("a")
        assert (column.type, column.to_pylist()) == (pa.string(), few["a"].to_pylist())


def test_a_lie_about_an_unpacked_size_is_noticed_before_it_is_believed(tmp_path: Path):
    path = tmp_path / "t.feather"
    feather.write_feather(pa.table({"a": np.zeros(500)}), path, compression="zstd")
    data = path.read_bytes()
    true = (4000).to_bytes(8, "little")
    assert data.count(true) == 1
    path.write_bytes(data.replace(true, (2**40).to_bytes(8, "little")))
    with pytest.raises(DataError, match="would take 1.02e\\+03 GiB|half of this machine"):
        Table.read(path)


def test_repeated_text_of_a_parquet_file_comes_back(tmp_path: Path):
    large = pa.array(["b"] * 150, "large_string")
    table = pa.table({"word": ["a", None, "ö"] * 50, "x": np.arange(150.0), "large": large})
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=40)
    for name, column in read_columns(tmp_path / "t.parquet"):
        assert column.to_pylist() == table[name].to_pylist()
        assert column.type == table[name].type


def test_columns_take_room_too(tmp_path: Path):
    (tmp_path / "t.csv").write_text(",".join(f"c{i}" for i in range(90_000)) + "\n")
    with pytest.raises(DataError, match="t.csv: 90000 columns would take"):
        Table.read(tmp_path / "t.csv")
    np.save(tmp_path / "t.npy", np.zeros((1, 200_000), np.uint8))
    with pytest.raises(DataError, match="200000 columns, of at most 100,000; is it transposed"):
        Table.read(tmp_path / "t.npy")


def test_pixels_are_as_many_as_their_file_explains(tmp_path: Path):
    for mode, side in (("L", 6500), ("RGB", 3500)):
        path = tmp_path / f"{mode}.png"
        Image.new(mode, (side, side)).save(path)
        with pytest.raises(DataError, match=rf"{mode}.png cannot be read: {side} x {side} pixels would take"):
            read_images(path, size=8, strict=True)


def test_rooms_add_up():
    with open(__file__, "rb") as file:
        room = Room(file)
        room.take(room.most, "all")
        with pytest.raises(DataError, match="one more would take .* MiB out of a file of"):
            room.take(1, "one more")


@pytest.mark.parametrize(
    "content",
    [
        b"\x93NUMPY\x01\x00\x10\x00{'descr': '''",
        npy("(1,)")[:-4],
        npy("(1,)", version=(9, 9)),
        npy("[[" * 99),
    ],
)
def test_headers_that_are_not_python(content: bytes, tmp_path: Path):
    (tmp_path / "t.npy").write_bytes(content)
    with pytest.raises(DataError, match="t.npy cannot be read"):
        Table.read(tmp_path / "t.npy")
