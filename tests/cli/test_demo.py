"""The demo, with tiny budgets: every file is there, and the figures it prints are what the files say."""

from __future__ import annotations

import csv
import io
import re

import diffeo
import numpy as np
import pytest
from diffeo.cli import demo
from rich.console import Console
from sklearn.metrics import roc_auc_score


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
    train, held = (rows(folder / name) for name in ("benign_train.csv", "held_out.csv"))
    names, benign, malignant = demo._breast_cancer()
    assert train.shape == (250, 30)
    assert held.shape == (107 + 212, 30)
    both = np.concatenate([train, held])
    expected = np.concatenate([benign, malignant])
    assert np.allclose(both[np.lexsort(both.T)], expected[np.lexsort(expected.T)], rtol=1e-12)
    assert np.allclose(held[107:], malignant, rtol=1e-12)
    assert next(csv.reader((folder / "held_out.csv").open())) == names


def test_the_printed_area_is_that_of_the_scores(made):
    folder, text = made
    scores = list(csv.DictReader((folder / "scores.csv").open()))
    malignant = [row["diagnosis"] == "malignant" for row in scores]
    surprise = np.nan_to_num([-float(row["log_prob"]) for row in scores])
    area = roc_auc_score(malignant, surprise)
    assert f"ROC-AUC {area:.3f}" in text
    assert area > 0.7


def test_the_gap_is_printed_and_positive(made):
    _, text = made
    found = re.search(r"gap +(-?\d+\.\d+) ± (\d+\.\d+)", text)
    assert found is not None
    assert float(found[1]) > -4 * float(found[2])


def test_the_saved_model_gives_the_scores(made):
    import torch

    folder, _ = made
    flow = diffeo.load(folder / "model.safetensors")
    with torch.no_grad():
        again = flow.log_prob(torch.from_numpy(rows(folder / "held_out.csv"))).double().numpy()
    scores = [float(row["log_prob"]) for row in csv.DictReader((folder / "scores.csv").open())]
    assert np.allclose(again, scores, rtol=1e-4, atol=1e-3)


def test_samples_have_the_tables_columns_and_are_finite(made):
    folder, _ = made
    drawn = rows(folder / "samples.csv")
    assert drawn.shape == (250, 30)
    assert np.isfinite(drawn).all()


def test_the_picture_is_a_picture(made):
    from matplotlib.image import imread

    picture = imread(made[0] / "demo.png")
    assert picture.shape[0] > 600
    assert picture.std() > 0.05


def rows(path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", skiprows=1)
