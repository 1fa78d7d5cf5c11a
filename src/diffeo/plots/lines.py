"""Curves over one axis: training runs, densities on the line, fixed-point iterations."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from diffeo.errors import ShapeError
from diffeo.plots.axes import array, taken
from diffeo.plots.style import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from diffeo.flow import Flow
    from diffeo.train import FitReport


def history(report: FitReport, ax: Axes | None = None) -> Axes:
    """Draw a run's training and validation curves, nats a row against seconds, and the step that was kept."""
    ax = taken(ax)
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
        >>> round(x + 0.8 * np.sin(x), 3).item()
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
    ax = taken(ax)
    ax.plot(array(x), array(curve), color=COLORS["blue"], label="y - g(x)")
    ax.plot(array(x), array(x), color=COLORS["gray"], linewidth=0.8, label="x")
    twice = stairs.repeat_interleave(2)
    ax.plot(array(twice[:-1]), array(twice[1:]), color=COLORS["orange"], linewidth=1.0)
    ax.plot(array(stairs[-1:]), array(stairs[-1:]), "o", color=COLORS["orange"])
    ax.set(xlabel="x", xlim=(float(x[0]), float(x[-1])))
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def pushforward(
    flow: Flow,
    ax: Axes | None = None,
    limits: tuple[float, float] = (-3.0, 3.0),
    strips: int = 8,
    n: int = 400,
) -> Axes:
    """Draw what a one-dimensional flow does: its map, with the base density below and its own at the left.

    The curve is the generative map ``x = f^-1(z)``. Gray lines go up from the base density's quantiles, turn
    at the curve and end in the density of x. Between two neighbors lies the same mass on both sides: strips
    that the map widens are lower, those it narrows higher.

    Args:
        flow: of one column, without a context, whose map is increasing.
        ax: axes of the map, to which those of the two densities are added outside; new ones by default.
        limits: ``(left, right)`` of z.
        strips: of equal mass, between those limits.
        n: points along each axis.

    Raises:
        ShapeError: for a flow of anything but one column without context.

    References: Prince 2023, section 16.1 and figures 16.1 to 16.3.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> import diffeo
        >>> from diffeo import plots
        >>> ax = plots.pushforward(diffeo.Flow(diffeo.bijections.LU(1), diffeo.bases.Normal((1,))))
        >>> [beside.get_xlabel() for beside in ax.child_axes]
        ['z', 'density of x']
    """
    if tuple(flow.event_shape) != (1,) or flow.context_shape is not None:
        raise ShapeError(
            f"pushforward draws flows of shape (1,) without a context; this one has {tuple(flow.event_shape)}"
            + ("." if flow.context_shape is None else f" and a context of {tuple(flow.context_shape)}.")
        )
    weight = next((p.dtype for p in flow.parameters()), torch.float32)
    z = torch.linspace(*limits, n, dtype=weight)
    with torch.no_grad():
        first, last = flow.to_data(z[[0, -1], None])[:, 0]
        even = torch.lerp(first, last, torch.linspace(0, 1, n, dtype=weight))
        # Even in x too, or the density of x would have corners where the curve is steep.
        z = torch.cat([z, flow.to_latent(even[:, None])[:, 0].clamp(*limits)]).unique()
        base = flow.base.log_prob(z[:, None]).double().exp()
        x, log_det = flow.bijection.inverse(z[:, None])
    z = z.double()
    curve = x[:, 0].double().numpy()
    pushed = (base * (-log_det.double()).exp()).numpy()
    mass = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(base, z)]).numpy()
    edges = np.interp(np.linspace(0, 1, strips + 1) * mass[-1], mass, z)
    ends = np.interp(edges, z, curve)
    ax = taken(ax)
    ax.plot(z, curve, color=COLORS["ink"])
    room = 0.05 * (curve.max() - curve.min()) or 1.0
    ax.set(xlim=limits, ylim=(curve.min() - room, curve.max() + room))
    below = ax.inset_axes((0.0, -0.5, 1.0, 0.42), sharex=ax)
    left = ax.inset_axes((-0.5, 0.0, 0.42, 1.0), sharey=ax)
    for fill, places, heights, borders, color in (
        (below.fill_between, z.numpy(), base.numpy(), edges, COLORS["blue"]),
        (left.fill_betweenx, curve, pushed, ends, COLORS["orange"]),
    ):
        for i, (start, end) in enumerate(pairwise(borders)):
            own = np.concatenate([[start], places[(start < places) & (places < end)], [end]])
            shade = 0.45 if i % 2 else 0.2
            fill(own, np.interp(own, places, heights), color=color, alpha=shade, linewidth=0)
    below.plot(z, base, color=COLORS["blue"])
    left.plot(pushed, curve, color=COLORS["orange"])
    line = {"color": COLORS["gray"], "linewidth": 0.7}
    cuts, at = edges[1:-1], ends[1:-1]
    ax.vlines(cuts, ax.get_ylim()[0], at, **line)
    ax.hlines(at, limits[0], cuts, **line)
    below.vlines(cuts, 0, np.interp(cuts, z, base), **line)
    left.hlines(at, 0, np.interp(at, curve, pushed), **line)
    # The scales of the densities stand outside, where they do not meet.
    below.yaxis.tick_right()
    below.yaxis.set_label_position("right")
    left.xaxis.tick_top()
    left.xaxis.set_label_position("top")
    below.set(xlabel="z", ylabel="density of z", ylim=(0, None))
    left.set(ylabel="x", xlabel="density of x", xlim=(1.08 * pushed.max(), 0))
    for axes, sides in ((ax, ("top", "right")), (below, ("top", "left")), (left, ("right", "bottom"))):
        axes.spines[["top", "right", "bottom", "left"]].set_visible(True)
        axes.spines[list(sides)].set_visible(False)
    ax.tick_params(labelbottom=False, labelleft=False)
    return ax
