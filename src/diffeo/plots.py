"""Pictures of flows, samples and training runs: each helper draws on Matplotlib axes and returns them.

None of them calls ``plt.show`` or touches pyplot's state when given axes, so they work without a display::

    fig, axes = plt.subplots(1, 2)
    plots.density(flow, axes[0])
    plots.history(report, axes[1])
    fig.savefig("flow.png")
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from diffeo.data.pictures import grid
from diffeo.errors import ShapeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from diffeo.train import FitReport

COLORS = {"blue": "#3b6fb6", "orange": "#e07b39", "gray": "#7a7f87"}
"""The colors of every picture here."""


class Density(Protocol):
    """Anything with a ``log_prob`` of rows: a flow, a toy density, a torch distribution."""

    def log_prob(self, x: Tensor, /) -> Tensor: ...


def density(flow: Density, ax: Axes | None = None, limits: Any = 4.0, n: int = 200) -> Axes:
    """Draw a two-dimensional density as an image.

    Args:
        flow: has ``log_prob`` of ``(rows, 2)``.
        ax: axes to draw on; new ones by default.
        limits: half the side of a square around 0, or ``(left, right, bottom, top)``.
        n: cells along each side, each colored by the density at its center.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> from diffeo import plots
        >>> from diffeo.data.toys import TOYS
        >>> ax = plots.density(TOYS["pinwheel"], n=50)
        >>> ax.images[0].get_array().shape
        (50, 50)
    """
    left, right, bottom, top = _limits(limits)
    x = left + (torch.arange(n) + 0.5) * ((right - left) / n)
    y = bottom + (torch.arange(n) + 0.5) * ((top - bottom) / n)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    with torch.no_grad():
        p = torch.cat([flow.log_prob(part) for part in grid.split(8192)]).exp().reshape(n, n)
    ax = _axes(ax)
    # A few sharp peaks would leave the rest black: the brightest half percent is cut.
    brightest = float(torch.quantile(p.flatten().double(), 0.995)) or None
    ax.imshow(
        p.numpy(),
        origin="lower",
        extent=(left, right, bottom, top),
        vmin=0.0,
        vmax=brightest,
        cmap="magma",
        interpolation="bilinear",
    )
    return _bare(ax)


def samples(x: Any, ax: Axes | None = None, limits: Any = None, columns: tuple[int, int] = (0, 1)) -> Axes:
    """Draw rows as points.

    Args:
        x: ``(rows, features)``, tensor or array.
        ax: axes to draw on; new ones by default.
        limits: as for ``density``; by default the points' own.
        columns: the two drawn against each other.
    """
    points = _array(x)
    if points.ndim != 2 or points.shape[1] <= max(columns):
        raise ShapeError(f"samples draws columns {columns} of (rows, features); x has shape {points.shape}.")
    ax = _axes(ax)
    alpha = min(0.8, max(0.08, 40 / math.sqrt(max(len(points), 1)) / 2))
    ax.plot(
        *points[:, list(columns)].T,
        linestyle="none",
        marker="o",
        markersize=1.6,
        markeredgewidth=0,
        color=COLORS["blue"],
        alpha=alpha,
        rasterized=True,
    )
    if limits is not None:
        left, right, bottom, top = _limits(limits)
        ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
        return _bare(ax)
    return ax


def history(report: FitReport, ax: Axes | None = None) -> Axes:
    """Draw a run's training and validation curves, nats a row against seconds, and the step that was kept."""
    ax = _axes(ax)
    seconds = [point.seconds for point in report.curves]
    train = np.array([point.train for point in report.curves], dtype=float)
    valid = np.array([point.valid for point in report.curves], dtype=float)
    ax.plot(seconds, train, color=COLORS["gray"], label="training")
    if np.isfinite(valid).any():
        ax.plot(seconds, valid, color=COLORS["orange"], label="validation")
        kept = [point for point in report.curves if point.step == report.best_step]
        ax.plot([p.seconds for p in kept], [p.valid for p in kept], "o", color=COLORS["orange"], label="kept")
    settled = np.concatenate([train, valid])[np.isfinite(np.concatenate([train, valid]))]
    if len(settled) > 8:  # the first steps would flatten all that matters
        low, high = np.quantile(settled, 0.1), settled.max()
        if high > low:
            ax.set_ylim(low - 0.3 * (high - low), high + 0.1 * (high - low))
    ax.set(xlabel="seconds", ylabel="log-likelihood, nats a row")
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def warped_grid(
    warp: Callable[[Tensor], Tensor],
    ax: Axes | None = None,
    limits: Any = 3.0,
    lines: int = 13,
    n: int = 200,
) -> Axes:
    """Draw what a map of the plane makes of a regular grid: where it stretches, shrinks and shears.

    ``warped_grid(flow.to_data)`` is the latent space's grid among the data, ``warped_grid(flow.to_latent,
    limits=...)`` the data's grid in latent space. Lines that stood upright are blue, the others orange.

    Args:
        warp: takes ``(rows, 2)`` to ``(rows, 2)``; for a context, ``lambda z: flow.to_data(z, context)``.
        ax: axes to draw on; new ones by default.
        limits: of the grid, as for ``density``.
        lines: of the grid, each way.
        n: points along each line.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> from diffeo import plots, presets
        >>> ax = plots.warped_grid(presets.RealNVP(features=2).build().to_data)
        >>> len(ax.lines)
        26
    """
    left, right, bottom, top = _limits(limits)
    along = torch.linspace(0, 1, n)
    ax = _axes(ax)
    for places, ends, color, upright in (
        (torch.linspace(left, right, lines), (bottom, top), COLORS["blue"], True),
        (torch.linspace(bottom, top, lines), (left, right), COLORS["orange"], False),
    ):
        place, way = torch.broadcast_tensors(places[:, None], ends[0] + (ends[1] - ends[0]) * along)
        grid = torch.stack([place, way] if upright else [way, place], -1)
        with torch.no_grad():
            warped = warp(grid.reshape(-1, 2)).reshape(lines, n, 2).cpu().numpy()
        ax.plot(*warped.transpose(2, 1, 0), color=color, linewidth=0.8)
    return ax


def trajectories(paths: Any, ax: Axes | None = None, columns: tuple[int, int] = (0, 1)) -> Axes:
    """Draw the paths of points, as through a continuous flow from latent to data.

    Paths are gray; each begins at an orange point and ends at a blue one.

    Args:
        paths: ``(times, rows, features)``, tensor or array: where each point is at each time.
        ax: axes to draw on; new ones by default.
        columns: the two drawn against each other.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> from diffeo import plots
        >>> angle = torch.linspace(0, 1, 20)[:, None] + torch.arange(6)
        >>> ax = plots.trajectories(torch.stack([angle.cos(), angle.sin()], -1))
        >>> len(ax.lines)  # six paths, their beginnings and their ends
        8
    """
    points = _array(paths)
    if points.ndim != 3 or not len(points) or points.shape[2] <= max(columns):
        raise ShapeError(
            f"trajectories draws columns {columns} of (times, rows, features), at least one time; paths has "
            f"shape {points.shape}."
        )
    points = points[..., list(columns)]
    ax = _axes(ax)
    alpha = min(0.9, max(0.15, 6 / math.sqrt(max(points.shape[1], 1))))
    ax.plot(*points.transpose(2, 0, 1), color=COLORS["gray"], linewidth=0.7, alpha=alpha)
    for at, color in ((points[0], COLORS["orange"]), (points[-1], COLORS["blue"])):
        ax.plot(*at.T, linestyle="none", marker="o", markersize=3, markeredgewidth=0, color=color)
    return ax


def cobweb(
    g: Callable[[Tensor], Tensor],
    y: float,
    ax: Axes | None = None,
    start: float | None = None,
    steps: int = 20,
    limits: tuple[float, float] | None = None,
) -> Axes:
    """Draw how ``x <- y - g(x)`` comes to the x with ``x + g(x) = y``: how a residual layer is inverted.

    The curve ``y - g(x)`` (blue) meets the diagonal (gray) at the answer; the staircase (orange) goes from
    each x upright to the curve and level to the diagonal. Where g is a contraction it always arrives.

    Args:
        g: an elementwise function of a tensor ``(n,)``, such as a residual layer of one column.
        y: what is to be inverted.
        ax: axes to draw on; new ones by default.
        start: the first x; y by default.
        steps: of the iteration.
        limits: ``(left, right)`` of x; around the staircase by default.

    References: Prince 2023, section 16.3.7 and figure 16.9.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> from diffeo import plots
        >>> ax = plots.cobweb(lambda x: 0.8 * x.sin(), 1.5)
        >>> x = float(ax.lines[-1].get_xdata()[0])
        >>> round(x + 0.8 * math.sin(x), 3)
        1.5
    """
    with torch.no_grad():
        visited = [torch.tensor([float(y if start is None else start)])]
        for _ in range(steps):
            visited.append(y - g(visited[-1]))
        stairs = torch.cat(visited)
        left, right = limits or (float(stairs.min()), float(stairs.max()))
        room = 0.0 if limits else 0.25 * (right - left) or 1.0
        x = torch.linspace(left - room, right + room, 400)
        curve = y - g(x)
    ax = _axes(ax)
    ax.plot(_array(x), _array(curve), color=COLORS["blue"], label="y - g(x)")
    ax.plot(_array(x), _array(x), color=COLORS["gray"], linewidth=0.8, label="x")
    twice = stairs.repeat_interleave(2)
    ax.plot(_array(twice[:-1]), _array(twice[1:]), color=COLORS["orange"], linewidth=1.0)
    ax.plot(_array(stairs[-1:]), _array(stairs[-1:]), "o", color=COLORS["orange"])
    ax.set(xlabel="x", xlim=(float(x[0]), float(x[-1])))
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def image_grid(pixels: Any, ax: Axes | None = None, columns: int | None = None, gap: int = 1) -> Axes:
    """Draw images in rows and columns: samples, reconstructions, ways through latent space.

    ``image_grid(latents.interpolate(flow, x0, x1, 8).transpose(0, 1))`` draws one way a row. For a file,
    use ``data.save_grid``.

    Args:
        pixels: whole numbers 0 .. 255, tensor or array: ``(N, C, H, W)``, or ``(rows, columns, C, H, W)``; C
            is 1 for gray or 3 for RGB.
        ax: axes to draw on; new ones by default.
        columns: images in a row, where ``pixels`` does not say; by default about as many as rows.
        gap: pixels of gray between images.

    Raises:
        ShapeError: for another shape.
        DataError: for no image, or for numbers that are no pixels.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> from diffeo import plots
        >>> ax = plots.image_grid(torch.randint(256, (3, 5, 1, 8, 8)))
        >>> ax.images[0].get_array().shape  # 3 rows and 5 columns of 8 pixels, with gaps
        (26, 44)
    """
    images = torch.as_tensor(_array(pixels))
    if images.dim() not in (4, 5) or (images.dim() == 5 and columns is not None):
        raise ShapeError(
            f"image_grid draws (N, C, H, W), or (rows, columns, C, H, W) without columns=; pixels has shape "
            f"{tuple(images.shape)}" + ("." if columns is None else f" and columns={columns}.")
        )
    if images.dim() == 5:
        columns = max(images.shape[1], 1)
        images = images.flatten(0, 1)
    canvas = grid(images, columns, zoom=1, gap=gap).permute(1, 2, 0).numpy()
    ax = _axes(ax)
    # Of one channel, a plain matrix: shared limits, else one bright image would darken the others.
    ax.imshow(canvas[..., 0] if canvas.shape[-1] == 1 else canvas, cmap="gray", vmin=0, vmax=255)
    ax.set_axis_off()
    return ax


def _array(x: Any) -> np.ndarray:
    return np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x)


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained")[1]


def _bare(ax: Axes) -> Axes:
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


def _limits(limits: Any) -> tuple[float, float, float, float]:
    if isinstance(limits, int | float):
        return -limits, limits, -limits, limits
    left, right, bottom, top = map(float, limits)
    return left, right, bottom, top
