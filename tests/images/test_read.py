"""Images: folders as people have them, arrays of unknown origin, pictures written whole or not at all."""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffeo._reading import door
from diffeo.errors import ConfigError, Cure, DataError, DiffeoError, ShapeError
from diffeo.images import Images, read_images, save_grid, save_image
from diffeo.images import read as module
from diffeo.images.pictures import grid

rng = np.random.default_rng(0)


def picture(height: int = 6, width: int = 8) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth(height: int, width: int) -> Image.Image:
    """A ramp, which lossy formats keep."""
    row = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 50, height)[:, None, None]
    return Image.fromarray(np.repeat(row, 3, 2).astype(np.uint8))


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.atleast_3d(np.asarray(image)).transpose(2, 0, 1).copy())


# -- folders --------------------------------------------------------------------------------------


def test_a_folder_is_read_whole_and_in_order(tmp_path):
    (tmp_path / "b" / "deep").mkdir(parents=True)
    written = {name: picture() for name in ("b/deep/1.png", "a.png", "b/0.PNG", "c.webp")}
    for name, image in written.items():
        image.save(tmp_path / name, lossless=True)
    (tmp_path / "notes.txt").write_text("not an image, and none of our business")
    (tmp_path / ".hidden.png").write_bytes(b"")
    found = read_images(tmp_path)
    assert found.names == ["a.png", "b/0.PNG", "b/deep/1.png", "c.webp"]
    assert found.shape == (3, 6, 8)
    assert found.pixels.dtype == torch.uint8
    for name, pixels in zip(found.names, found.pixels, strict=True):
        torch.testing.assert_close(pixels, as_tensor(written[name]), rtol=0, atol=0)
    assert (found.skipped, found.changes, found.labels) == ([], {}, None)


def test_one_file(tmp_path):
    image = picture()
    image.save(tmp_path / "a.png")
    found = read_images(tmp_path / "a.png")
    assert found.names == ["a.png"]
    assert torch.equal(found.pixels[0], as_tensor(image))
    with pytest.raises(DataError, match="is one image; classes are the folders"):
        read_images(tmp_path / "a.png", labels=True)


def test_any_sizes_are_cropped_around_the_middle_then_resized(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200  # the middle square
    Image.fromarray(wide).save(tmp_path / "a.png")
    tall = np.zeros((30, 10, 3), np.uint8)
    tall[10:20] = 100
    Image.fromarray(tall).save(tmp_path / "b.png")
    picture(5, 5).save(tmp_path / "c.png")
    picture(1, 1).save(tmp_path / "d.png")
    found = read_images(tmp_path, size=5)
    assert found.shape == (3, 5, 5)
    # Lanczos looks a little beyond the crop's edge, if at all
    assert bool((found.pixels[0, :, :, 1:4].int() - 200).abs().max() <= 20)
    assert bool((found.pixels[1, :, 1:4].int() - 100).abs().max() <= 10)
    assert len(found.pixels[3].flatten(1).unique(dim=1).T) == 1
    assert found.changes == {"cropped": 2, "resized": 3}
    assert read_images(tmp_path, size=(4, 6)).shape == (3, 4, 6)


def test_sizes_that_differ_need_a_size(tmp_path):
    picture(6, 8).save(tmp_path / "a.png")
    picture(7, 5).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"a.png is 8 x 6, b.png 5 x 7; size=5 makes squares") as caught:
        read_images(tmp_path)
    assert caught.value.cure == Cure("size", 5)


def test_every_kind_of_pixel(tmp_path):
    rgb = smooth(8, 8)
    rgba = np.dstack([np.asarray(rgb), np.full((8, 8), 255, np.uint8)])
    rgba[:4, :, 3] = 0
    rgba[4, :, 3] = 128
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    rgb.quantize(256).save(tmp_path / "palette.png")
    Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    rgb.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    rgb.convert("1").save(tmp_path / "bits.png")
    rgb.save(tmp_path / "photo.webp", quality=100)
    found = read_images(tmp_path)
    by_name = dict(zip(found.names, found.pixels.int(), strict=True))
    original, gray = as_tensor(rgb).int(), as_tensor(rgb.convert("L")).int().expand(3, 8, 8)
    assert not by_name["alpha.png"][:, :4].any()
    assert torch.equal(by_name["alpha.png"][:, 5:], original[:, 5:])
    assert (by_name["alpha.png"][:, 4] - original[:, 4] * 128 / 255).abs().max() <= 1
    assert (by_name["palette.png"] - original).abs().max() <= 8
    assert torch.equal(by_name["sixteen.png"], gray)
    assert (by_name["cmyk.jpg"] - original).abs().max() <= 12
    assert set(by_name["bits.png"].unique().tolist()) == {0, 255}
    assert (by_name["photo.webp"] - original).abs().max() <= 12
    assert found.changes == {"put on black": 1, "16 bits made 8": 1, "made RGB": 2}
    gray_only = read_images(tmp_path, channels=1)
    assert gray_only.shape == (1, 8, 8)
    assert gray_only.changes["made gray"] == 4
    assert read_images(tmp_path, channels=3).changes["made RGB"] == 2


def test_transparency_of_gray_and_of_palettes(tmp_path):
    values = np.full((2, 2), 200, np.uint8)
    Image.fromarray(np.dstack([values, np.array([[0, 255], [255, 255]], np.uint8)]), "LA").save(
        tmp_path / "a.png"
    )
    Image.fromarray(values).save(tmp_path / "b.png", transparency=200)
    Image.fromarray(values).save(tmp_path / "c.png")
    found = read_images(tmp_path)
    assert found.shape == (1, 2, 2)  # all gray, so they stay so
    assert found.pixels[:, 0].tolist() == [[[0, 200], [200, 200]], [[0, 0], [0, 0]], [[200, 200], [200, 200]]]
    assert found.changes == {"put on black": 2}


def test_pictures_are_turned_as_their_tag_says(tmp_path):
    image = smooth(8, 16)
    tag = Image.Exif()
    tag[0x0112] = 6  # lies on its left side
    image.save(tmp_path / "a.jpg", exif=tag, quality=100)
    image.save(tmp_path / "b.png", exif=tag)
    found = read_images(tmp_path)
    assert found.shape == (3, 16, 8)
    upright = as_tensor(image.transpose(Image.Transpose.ROTATE_270))
    assert torch.equal(found.pixels[1], upright)
    assert (found.pixels[0].int() - upright.int()).abs().max() <= 8
    assert found.changes == {"turned upright": 2}


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [picture(), picture()]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    found = read_images(tmp_path)
    assert torch.equal(found.pixels[0], as_tensor(frames[0]))
    assert found.changes == {"first frame taken": 1}


def test_large_photos_are_decoded_at_a_fraction_and_look_the_same(tmp_path):
    image = smooth(400, 600)
    image.save(tmp_path / "a.jpg", quality=95)
    image.save(tmp_path / "b.png")
    found = read_images(tmp_path, size=16)
    assert (found.pixels[0].int() - found.pixels[1].int()).abs().max() <= 4


# -- what cannot be read ----------------------------------------------------------------------------


def broken(folder: Path) -> None:
    picture(40, 40).save(folder / "whole.png")
    data = (folder / "whole.png").read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    picture(40, 40).save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:300])
    (folder / "text.png").write_text("I am a text\x1b[31m")
    (folder / "empty.webp").write_bytes(b"")
    (folder / "moving.gif").write_bytes(b"GIF89a")
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)  # 3.6 gigapixels
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (folder / "bomb.png").write_bytes(
        png + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    )
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)  # where Pillow warns
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (folder / "large.png").write_bytes(png + data[33:])


BAD = ["bomb.png", "cut.jpg", "cut.png", "empty.webp", "large.png", "moving.gif", "text.png"]


def test_what_cannot_be_read_is_skipped_and_named(tmp_path):
    broken(tmp_path)
    found = read_images(tmp_path)
    assert found.names == ["whole.jpg", "whole.png"]
    why = dict(found.skipped)
    assert list(why) == BAD
    assert "no PNG, JPEG or WebP" in why["text.png"]
    assert "decompression bomb" in why["bomb.png"]
    assert "decompression bomb" in why["large.png"]  # only a warning of Pillow's
    assert "truncated" in why["cut.png"]


@pytest.mark.parametrize("workers", [1, 4])
def test_strict_stops_at_the_first(tmp_path, workers):
    broken(tmp_path)
    with pytest.raises(DataError, match="bomb.png cannot be read: .*bomb"):
        read_images(tmp_path, strict=True, workers=workers)
    for name in BAD:
        (tmp_path / name).unlink()
    assert len(read_images(tmp_path, strict=True)) == 2


def test_nothing_readable(tmp_path):
    with pytest.raises(DataError, match="holds no image that can be read"):
        read_images(tmp_path)
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(
        DataError, match="no image that can be read .*; 1 skipped, the first a.png: holds no PNG"
    ):
        read_images(tmp_path)
    with pytest.raises(DataError, match="a.png holds no image"):
        read_images(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError):
        read_images(tmp_path / "none")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="is not a folder, nor a PNG"):
        read_images(tmp_path / "a.txt")


def test_an_error_does_not_wait_for_the_other_files(tmp_path, monkeypatch):
    for i in range(200):
        picture(4, 4 if i < 2 else 5).save(tmp_path / f"{i:03d}.png")
    read, seen = module.Wanted.read, []
    monkeypatch.setattr(module.Wanted, "read", lambda self, path: (seen.append(path), read(self, path))[1])
    with pytest.raises(DataError, match="several sizes"):
        read_images(tmp_path, workers=1)
    assert len(seen) < 200


def test_more_than_memory_holds_is_refused(tmp_path, monkeypatch):
    for i in range(4):
        picture(10, 10).save(tmp_path / f"{i}.png")
    monkeypatch.setattr(door, "_memory", lambda: 4000)
    with pytest.raises(
        DataError, match="more than half of this machine's memory .* use fewer, or a smaller size"
    ):
        read_images(tmp_path)
    assert len(read_images(tmp_path, size=5)) == 4
    np.save(tmp_path / "a.npy", np.zeros((30, 10, 10), np.uint8))
    with pytest.raises(DataError, match="more than half"):
        read_images(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be"),
        ({"size": (4, -1)}, "size must be"),
        ({"size": 10**6}, "size must be"),
        ({"channels": 2}, "channels must be 1"),
        ({"workers": 0}, "workers must be"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        read_images(tmp_path, **options)


# -- classes --------------------------------------------------------------------------------------


def test_classes_are_the_folders(tmp_path):
    for name in ("dog/1.png", "cat/a/2.png", "dog/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(tmp_path / name)
    found = read_images(tmp_path, labels=True)
    assert found.classes == ("cat", "dog")
    assert found.names == ["cat/a/2.png", "dog/1.png", "dog/3.png"]
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 1]
    assert read_images(tmp_path).labels is None
    picture().save(tmp_path / "loose.png")
    with pytest.raises(DataError, match="loose.png lies in no folder below"):
        read_images(tmp_path, labels=True)


# -- arrays ---------------------------------------------------------------------------------------

PIXELS = rng.integers(0, 256, (5, 3, 6, 8), dtype=np.uint8)


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (PIXELS, (3, 6, 8)),
        (PIXELS.transpose(0, 2, 3, 1), (3, 6, 8)),
        (PIXELS[:, 0], (1, 6, 8)),
        (PIXELS[:, :1], (1, 6, 8)),
        (np.asfortranarray(PIXELS), (3, 6, 8)),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_of_each_layout(tmp_path, array, shape, suffix):
    path = tmp_path / f"a.{suffix}"
    np.save(path, array) if suffix == "npy" else np.savez_compressed(path, whatever=array)
    found = read_images(path)
    assert found.shape == shape
    assert torch.equal(found.pixels, torch.from_numpy(PIXELS[:, : shape[0]].copy()))
    assert found.names == ["0", "1", "2", "3", "4"]


def test_which_array_of_an_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x_test=PIXELS[:2], x_train=PIXELS, y_train=np.arange(5), y_test=np.arange(2))
    assert len(read_images(path)) == 5
    found = read_images(path, labels=True)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2, 3, 4]
    assert found.classes == ("0", "1", "2", "3", "4")
    np.savez(path, x=PIXELS)
    with pytest.raises(DataError, match="no labels for its 5 images; add an array y"):
        read_images(path, labels=True)
    np.savez(path, x=PIXELS, y=np.array([0, 1, 2, 3, -1]))
    with pytest.raises(DataError, match="not class numbers"):
        read_images(path, labels=True)
    np.savez(path, one=PIXELS, two=PIXELS)
    with pytest.raises(DataError, match=r"holds one \(5, 3, 6, 8\), two .*; images are an array x"):
        read_images(path)


def test_arrays_are_resized_and_recolored_like_files(tmp_path):
    np.save(tmp_path / "a.npy", PIXELS)
    (tmp_path / "files").mkdir()
    for i, image in enumerate(PIXELS):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "files" / f"{i}.png")
    for options in ({"size": 4}, {"channels": 1}, {"size": (3, 9), "channels": 1}):
        one, other = (read_images(tmp_path / name, **options) for name in ("a.npy", "files"))
        assert torch.equal(one.pixels, other.pixels)
        assert one.changes == other.changes
    np.save(tmp_path / "b.npy", np.concatenate([PIXELS, 255 - 0 * PIXELS[:, :1]], 1).transpose(0, 2, 3, 1))
    assert torch.equal(read_images(tmp_path / "b.npy").pixels, torch.from_numpy(PIXELS))


def header(shape: str, descr: str = "'|u1'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (63 - (len(text) + 10) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode("latin1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("(1000000000, 3, 1000, 1000)") + b"\0" * 64, "truncated, damaged"),
        (header("(-1, 2, 2)") + b"\0" * 4, "truncated, damaged"),
        (header("(2, 2, 2)") + b"\0" * 7, "truncated, damaged"),
        (header("(2, 2, 2)") + b"\0" * 9, "truncated, damaged"),
        (header("(1, 2, 2)", "'|O'") + b"\0" * 32, "Python objects, which are never read"),
        (header("(1, 2, 2)", "'<f4'") + b"\0" * 16, "holds float32; images are uint8"),
        (header("(1, 2, 2)", "'<i8'") + b"\0" * 32, "holds int64; images are uint8"),
        (header("(1, 2, 2)", "__import__('os')") + b"\0" * 4, "truncated, damaged"),
        (header("(0, 2, 2)"), "holds no image"),
        (header("(4, 4)") + b"\0" * 16, r"shape \(4, 4\); images are"),
        (header("(1, 5, 2, 2)") + b"\0" * 20, r"shape \(1, 5, 2, 2\); images are"),
        (header("(1, 3, 2, 3)") + b"\0" * 18, "channels may come first or last"),
        (header("(1, 2, 2)")[:20], "truncated, damaged"),
        (b"", "truncated, damaged|is empty"),
        (b"PK\x03\x04 but no archive", "truncated, damaged"),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_hostile_arrays_are_refused_by_one_line(tmp_path, content, message, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", content)
        if "(4, 4)" in message.replace("\\", ""):
            message = r"holds x \(4, 4\); images are an array x"
    with pytest.raises(DataError, match=message) as caught:
        read_images(path)
    assert "\n" not in str(caught.value)


def test_archives_that_lie_about_their_size(tmp_path, monkeypatch):
    honest = tmp_path / "honest.npz"
    with zipfile.ZipFile(honest, "w", zipfile.ZIP_DEFLATED) as archive:  # 50 MB in 50 kB
        archive.writestr("x.npy", header("(50, 1000, 1000)") + b"\0" * 50_000_000)
    assert honest.stat().st_size < 100_000
    monkeypatch.setattr(door, "_memory", lambda: 20_000_000)

    def never(*args, **options):
        raise AssertionError("memory was taken")

    monkeypatch.setattr(np, "empty", never)
    with pytest.raises(DataError, match="more than half of this machine's memory"):
        read_images(honest)
    data = honest.read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="truncated, damaged"):
        read_images(tmp_path / "cut.npz")


def test_a_damaged_member(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=PIXELS)
    data = bytearray(path.read_bytes())
    data[400] ^= 255
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged .*CRC"):
        read_images(path)


def test_images_of_what_holds_some(tmp_path):
    np.save(tmp_path / "a.npy", PIXELS)
    for data in (
        PIXELS,
        torch.from_numpy(PIXELS),
        tmp_path / "a.npy",
        str(tmp_path / "a.npy"),
        Images.of(PIXELS),
    ):
        assert torch.equal(Images.of(data).pixels, torch.from_numpy(PIXELS))
    for bad in (PIXELS / 255, PIXELS[:, 0], PIXELS[:, :2], PIXELS[:0], PIXELS.astype(int)):
        with pytest.raises(DataError, match="images"):
            Images.of(bad)


# -- writing --------------------------------------------------------------------------------------


def test_images_come_back_as_they_were_written(tmp_path):
    for channels in (1, 3):
        pixels = torch.from_numpy(PIXELS[0, :channels].copy())
        save_image(pixels, tmp_path / "a.png")
        assert torch.equal(read_images(tmp_path / "a.png").pixels[0], pixels)
        save_image(pixels.double(), tmp_path / "a.png")
        assert torch.equal(read_images(tmp_path / "a.png").pixels[0], pixels)


def test_a_grid_has_every_image_in_its_place(tmp_path):
    pixels = torch.from_numpy(PIXELS)
    save_grid(pixels, tmp_path / "a.png", columns=3, zoom=2, gap=1)
    found = read_images(tmp_path / "a.png").pixels[0]
    assert found.shape == (3, 2 * 12 + 1, 3 * 16 + 2)
    for i in range(5):
        top, left = i // 3 * 13, i % 3 * 17
        tile = found[:, top : top + 12, left : left + 16]
        assert torch.equal(tile[:, ::2, ::2], pixels[i])
        assert torch.equal(tile[:, 1::2, 1::2], pixels[i])
    assert bool((found[:, 12] == 128).all())
    assert bool((found[:, 13:, 34:] == 128).all())  # no sixth image
    assert grid(pixels, zoom=1).shape == (3, 2 * 8 - 2, 3 * 10 - 2)
    assert grid(pixels, columns=100, zoom=1).shape == (3, 6, 5 * 10 - 2)
    assert 400 < grid(pixels).shape[2] <= 600
    assert grid(torch.zeros(1, 1, 700, 700)).shape == (1, 700, 700)


@pytest.mark.parametrize(
    ("pixels", "name", "error", "message"),
    [
        (torch.zeros(2, 4, 4), "a.png", ShapeError, "C = 1 or 3"),
        (torch.zeros(4, 4), "a.png", ShapeError, "C = 1 or 3"),
        (torch.full((1, 4, 4), 256), "a.png", DataError, "from 0 to 255"),
        (torch.full((1, 4, 4), 0.5), "a.png", DataError, "from 0 to 255"),
        (torch.full((1, 4, 4), math.nan), "a.png", DataError, "from 0 to 255"),
        (torch.zeros(1, 4, 4), "a.jpg", DataError, "name it .png"),
        (torch.zeros(1, 4, 4), "no/a.png", DataError, "does not exist"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, pixels, name, error, message):
    with pytest.raises(error, match=message):
        save_image(pixels, tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_failing_writer_keeps_the_old_picture(tmp_path, monkeypatch):
    save_image(torch.zeros(1, 2, 2), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def fail(self, file, format):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        save_image(torch.ones(1, 2, 2), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


def test_errors_are_of_this_package(tmp_path):
    assert issubclass(DataError, DiffeoError)
    buffer = io.BytesIO()
    np.save(buffer, PIXELS)
    (tmp_path / "a.npz").write_bytes(b"-" + buffer.getvalue())
    with pytest.raises(DataError, match="truncated, damaged"):
        read_images(tmp_path / "a.npz")


def test_what_a_mask_hides_is_missing():
    pixels = np.ma.array(np.zeros((3, 1, 2, 2), np.uint8))
    pixels[1, 0, 1, 1] = np.ma.masked
    with pytest.raises(DataError, match=r"1 masked \(missing\) values, the first in image 1; fill"):
        Images.of(pixels)
    assert len(Images.of(pixels[::2])) == 2
