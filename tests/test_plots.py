"""Plots: each helper draws what it says on the axes it is given, without a display."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from diffeo import plots
from diffeo.data.toys import TOYS
from diffeo.errors import ShapeError
from diffeo.train.report import FitReport, Point

matplotlib.use("Agg")


@pytest.fixture
def ax():
    figure = Figure()
    yield figure.add_subplot()
    figure.canvas.draw()  # whatever was drawn can be rendered


def test_density_puts_each_value_in_its_place(ax):
    """A peak near (2, -1) lies right of and below the center."""
    peak = torch.distributions.MultivariateNormal(torch.tensor([2.0, -1.0]), 0.01 * torch.eye(2))
    assert plots.density(peak, ax, (-4.0, 4.0, -2.0, 2.0), n=80) is ax
    image = ax.images[0]
    row, column = np.unravel_index(np.argmax(image.get_array()), (80, 80))
    left, right, bottom, top = image.get_extent()
    assert left + (column + 0.5) * (right - left) / 80 == pytest.approx(2, abs=0.06)
    assert bottom + (row + 0.5) * (top - bottom) / 80 == pytest.approx(-1, abs=0.06)
    assert image.origin == "lower"


def test_density_of_a_flat_and_an_empty_region(ax):
    plots.density(TOYS["checkerboard"], ax, 8.0, n=40)
    plots.density(TOYS["checkerboard"], ax, (10.0, 12.0, 10.0, 12.0), n=10)


def test_samples(ax):
    x = torch.arange(12.0).reshape(4, 3).requires_grad_()
    assert plots.samples(x, ax, columns=(0, 2)) is ax
    assert np.array_equal(ax.lines[0].get_xydata(), [[0, 2], [3, 5], [6, 8], [9, 11]])
    assert plots.samples(np.zeros((0, 2)), ax, limits=3).get_xlim() == (-3, 3)
    with pytest.raises(ShapeError, match=r"\(5,\)"):
        plots.samples(np.zeros(5), ax)


def report(valid: bool) -> FitReport:
    curve = [Point(10 * i, 0.5 * i, -3 / i, -3.2 / i if valid else math.nan) for i in range(1, 30)]
    return FitReport(curves=curve, best_step=200)


def test_history(ax):
    assert plots.history(report(valid=True), ax) is ax
    train, validation, kept = ax.lines
    assert train.get_xydata()[0].tolist() == [0.5, -3]
    assert validation.get_xydata()[0].tolist() == [0.5, -3.2]
    assert kept.get_xydata().tolist() == [[10, -3.2 / 20]]


def test_history_without_validation_and_without_anything(ax):
    assert len(plots.history(report(valid=False), ax).lines) == 1
    plots.history(FitReport(), ax)


def test_new_axes_where_none_are_given():
    from matplotlib import pyplot

    new = plots.samples(np.zeros((3, 2)))
    assert new.figure.number in pyplot.get_fignums()
    pyplot.close(new.figure)
