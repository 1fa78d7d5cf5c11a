"""What a command writes: never over what it reads, and never lost."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import diffeo
from diffeo.cli.app import app
from diffeo.train import Checkpoint

SMALL = "--preset nsf --set layers=1 --set hidden=8 --max-steps 3"
IMAGES = "--set levels=1 --set layers=1 --set hidden=4 --max-steps 2"
RING = "def log_prob(x):\n    return -x.square().sum(-1)\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table, images, a target, and a model of each."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    table = diffeo.Table.from_columns({"a": rng.normal(size=60), "b": rng.normal(size=60)})
    table.write(folder / "t.csv")
    (folder / "ring.py").write_text(RING)
    (folder / "d.json").write_text("{}")
    (folder / "m.stan").write_text("")
    (folder / "photos").mkdir()
    pixels = rng.integers(0, 256, (12, 1, 4, 4)).astype(np.uint8)
    for i, image in enumerate(pixels):
        diffeo.images.save_image(torch.from_numpy(image), folder / "photos" / f"{i:02}.png")
    flow, _ = diffeo.fit_table(table, preset=diffeo.presets.NSF(2, layers=1, hidden=8), max_steps=1)
    diffeo.save(flow, folder / "m.csv")  # named like a table, to be in the way
    flow, _ = diffeo.fit_images(
        pixels, preset=diffeo.presets.Glow((1, 4, 4), levels=1, layers=1, hidden=4), max_steps=1
    )
    diffeo.save(flow, folder / "i.png")
    torch.manual_seed(0)
    diffeo.save(diffeo.presets.NSF(2, layers=1, hidden=8).build(), folder / "v.csv")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def run(command: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


CLASHES = {
    "fit": ("fit {} -o OUT", "t.csv"),
    "fit to its checkpoint": ("fit t.csv -o {} --checkpoint OUT", "m.csv"),
    "fit to an input checkpoint": ("fit {} -o new --checkpoint OUT", "t.csv"),
    "score": ("score m.csv {} -o OUT", "t.csv"),
    "score its model": ("score {} t.csv -o OUT", "m.csv"),
    "score and append": ("score m.csv {} -o OUT --append", "t.csv"),
    "sample its model": ("sample {} -o OUT", "m.csv"),
    "sample given": ("sample m.csv --given-table {} -o OUT", "t.csv"),
    "distill": ("distill {} -o OUT", "m.csv"),
    "distill given": ("distill m.csv --given-table {} -o OUT", "t.csv"),
    "target": ("target fit {} -o OUT", "m.stan"),
    "a target's module": ("target fit ring:log_prob --dim 2 -o OUT", "ring.py"),
    "a target's data": ("target fit m.stan --data {} -o OUT", "d.json"),
    "a target's draws": ("target sample {} ring:log_prob -o OUT", "v.csv"),
    "images": ("images fit {} -o OUT", "photos/00.png"),
    "images score": ("images score {} photos -o OUT.csv", "i.png"),
    "images sample": ("images sample {} -o OUT", "i.png"),
    "images reconstruct": ("images reconstruct i.png {} -o OUT", "photos/00.png"),
    "images interpolate": ("images interpolate i.png photos/01.png {} -o OUT", "photos/00.png"),
    "images interpolate its model": ("images interpolate {} photos/01.png photos/00.png -o OUT", "i.png"),
}


@pytest.mark.parametrize("spelling", ["as it is", "a detour", "a link", "a hard link"])
@pytest.mark.parametrize("name", CLASHES)
def test_no_input_is_written_over(folder: Path, name: str, spelling: str):
    command, file = CLASHES[name]
    end = Path(file).suffix
    if "OUT.csv" in command:
        end, command = ".csv", command.replace("OUT.csv", "OUT")
        if spelling in ("as it is", "a detour"):
            pytest.skip("of another kind by its name")
    out = {"as it is": file, "a detour": f"./photos/../{file}"}.get(spelling, f"out{end}")
    if spelling == "a link":
        Path(out).symlink_to(folder / file)
    elif spelling == "a hard link":
        os.link(file, out)
    before = contents(folder)
    message = run(command.replace("{}", file).replace("OUT", out), code=2)
    assert "name two different files" in message
    assert message.count("\n") == 1
    assert contents(folder) == before


@pytest.mark.parametrize(
    "command",
    ["images reconstruct i.png photos -o photos/03.png", "images fit photos -o photos/03.png"],
)
def test_no_image_of_a_folder_is_written_over(folder: Path, command: str):
    before = contents(folder)
    assert "is one of the files in IMAGES" in run(command, code=2)
    assert contents(folder) == before


@pytest.mark.parametrize("option", ["--samples", "--tensorboard"])
@pytest.mark.parametrize("inside", ["photos", "photos/seen"])
def test_previews_are_not_put_among_the_images(folder: Path, option: str, inside: str):
    before = contents(folder)
    assert "lies in IMAGES" in run(f"images fit photos -o new {option} {inside}", code=2)
    assert contents(folder) == before


# -- a save that fails ----------------------------------------------------------------------------

LONG = {
    "fit": f"fit t.csv {SMALL} -o sub/new",
    "images fit": f"images fit photos {IMAGES} -o sub/new",
    "target fit": f"target fit ring:log_prob --dim 2 {SMALL} -o sub/new",
    "distill": f"distill v.csv {SMALL} -o sub/new",
}


def unlucky(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The folder goes away, or the disk is full, when the first model is saved."""
    save, tries = diffeo.save, [0]

    def fails(flow: diffeo.Flow, path: Any, **more: Any) -> None:
        tries[0] += 1
        if tries[0] == 1 and how == "a full disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if tries[0] == 1:
            shutil.rmtree("sub")
        save(flow, path, **more)

    monkeypatch.setattr(diffeo, "save", fails, raising=False)


@pytest.mark.parametrize("how", ["a full disk", "a folder that went away"])
@pytest.mark.parametrize("command", LONG.values(), ids=LONG.keys())
def test_the_run_is_kept_where_the_model_cannot_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, how: str
):
    Path("sub").mkdir()
    unlucky(monkeypatch, how)
    message = run(f"{command} --checkpoint r.run", code=2).splitlines()[-1]
    assert "sub/new cannot be written (No " in message
    assert "the run is kept in r.run: mend this and run the same command again" in message
    Path("sub").mkdir(exist_ok=True)
    monkeypatch.setattr("diffeo.train.loop.Run._train_step", None)  # it has been trained
    run(f"{command} --checkpoint r.run")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    again = diffeo.load("sub/new").state_dict()
    assert not Path("r.run").exists()
    run(command.replace("sub/new", "whole"))
    whole = diffeo.load("whole").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


@pytest.mark.parametrize("how", ["a full disk", "a folder that went away"])
def test_without_a_checkpoint_the_model_is_put_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, how: str
):
    Path("sub").mkdir()
    unlucky(monkeypatch, how)
    message = run(LONG["fit"], code=2).splitlines()[-1]
    where = Path(message.split("the model is in ")[1].split(" instead")[0])
    assert diffeo.load(where).event_shape == (2,)
    shutil.rmtree(where.parent)


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run")

    rows = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(Checkpoint, "_write", full)
    report = diffeo.fit(diffeo.presets.NSF(2).build(), rows, max_steps=5, checkpoint="run")
    assert report.steps == 5
    assert "No space left" in caplog.text
    assert not Path("run").exists()


# -- two runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", LONG.values(), ids=LONG.keys())
def test_the_second_run_on_a_checkpoint_is_refused(folder: Path, command: str):
    Path("sub").mkdir()
    with Checkpoint("r.run").held():
        before = contents(folder)
        message = run(f"{command} --checkpoint r.run", code=2)
        assert message.count("\n") == 1
        assert "r.run is in use by another run; wait for its end" in message
        assert contents(folder) == before
    run(f"{command} --checkpoint r.run")
    assert not [name for name in os.listdir() if name.startswith(".diffeo") or name == "r.run"]
