"""``diffeo images``: what it prints, writes, refuses, and how it ends."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import diffeo
from diffeo.cli import options
from diffeo.cli.app import app
from diffeo.cli.images import images
from diffeo.contexts import Classes
from diffeo.errors import ConfigError
from diffeo.images import read_images, sample_images, score_images
from diffeo.images.pictures import grid
from diffeo.latents import interpolate
from diffeo.presets import Glow, PixelFlow
from diffeo.tables import Table

COMMANDS = ("fit", "sample", "interpolate", "score", "reconstruct")
SMALL = ("--set", "levels=1", "--set", "layers=1", "--set", "hidden=4", "--max-seconds", "0.2")


def picture(seed: int, height: int = 8, width: int = 8) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray((rng.integers(40, 200) + rng.integers(0, 9, (height, width, 3))).astype(np.uint8))


def model(context=None) -> diffeo.Flow:
    torch.manual_seed(0)
    flow = Glow((3, 4, 4), context, levels=1, layers=2, hidden=4).build(
        diffeo.encodings.Dequantization((3, 4, 4))
    )
    diffeo.testing.randomize_(flow, 0, 0.1)
    return flow.eval()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Photographs of two kinds, a broken one, a model of them, and a model with classes."""
    monkeypatch.chdir(tmp_path)
    for i in range(12):
        path = Path("photos", ("cat", "dog")[i % 2], f"{i:02d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(i, 8, 8 + i % 3).save(path)
    Path("photos/cat/broken.png").write_text("I am no picture")
    diffeo.save(model(), "m")
    flow = model(Classes(2))
    flow.notes = {"classes": ["cat", "dog"]}
    diffeo.save(flow, "c")

    def call(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["images", *arguments])
        assert result.exit_code == code, (result.output, result.exception)
        if code == 2:
            assert "Traceback" not in result.output
        return result.output

    return call


# -- the main jobs --------------------------------------------------------------------------------


def test_fit_says_what_it_did_and_how_good_it_is(run):
    text = run("fit", "photos", "-o", "new", "--size", "4", *SMALL, "--samples", "seen")
    lines = text.splitlines()
    assert lines[0] == "12 images, RGB, 4 x 4 (height x width)"
    assert lines[1] == "changed: cropped 8, resized 12"
    assert lines[2:4] == ["skipped 1, which cannot be read:", "  cat/broken.png: holds no PNG, JPEG or WebP"]
    table = {line.rsplit(None, 1)[0]: float(line.split()[-1]) for line in lines[7:10]}
    assert list(table) == ["this flow", "independent pixels", "uniform"]
    assert table["uniform"] == 8
    assert re.fullmatch(r"The flow needs [\d.]+ bits .*independent pixels.*", lines[10])
    assert lines[-1] == "wrote new"
    assert diffeo.load("new").event_shape == (3, 4, 4)
    assert "step-000000.png" in os.listdir("seen")
    info = CliRunner().invoke(app, ["info", "new"]).output
    assert "preset      Glow" in info
    assert "pixels      8 bits, variational noise" in info
    assert "images      12" in info
    assert f"valid {round(table['this flow'], 2):.2f}"[:-1] in info


def test_fit_passes_its_options_on(run, monkeypatch):
    asked = {}

    def fit_images(found, **options):
        asked.update(options, found=found)
        raise KeyboardInterrupt

    monkeypatch.setattr(diffeo, "fit_images", fit_images, raising=False)
    text = run(
        "fit", "photos", "-o", "new", "--preset", "realnvpimage", "--set", "blocks=2", "--size", "4x8",
        "--bits", "5", "--gray", "--classes", "--uniform", "--flips", "--max-seconds", "7", "--seed", "3",
        "--samples", "s", "--tensorboard", "t", "--checkpoint", "k", "--max-steps", "50", code=130,
    )  # fmt: skip
    assert "interrupted" in text
    assert "2 classes: cat, dog" in text
    preset = asked["preset"]
    assert (type(preset).__name__, preset.shape, preset.blocks, preset.levels) == (
        "RealNVPImage",
        (1, 4, 8),
        2,
        2,
    )
    assert preset.context == Classes(2)
    assert asked["found"].labels.tolist() == [0] * 6 + [1] * 6
    assert [asked[name] for name in ("flips", "max_seconds", "max_steps", "seed")] == [True, 7, 50, 3]
    assert asked["bits"] is None
    door = asked["encoding"]
    assert (door.event_shape, door.bits, door.noise.shape) == ((1, 4, 8), 5, None)
    assert [asked[name] for name in ("samples", "tensorboard")] == [Path("s"), Path("t")]
    assert asked["checkpoint"].path == Path("k")
    run("fit", "photos", "-o", "new", "--size", "4", code=130)
    assert asked["checkpoint"] is None
    assert (asked["bits"], asked["encoding"]) == (8, None)
    assert sorted(os.listdir()) == ["c", "m", "photos"]


def test_a_run_that_was_stopped_goes_on(run, monkeypatch):
    """The same command, once to its end and once in two parts, writes the same weights."""
    arguments = ("photos", "--size", "4", "--flips", *SMALL, "--max-steps", "40")
    fit_images = diffeo.fit_images

    class Stop:
        def on_progress(self, progress):
            if progress.step >= 20:
                raise KeyboardInterrupt

    def part(found, *, checkpoint, max_seconds, **more):
        if checkpoint is not None:
            checkpoint.every_seconds = 0.0
        return fit_images(found, callbacks=stops, checkpoint=checkpoint, **more)

    monkeypatch.setattr(diffeo, "fit_images", part, raising=False)
    stops: list = []
    run("fit", *arguments, "-o", "whole")
    stops = [Stop()]
    assert "interrupted" in run("fit", *arguments, "-o", "parts", "--checkpoint", "parts.run", code=130)
    assert "parts.run" in os.listdir()
    assert "parts" not in os.listdir()
    stops = []
    run("fit", *arguments, "-o", "parts", "--checkpoint", "parts.run")
    assert "parts.run" not in os.listdir()
    whole, parts = (diffeo.load(name).state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_sample_draws_what_python_draws(run):
    run("sample", "m", "-o", "a.png", "-n", "70", "--columns", "7", "--seed", "3")
    flow = diffeo.load("m")
    assert torch.equal(read_images("a.png").pixels[0], grid(sample_images(flow, 70, seed=3), 7))
    run("sample", "m", "-o", "b.png", "--seed", "3", "--temperature", "0.3")
    cool = sample_images(flow, 16, temperature=0.3, seed=3)
    assert torch.equal(read_images("b.png").pixels[0], grid(cool))
    for name in ("c.png", "d.png"):
        run("sample", "m", "-o", name)
    assert Path("c.png").read_bytes() != Path("d.png").read_bytes()


def test_sample_of_a_model_with_classes(run):
    flow = diffeo.load("c")
    for given in ("dog", "0", None):
        options = [] if given is None else ["--given", given]
        run("sample", "c", "-o", "a.png", "-n", "4", "--seed", "1", *options)
        drawn = sample_images(flow, 4, given=given, seed=1)
        assert torch.equal(read_images("a.png").pixels[0], grid(drawn))


def test_interpolate_goes_from_one_to_the_other(run):
    text = run("interpolate", "m", "photos/cat/00.png", "photos/dog/01.png", "-o", "a.png", "--steps", "5")
    assert text.count("1 image, RGB, 4 x 4") == 2
    ends = [read_images(f"photos/{name}.png", size=4).pixels for name in ("cat/00", "dog/01")]
    strip = interpolate(diffeo.load("m"), ends[0], ends[1], 5)[:, 0]
    assert torch.equal(strip[0], ends[0][0])
    assert torch.equal(strip[-1], ends[1][0])
    assert torch.equal(read_images("a.png").pixels[0], grid(strip, 5))


def test_interpolate_asks_for_the_class_and_stays_where_the_base_is(run):
    diffeo.save(model(Classes(2)), "c2")
    assert "--given 0" in run(
        "interpolate", "c2", "photos/cat/00.png", "photos/dog/01.png", "-o", "a.png", code=2
    )
    shape = (3, 4, 4)
    preset = PixelFlow(shape, hidden=4, blocks=1, bins=4)
    diffeo.save(preset.build(preset.encoding()), "p")
    run("interpolate", "p", "photos/cat/00.png", "photos/dog/01.png", "-o", "a.png")


def test_score_names_every_image(run):
    text = run("score", "m", "photos", "-o", "s.csv", "--draws", "4")
    assert "skipped 1" in text
    with open("s.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = read_images("photos", size=4, channels=3)
    scores = score_images(diffeo.load("m"), found, num_draws=4)
    assert [row["name"] for row in rows] == found.names
    np.testing.assert_allclose([float(row["bits_per_dim"]) for row in rows], scores.bits_per_dim)
    np.testing.assert_allclose([float(row["log_prob"]) for row in rows], scores.log_prob)
    run("score", "m", "photos", "-o", "s.npz")
    with np.load("s.npz", allow_pickle=False) as archive:
        assert archive["name"].tolist() == found.names
    assert "cat/00.png" in run("score", "m", "photos", "-o", "-")


def test_scores_of_a_model_with_classes(run):
    run("score", "c", "photos", "-o", "s.parquet", "--given", "dog")
    found = read_images("photos", size=4, channels=3)
    want = score_images(diffeo.load("c"), found, given=1)
    from pyarrow import parquet

    table = parquet.read_table("s.parquet")
    np.testing.assert_allclose(table["log_prob"].to_numpy(), want.log_prob)


def test_reconstruct_shows_both_and_says_how_far_they_are(run):
    text = run("reconstruct", "m", "photos", "-o", "a.png", "-n", "5")
    assert text.splitlines()[-1] == "largest pixel error 0 of 255; 0.00% of the pixels differ"
    shown = read_images("photos", size=4).pixels[:5]
    assert torch.equal(read_images("a.png").pixels[0], grid(torch.cat([shown, shown]), 5))


def test_names_cannot_write_to_the_terminal(run):
    Path("photos/cat/\x1b[31m.png").write_bytes(b"")
    assert "\x1b" not in run("score", "m", "photos", "-o", "s.csv")
    assert "?[31m.png" in run("score", "m", "photos/cat/\x1b[31m.png", "-o", "s.csv", code=2)


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "fit photos -o new",
            r"photos holds images of several sizes: .*; size=8 makes squares.* line: --size 8\.",
        ),
        ("fit photos -o new --size 4 --strict", "cat/broken.png cannot be read"),
        ("fit photos -o new --size 4x4x4", "'4x4x4' is not a size"),
        ("fit photos -o new --size -4", "'-4' is not a size"),
        ("fit photos -o new --size 0", "size must be"),
        ("fit photos -o new --size 5", "5 x 5 pixels do not divide"),
        ("fit none -o new --size 4", "none does not exist"),
        ("fit m -o new --size 4", "m is not a folder, nor a PNG"),
        ("fit photos -o no/new", "folder no does not exist"),
        ("fit photos -o new --checkpoint no/k", "folder no does not exist"),
        ("fit photos -o new --checkpoint new", "--output and --checkpoint are both"),
        ("fit photos -o new --samples no/s", "folder no does not exist"),
        ("fit photos -o new --samples m", "m is a file"),
        ("fit photos -o new --tensorboard m", "m is a file"),
        ("fit photos -o new --preset nsf", "NSF is for tables: use diffeo fit, or one of .*Glow"),
        ("fit photos -o new --preset glue", "no preset 'glue'; there are .*Glow"),
        ("fit photos -o new --set shape=3", "the images decide this; its fields are .*levels"),
        ("fit photos -o new --set bins=3", "Glow has no field 'bins'"),
        ("fit photos/cat -o new --size 4 --classes", "00.png lies in no folder below photos/cat"),
        ("sample none -o a.png", "none does not exist"),
        ("sample photos -o a.png", "is a folder, not a model"),
        ("sample m -o a.jpg", "name it .png"),
        ("sample m -o no/a.png", "does not exist"),
        ("sample m -o a.png --given dog", "this model is conditioned on nothing"),
        ("sample c -o a.png --given 2", "this model knows no class '2'; its classes: cat, dog"),
        ("sample t -o a.png", "was not fitted to images; score_table"),
        ("score c photos -o s.csv", "on a class; pass given=.*cat, dog. On the command line: --given cat"),
        ("score m photos -o s.npy", "unknown kind of table"),
        ("score m photos -o s.xls", "unknown kind of table"),
        ("score m m -o s.csv", "is not a folder"),
        ("interpolate m photos/cat/00.png photos/cat/broken.png -o a.png", "broken.png cannot be read"),
        ("interpolate m photos/cat/00.png none.png -o a.png", "none.png does not exist"),
        ("interpolate m photos/cat/00.png photos/cat/02.png -o photos/cat/00.png", "A and --output are both"),
        ("reconstruct m photos -o a", "name it .png"),
        ("reconstruct m photos/cat/broken.png -o a.png", "no image that can be read"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(run, arguments, message):
    diffeo.save(diffeo.presets.NSF(features=2, layers=1, hidden=4).build(), "t")
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    text = run(*arguments.split(), *(SMALL[-2:] if arguments.startswith("fit") else ()), code=2)
    assert re.fullmatch(rf"diffeo: error: .*{message}.*", text.splitlines()[-1]), text
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


@pytest.mark.parametrize(
    "arguments",
    [
        "fit photos",
        "fit photos -o new --bits 9",
        "sample m -o a.png -n 0",
        "sample m -o a.png --temperature 0",
        "interpolate m a b -o c.png --steps 1",
        "score m photos -o s.csv --draws 0",
        "nope",
    ],
)
def test_usage_errors(run, arguments):
    run(*arguments.split(), code=2)


def test_the_two_kinds_of_model_and_preset_are_kept_apart(run):
    Table.of(np.random.default_rng(0).normal(size=(30, 2))).write("t.csv")
    for arguments, message in (
        ("fit t.csv -o new --preset glow", "Glow is for images: use diffeo images fit, or one of .*NSF"),
        ("score m t.csv -o s.csv", "fitted to images, not to a table"),
        ("sample m -o s.csv", "fitted to images, not to a table"),
    ):
        result = CliRunner().invoke(app, arguments.split())
        assert result.exit_code == 2
        assert re.fullmatch(rf"diffeo: error: .*{message}.*\n", result.output), result.output


def test_without_tensorboard_nothing_is_begun(run, monkeypatch):
    for name in ("torch.utils.tensorboard", "tensorboard"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    text = run("fit", "photos", "-o", "new", "--size", "4", "--tensorboard", "tb", code=2)
    assert text == "diffeo: error: TensorBoard is not installed: pip install 'diffeo[images]'\n"
    assert "tb" not in os.listdir()


# -- help and options -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(run, command):
    assert f"Example: diffeo images {command}" in " ".join(run(command, "--help").split())


def test_the_commands_are_these(run):
    assert {c.callback.__name__ for c in images.registered_commands if c.callback} == set(COMMANDS)
    assert "diffeo images fit" in run("--help")


@pytest.mark.parametrize(
    ("text", "size"), [(None, None), ("64", (64, 64)), ("48x64", (48, 64)), ("8X9", (8, 9))]
)
def test_sizes(text, size):
    assert options.parse_size(text) == size


def test_presets_of_images_in_any_case():
    assert options.preset_class("gLOW", images=True) is Glow
    with pytest.raises(ConfigError, match="is for images"):
        options.preset_class("Glow")
