"""The demo, with tiny budgets: every file is there, and the figures it prints are what the files say."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from diffeo.cli import demo
from diffeo.cli.app import app
from diffeo.tables.table import Table


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "new" / "folder"
    console = Console(file=io.StringIO(), width=60)
    demo.run(folder, console, seconds=3.0)
    return folder, console.file.getvalue()


def test_leaves_the_files_it_names_and_no_others(made):
    folder, text = made
    assert sorted(p.name for p in folder.iterdir()) == sorted(demo.FILES)
    assert all(p.stat().st_size for p in folder.iterdir())
    assert all(name in text for name in demo.FILES)


def test_the_split_keeps_malignant_rows_out_of_training(made):
    folder, _ = made
    train, held = (Table.read(folder / name) for name in ("benign_train.csv", "held_out.csv"))
    names, benign, malignant = demo._breast_cancer()
    assert train.names == tuple(names)
    assert held.names == ("malignant", *names)
    assert (held.column("malignant") == [0] * 107 + [1] * 212).all()
    held = held.drop(["malignant"])
    both = np.concatenate([train.values, held.values])
    expected = np.concatenate([benign, malignant])
    assert np.array_equal(both[np.lexsort(both.T)], expected[np.lexsort(expected.T)])
    assert np.array_equal(held.values[107:], malignant)


def test_the_printed_area_is_that_of_the_files(made):
    folder, text = made
    malignant = Table.read(folder / "held_out.csv").column("malignant")
    surprise = np.nan_to_num(-rows(folder / "scores.csv")[:, 0])
    area = roc_auc_score(malignant, surprise)
    assert f"ROC-AUC {area:.3f}" in text
    assert area > 0.7


def test_the_gap_is_printed_and_positive(made):
    _, text = made
    found = re.search(r"the gap +(-?\d+\.\d+) ± (\d+\.\d+)", text)
    assert found is not None
    assert float(found[1]) > -4 * float(found[2])


def test_the_commands_it_names_give_the_same_files(made, tmp_path):
    folder, text = made
    for file in ("scores.csv", "samples.csv"):
        command = next(line for line in text.splitlines() if f"-o {file}" in line)
        arguments = command.split()[1:]
        known = {name: str(folder / name) for name in ("model.safetensors", "held_out.csv")}
        arguments = [str(tmp_path / file) if a == file else known.get(a, a) for a in arguments]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert np.allclose(rows(tmp_path / file), rows(folder / file), rtol=1e-6)


def test_samples_have_the_tables_columns(made):
    folder, _ = made
    drawn, train = (Table.read(folder / name) for name in ("samples.csv", "benign_train.csv"))
    assert drawn.names == train.names
    assert drawn.dtypes == train.dtypes
    assert len(drawn) == 250


def test_the_picture_is_a_picture(made):
    from matplotlib.image import imread

    picture = imread(made[0] / "demo.png")
    assert picture.shape[0] > 600
    assert picture.std() > 0.05


def rows(path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", skiprows=1)
