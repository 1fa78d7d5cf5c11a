"""Two columns drawn against each other: densities, rows, and what maps make of the plane."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from diffeo.errors import ShapeError
from diffeo.plots.axes import array, bare, square, taken
from diffeo.plots.style import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
        >>> from diffeo.targets.toys import TOYS
        >>> ax = plots.density(TOYS["pinwheel"], n=50)
        >>> ax.images[0].get_array().shape
        (50, 50)
    """
    left, right, bottom, top = square(limits)
    x = left + (torch.arange(n) + 0.5) * ((right - left) / n)
    y = bottom + (torch.arange(n) + 0.5) * ((top - bottom) / n)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    with torch.no_grad():
        p = torch.cat([flow.log_prob(part) for part in grid.split(8192)]).exp().reshape(n, n)
    ax = taken(ax)
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
    return bare(ax)


def samples(x: Any, ax: Axes | None = None, limits: Any = None, columns: tuple[int, int] = (0, 1)) -> Axes:
    """Draw rows as points.

    Args:
        x: ``(rows, features)``, tensor or array.
        ax: axes to draw on; new ones by default.
        limits: as for ``density``; by default the points' own.
        columns: the two drawn against each other.
    """
    points = array(x)
    if points.ndim != 2 or points.shape[1] <= max(columns):
        raise ShapeError(f"samples draws columns {columns} of (rows, features); x has shape {points.shape}.")
    ax = taken(ax)
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
        left, right, bottom, top = square(limits)
        ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
        return bare(ax)
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
    left, right, bottom, top = square(limits)
    along = torch.linspace(0, 1, n)
    ax = taken(ax)
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
    points = array(paths)
    if points.ndim != 3 or not len(points) or points.shape[2] <= max(columns):
        raise ShapeError(
            f"trajectories draws columns {columns} of (times, rows, features), at least one time; paths has "
            f"shape {points.shape}."
        )
    points = points[..., list(columns)]
    ax = taken(ax)
    alpha = min(0.9, max(0.15, 6 / math.sqrt(max(points.shape[1], 1))))
    ax.plot(*points.transpose(2, 0, 1), color=COLORS["gray"], linewidth=0.7, alpha=alpha)
    for at, color in ((points[0], COLORS["orange"]), (points[-1], COLORS["blue"])):
        ax.plot(*at.T, linestyle="none", marker="o", markersize=3, markeredgewidth=0, color=color)
    return ax
