"""Plots: each helper draws what it says on the axes it is given, without a display."""

from __future__ import annotations

import math
import re

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.optimize import brentq

from diffeo import plots
from diffeo.bases import Normal
from diffeo.bijections import Exp, Inverse, Pointwise
from diffeo.elementwise import MixtureCDF
from diffeo.errors import ConfigError, DataError, ShapeError
from diffeo.flow import Flow
from diffeo.presets import RealNVP
from diffeo.targets.toys import TOYS
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


def a_report(curves: tuple = (), best_step: int = 0) -> FitReport:
    return FitReport(curves, 1.0, 0, best_step, 0.0, 0.0, 0, "")


def report(valid: bool) -> FitReport:
    curve = [Point(10 * i, 0.5 * i, -3 / i, -3.2 / i if valid else math.nan) for i in range(1, 30)]
    return a_report(tuple(curve), 200)


def test_history(ax):
    assert plots.history(report(valid=True), ax) is ax
    train, validation, kept = ax.lines
    assert train.get_xydata()[0].tolist() == [0.5, -3]
    assert validation.get_xydata()[0].tolist() == [0.5, -3.2]
    assert kept.get_xydata().tolist() == [[10, -3.2 / 20]]


def test_history_without_validation_and_without_anything(ax):
    assert len(plots.history(report(valid=False), ax).lines) == 1
    plots.history(a_report(), ax)


def test_warped_grid_is_the_maps_image_of_a_regular_one(ax):
    def warp(z):
        return torch.stack([2 * z[:, 0] + z[:, 1] ** 2, -z[:, 1]], -1)

    assert plots.warped_grid(warp, ax, (-1.0, 3.0, 0.0, 2.0), lines=5, n=11) is ax
    upright, level = ax.lines[:5], ax.lines[5:]
    assert len(level) == 5
    for place, line in zip(range(-1, 4), upright, strict=True):
        y = np.linspace(0, 2, 11)
        np.testing.assert_allclose(line.get_xydata(), np.stack([2 * place + y**2, -y], -1), atol=1e-5)
    for place, line in zip(np.linspace(0, 2, 5), level, strict=True):
        x = np.linspace(-1, 3, 11)
        np.testing.assert_allclose(
            line.get_xydata(), np.stack([2 * x + place**2, 0 * x - place], -1), atol=1e-5
        )
    assert upright[0].get_color() != level[0].get_color()


def test_warped_grid_of_a_flow_there_and_back(ax):
    flow = RealNVP(2, layers=2, hidden=(8,)).build()
    for p in flow.parameters():
        p.data += 0.1
    plots.warped_grid(lambda z: flow.to_latent(flow.to_data(z)), ax, 2.0, lines=3, n=9)
    straight = [line.get_xdata() for line in ax.lines[:3]]
    np.testing.assert_allclose(straight, np.repeat([[-2], [0], [2]], 9, 1), atol=1e-4)


def test_trajectories(ax):
    paths = torch.arange(24.0).reshape(4, 2, 3).requires_grad_()
    assert plots.trajectories(paths, ax, columns=(2, 0)) is ax
    one, other, first, last = ax.lines
    assert one.get_xydata().tolist() == [[2, 0], [8, 6], [14, 12], [20, 18]]
    assert other.get_xydata()[0].tolist() == [5, 3]
    assert first.get_xydata().tolist() == [[2, 0], [5, 3]]
    assert last.get_xydata().tolist() == [[20, 18], [23, 21]]
    assert first.get_color() != last.get_color()
    plots.trajectories(np.zeros((3, 0, 2)), ax)
    for bad in ((5, 2), (3, 4, 1), (0, 4, 2)):
        with pytest.raises(ShapeError, match="times, rows, features"):
            plots.trajectories(np.zeros(bad), ax)


def test_cobweb_climbs_to_the_inverse(ax):
    def g(x):
        return 0.8 * x.sin()

    assert plots.cobweb(g, 1.5, ax, start=-1.0, steps=60) is ax
    curve, diagonal, stairs, end = ax.lines
    x, h = curve.get_data()
    np.testing.assert_allclose(x + h, x + 1.5 - 0.8 * np.sin(x), atol=1e-6)
    np.testing.assert_array_equal(*diagonal.get_data())
    corners = stairs.get_xydata()
    assert corners[0].tolist() == [-1, -1]
    np.testing.assert_allclose(
        corners[1::2, 1], 1.5 - 0.8 * np.sin(corners[1::2, 0]), atol=1e-6
    )  # on the curve
    np.testing.assert_array_equal(corners[2::2, 0], corners[2::2, 1])  # on the diagonal
    root = brentq(lambda x: x + 0.8 * math.sin(x) - 1.5, -2, 2)
    assert end.get_xydata()[0] == pytest.approx([root, root], abs=1e-5)
    assert x.min() < corners.min()
    assert x.max() > corners.max()


def test_cobweb_starts_at_y_and_within_limits(ax):
    plots.cobweb(lambda x: 0 * x, 2.0, ax, limits=(-1.0, 3.0))
    assert ax.lines[2].get_xydata()[0].tolist() == [2, 2]
    assert ax.get_xlim() == (-1, 3)
    assert plots.cobweb(lambda x: 0 * x, 2.0, ax).get_xlim() == (1, 3)  # a staircase of no length


def bent_line() -> Flow:
    bijection = Pointwise(MixtureCDF(2), (1,))
    bijection.params.data.copy_(torch.tensor([0.4, 0.0, -0.6, 0.9, 0.2, 0.6]))
    return Flow(bijection, Normal((1,))).double()


def strips_of(axes) -> list[np.ndarray]:
    """The corners of each strip, ordered: along the curve and back along the axis."""
    return [strip.get_paths()[0].vertices for strip in axes.collections if strip.get_facecolor().size]


def area(corners: np.ndarray) -> float:
    x, y = corners.T
    return abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2


def test_pushforward_keeps_the_mass_of_every_strip(ax):
    """As drawn on both sides, and as integrated from the flow's own density between the strip's ends."""
    flow = bent_line()
    assert plots.pushforward(flow, ax, (-2.5, 2.0), strips=6, n=400) is ax
    below, left = ax.child_axes
    normal = torch.distributions.Normal(0.0, 1.0)
    mass = float(normal.cdf(torch.tensor(2.0)) - normal.cdf(torch.tensor(-2.5))) / 6
    under, beside = strips_of(below)[:6], strips_of(left)[:6]
    for strip in (*under, *beside):
        assert area(strip) == pytest.approx(mass, rel=2e-3)
    end = -2.5
    for strip, image in zip(under, beside, strict=True):
        assert strip[:, 0].min() == pytest.approx(end, abs=1e-3)  # no gaps
        end = strip[:, 0].max()
        x = torch.linspace(float(image[:, 1].min()), float(image[:, 1].max()), 500, dtype=torch.float64)
        with torch.no_grad():
            assert torch.trapezoid(flow.log_prob(x[:, None]).exp(), x) == pytest.approx(mass, rel=1e-3)
            inside = flow.to_data(torch.tensor([[strip[:, 0].min()], [end]]))[:, 0]
        np.testing.assert_allclose(inside, x[[0, -1]], atol=1e-3)
    assert end == pytest.approx(2.0)


def test_pushforward_draws_the_map_and_its_density(ax):
    flow = bent_line()
    plots.pushforward(flow, ax, strips=5)
    below, left = ax.child_axes
    z, x = map(torch.as_tensor, ax.lines[0].get_data())
    with torch.no_grad():
        torch.testing.assert_close(flow.to_latent(x[:, None])[:, 0], z)
        p, at = map(torch.as_tensor, left.lines[0].get_data())
        torch.testing.assert_close(flow.log_prob(at[:, None]).exp(), p)
    assert x.diff().max() < 0.02  # even where the curve is steep
    assert ax.get_xlim() == below.get_xlim() == (-3, 3)
    assert ax.get_ylim() == left.get_ylim()
    assert len(ax.collections[0].get_segments()) == 4  # lines between 5 strips
    assert left.get_xlim()[0] > left.get_xlim()[1] == 0  # it grows to the left
    assert below.get_ylabel() == "density of z"


def test_pushforward_of_a_flow_without_parameters(ax):
    """The logarithm's inverse: a log-normal density of x."""
    plots.pushforward(Flow(Inverse(Exp((1,))), Normal((1,))), ax, (-1.0, 1.0), strips=3)
    p, x = ax.child_axes[1].lines[0].get_data()
    np.testing.assert_allclose(p, np.exp(-0.5 * np.log(x) ** 2) / (math.sqrt(2 * math.pi) * x), rtol=1e-5)
    assert x[[0, -1]] == pytest.approx([math.exp(-1), math.e], rel=1e-5)


def test_pushforward_refuses_planes_and_contexts(ax):
    with pytest.raises(ShapeError, match=r"shape \(1,\).*\(2,\)\."):
        plots.pushforward(RealNVP(2).build(), ax)
    with pytest.raises(ShapeError, match=r"context of \(3,\)"):
        plots.pushforward(RealNVP(1, context=3).build(), ax)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_image_grid_puts_each_image_in_its_place(ax, channels, dtype):
    pixels = torch.randint(256, (5, channels, 4, 6)).to(dtype)
    assert plots.image_grid(pixels, ax, columns=3, gap=2) is ax
    drawn = np.asarray(ax.images[0].get_array())
    assert drawn.shape == (10, 22) + (() if channels == 1 else (3,))
    assert ax.images[0].get_clim() == (0, 255)
    for i in range(5):
        top, left = i // 3 * 6, i % 3 * 8
        shown = drawn[top : top + 4, left : left + 6].reshape(4, 6, channels)
        np.testing.assert_array_equal(shown, pixels[i].permute(1, 2, 0))


def test_image_grid_of_rows_and_columns(ax):
    """A way a row, as ``interpolate(...).transpose(0, 1)`` gives."""
    ways = torch.randint(256, (2, 5, 1, 4, 4), dtype=torch.uint8)
    plots.image_grid(ways, ax, gap=0)
    np.testing.assert_array_equal(
        ax.images[0].get_array(), torch.cat([torch.cat([*w[:, 0]], 1) for w in ways])
    )


@pytest.mark.parametrize(
    ("pixels", "columns", "error", "match"),
    [
        (np.zeros((4, 4)), None, ShapeError, r"\(N, C, H, W\).*shape \(4, 4\)\."),
        (np.zeros((2, 3, 1, 4, 4)), 2, ShapeError, "columns=2"),
        (np.zeros((3, 2, 4, 4)), None, ShapeError, "C = 1 or 3"),
        (np.zeros((0, 1, 4, 4)), None, DataError, "no image"),
        (np.zeros((3, 0, 1, 4, 4)), None, DataError, "no image"),
        (np.full((1, 1, 4, 4), math.nan), None, DataError, "whole numbers"),
        (np.full((1, 1, 4, 4), 0.5), None, DataError, "whole numbers"),
        (np.full((1, 1, 4, 4), 256), None, DataError, "whole numbers"),
        (np.zeros((3, 1, 4, 4)), 0, ConfigError, "columns=0"),
    ],
)
def test_image_grid_refuses_what_is_no_image(ax, pixels, columns, error, match):
    with pytest.raises(error, match=match):
        plots.image_grid(pixels, ax, columns)


def test_jacobian_leaves_blank_what_is_exactly_zero(ax):
    matrix = torch.tensor([[2.0, 0.0, -1e-30], [0.0, 0.0, 5e-3]])
    assert plots.jacobian(lambda x: matrix @ x, torch.ones(3), ax) is ax
    drawn = ax.images[0].get_array()
    assert drawn.mask.tolist() == [[False, True, False], [True, True, False]]  # tiny is not blank
    np.testing.assert_allclose(drawn.filled(0), matrix.abs())
    assert ax.images[0].norm.vmax == 2
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("input", "output")


def test_jacobian_of_a_curved_map_at_its_point(ax):
    x = torch.tensor([0.5, -2.0], dtype=torch.float64)
    plots.jacobian(lambda x: torch.stack([x[0] * x[1], x[1] ** 3, x[0].exp()]), x, ax)
    drawn = ax.images[0].get_array()
    np.testing.assert_allclose(drawn.filled(0), [[2, 0.5], [0, 12], [math.exp(0.5), 0]])
    assert drawn.mask.tolist() == [[False, False], [True, False], [False, True]]


def test_jacobian_of_nothing_and_of_batches(ax):
    plots.jacobian(lambda x: 0 * x, torch.ones(2), ax)
    assert ax.images[0].get_array().mask.all()
    with pytest.raises(ShapeError, match=r"\(3, 2\)"):
        plots.jacobian(lambda x: x, torch.ones(3, 2), ax)
    with pytest.raises(ShapeError, match=r"gave \(2, 2\)"):
        plots.jacobian(lambda x: x[:, None] * x, torch.ones(2), ax)


def styled() -> Figure:
    from matplotlib import style

    with style.context(plots.STYLE):
        figure = Figure()
        axes = figure.add_subplot()
        for i, color in enumerate(plots.COLORS.values()):
            axes.plot([0, 1], [i, 1 - i], color=color)
        axes.fill_between([0, 1], [0, 1], color=plots.COLORS["blue"], alpha=0.3)
        axes.set_xlabel("x")
        return figure


def test_save_writes_the_same_bytes_for_the_same_figure(tmp_path):
    from matplotlib import style

    plots.save(styled(), tmp_path / "a.svg")
    plots.save(styled(), tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    with style.context(plots.STYLE):
        for name in ("a.svg", "b.svg"):
            plots.save(styled(), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a.svg").read_bytes()


def test_save_turns_every_color_on_a_dark_screen(tmp_path):
    plots.save(styled(), tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text()
    assert text.count("@media screen and (prefers-color-scheme: dark)") == 1
    rules = dict(re.findall(r'\[style\*="((?:fill|stroke): #\w+)"\]\{\w+:(#\w+)!important\}', text))
    drawn = text.split("</style>", 1)[1]
    for name, light in plots.COLORS.items():
        assert rules[f"stroke: {light}"] == rules[f"fill: {light}"] == plots.DARK[name]
        assert f"stroke: {light}" in drawn, f"{name} is drawn as the sheet looks for it"
    assert f"fill: {plots.COLORS['blue']}" in drawn
    assert len({*plots.COLORS.values(), *plots.DARK.values()}) == 2 * len(plots.COLORS)
    strokes = set(re.findall(r"stroke: (#\w+)", drawn))
    assert strokes <= set(plots.COLORS.values()), "frame and ticks turn too"


@pytest.mark.parametrize(("suffix", "start"), [("pdf", b"%PDF"), ("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_save_writes_each_format(tmp_path, suffix, start):
    plots.save(styled(), tmp_path / f"figure.{suffix}")
    assert (tmp_path / f"figure.{suffix}").read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [f"figure.{suffix}"]


def test_save_puts_png_on_white_and_svg_on_nothing(tmp_path):
    from matplotlib import image

    plots.save(styled(), tmp_path / "figure.png")
    assert image.imread(tmp_path / "figure.png")[0, 0].tolist() == [1, 1, 1, 1]
    plots.save(styled(), tmp_path / "figure.svg")
    assert not re.search(r"fill: (#ffffff|white)", (tmp_path / "figure.svg").read_text())


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_save_leaves_what_was_there_when_drawing_fails(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"figure.{suffix}"
    path.write_bytes(b"before")
    figure = styled()
    monkeypatch.setattr(figure.axes[0].lines[0], "draw", None)
    with pytest.raises(TypeError):
        plots.save(figure, path)
    monkeypatch.setattr("os.replace", None)
    with pytest.raises(TypeError):
        plots.save(styled(), path)
    assert path.read_bytes() == b"before"
    assert [*tmp_path.iterdir()] == [path]
    with pytest.raises(ValueError, match="docx"):
        plots.save(styled(), tmp_path / "figure.docx")
    assert [*tmp_path.iterdir()] == [path]


def test_style_is_one_matplotlib_knows():
    assert set(plots.STYLE) <= set(matplotlib.rcParams)
    assert set(plots.DARK) == set(plots.COLORS)


def test_new_axes_where_none_are_given():
    from matplotlib import pyplot

    new = plots.samples(np.zeros((3, 2)))
    assert new.figure.number in pyplot.get_fignums()
    pyplot.close(new.figure)
