"""``diffeo distill``: what it prints, writes and refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import diffeo
import diffeo.io
from diffeo.cli.app import app
from diffeo.contexts import Classes
from diffeo.presets import MAF, Glow, RealNVP


def run(*arguments: object):
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two teachers, one of them conditioned on a column, and the table they were fitted to."""
    found = tmp_path_factory.mktemp("distill")
    rng = np.random.default_rng(0)
    size = rng.normal(size=300)
    table = diffeo.Table.of({"size": size, "age": size + rng.normal(size=300)})
    table.write(found / "table.csv")
    for name, given in (("plain", []), ("given", ["age"])):
        preset = MAF(2 - len(given), context=len(given) or None, layers=2, hidden=(8,))
        flow, _ = diffeo.fit_table(table, given=given, preset=preset, max_seconds=1)
        diffeo.save(flow, found / f"{name}.safetensors")
    return found


def test_a_student_is_written(folder: Path):
    out = folder / "student.safetensors"
    result = run("distill", folder / "plain.safetensors", "-o", out, "--max-seconds", 2, "--seed", 3)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("teacher  MAF, ")
    assert lines[1].startswith("student  IAF, ")
    assert "KL(teacher || student)" in lines[4]
    assert lines[-1] == f"wrote {out}"
    assert diffeo.io.inspect(out).notes["teacher"] == "plain.safetensors"
    assert {"forward KL", "reverse KL", "ESS"} == set(diffeo.io.inspect(out).notes["distilled"])
    for command in (["score", out, folder / "table.csv"], ["sample", out], ["info", out]):
        output = [] if command[0] == "info" else ["-o", folder / "out.csv"]
        assert run(*command, *output).exit_code == 0


def test_a_preset_and_its_fields(folder: Path):
    out = folder / "coupling.safetensors"
    options = ["--preset", "realnvp", "--set", "layers=2", "--max-seconds", 1]
    result = run("distill", folder / "plain.safetensors", "-o", out, *options)
    assert result.exit_code == 0, result.output
    assert "student  RealNVP" in result.stdout
    preset = diffeo.load(out).preset
    assert isinstance(preset, RealNVP)
    assert preset.layers == 2


def test_a_conditioned_teacher_takes_a_table(folder: Path):
    model, out = folder / "given.safetensors", folder / "s.safetensors"
    table = ["--given-table", folder / "table.csv"]
    result = run("distill", model, "-o", out, *table, "--max-seconds", 1)
    assert result.exit_code == 0, result.output
    assert run("sample", out, "-o", folder / "out.csv", "--given", "age=1").exit_code == 0
    refused = run("distill", model, "-o", out)
    assert refused.exit_code == 2
    assert "--given-table" in refused.stderr
    refused = run("distill", folder / "plain.safetensors", "-o", out, *table)
    assert refused.exit_code == 2
    assert "takes no context" in refused.stderr
    diffeo.Table.of({"size": [1.0, 2.0]}).write(folder / "other.csv")
    refused = run("distill", model, "-o", out, "--given-table", folder / "other.csv")
    assert refused.exit_code == 2
    assert "no column 'age' in this table" in refused.stderr


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--set", "layers=2"], "--set needs --preset"),
        (["--preset", "nonsense"], "there is no preset"),
        (["--preset", "IAF", "--set", "features=2"], "table decides"),
    ],
)
def test_wrong_options_are_one_line(folder: Path, options: list[str], why: str):
    result = run("distill", folder / "plain.safetensors", "-o", folder / "x.safetensors", *options)
    assert result.exit_code == 2
    assert why in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (folder / "x.safetensors").exists()


def test_models_of_images_are_for_python(folder: Path):
    preset = Glow((1, 4, 4), Classes(2), levels=1, layers=1, hidden=4)
    diffeo.save(preset.build(preset.encoding()), folder / "images.safetensors")
    result = run("distill", folder / "images.safetensors", "-o", folder / "x.safetensors")
    assert result.exit_code == 2
    assert "is a model of images; diffeo.distill in Python takes it" in result.stderr


def test_the_teacher_is_not_overwritten(folder: Path):
    result = run("distill", folder / "plain.safetensors", "-o", folder / "plain.safetensors")
    assert result.exit_code == 2
    assert "name two different files" in result.stderr
