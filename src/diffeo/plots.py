"""Pictures of flows, samples and training runs: each helper draws on Matplotlib axes and returns them.

None of them calls ``plt.show`` or touches pyplot's state when given axes, so they work without a display::

    fig, axes = plt.subplots(1, 2)
    plots.density(flow, axes[0])
    plots.history(report, axes[1])
    fig.savefig("flow.png")
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

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
    points = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x)
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
