"""Pictures of matrices: grids of images, Jacobians."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from diffeo.errors import ShapeError
from diffeo.images.pictures import grid
from diffeo.plots.axes import array, taken

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def image_grid(pixels: Any, ax: Axes | None = None, columns: int | None = None, gap: int = 1) -> Axes:
    """Draw images in rows and columns: samples, reconstructions, ways through latent space.

    ``image_grid(latents.interpolate(flow, x0, x1, 8).transpose(0, 1))`` draws one way a row. For a file,
    use ``images.save_grid``.

    Args:
        pixels: whole numbers 0 .. 255, tensor or array: ``(N, C, H, W)``, or ``(rows, columns, C, H, W)``; C
            is 1 for gray or 3 for RGB.
        ax: axes to draw on; new ones by default.
        columns: images in a row, where ``pixels`` does not say; by default about as many as rows.
        gap: pixels of gray between images.

    Raises:
        ShapeError: for another shape.
        DataError: for an empty batch, or for numbers that are not pixels.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> from diffeo import plots
        >>> ax = plots.image_grid(torch.randint(256, (3, 5, 1, 8, 8)))
        >>> ax.images[0].get_array().shape  # 3 rows and 5 columns of 8 pixels, with gaps
        (26, 44)
    """
    images = torch.as_tensor(array(pixels))
    if images.dim() not in (4, 5) or (images.dim() == 5 and columns is not None):
        raise ShapeError(
            f"image_grid draws (N, C, H, W), or (rows, columns, C, H, W) without columns=; pixels has shape "
            f"{tuple(images.shape)}" + ("." if columns is None else f" and columns={columns}.")
        )
    if images.dim() == 5:
        columns = max(images.shape[1], 1)
        images = images.flatten(0, 1)
    canvas = grid(images, columns, zoom=1, gap=gap).permute(1, 2, 0).numpy()
    ax = taken(ax)
    # Of one channel, a plain matrix: shared limits, else one bright image would darken the others.
    ax.imshow(canvas[..., 0] if canvas.shape[-1] == 1 else canvas, cmap="gray", vmin=0, vmax=255)
    ax.set_axis_off()
    return ax


def jacobian(warp: Callable[[Tensor], Tensor], x: Tensor, ax: Axes | None = None) -> Axes:
    """Draw the Jacobian of a map at one point, by autograd: which output hangs on which input, and how much.

    Sizes of entries are colored on a logarithmic scale; entries of exactly zero are left blank, so that what
    is blank is structure and not a small number.

    Args:
        warp: takes ``x`` to a tensor of the same rank: ``flow.to_latent``, ``lambda x: bijection(x)[0]``.
        x: the point, ``(D,)``.
        ax: axes to draw on; new ones by default.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> from diffeo import plots
        >>> ax = plots.jacobian(lambda x: x.cumsum(-1), torch.zeros(4))
        >>> int(ax.images[0].get_array().mask.sum())  # above the diagonal
        6
    """
    if x.dim() != 1:
        raise ShapeError(f"jacobian draws the derivative at one point (D,); x has shape {tuple(x.shape)}.")
    sizes = torch.autograd.functional.jacobian(warp, x)
    if not isinstance(sizes, Tensor) or sizes.dim() != 2:
        raise ShapeError(f"jacobian draws maps of (D,) to (E,); this one gave {tuple(warp(x).shape)}.")
    sizes = sizes.detach().abs().double().cpu().numpy()
    from matplotlib.colors import LogNorm

    largest = sizes.max() or 1.0
    ax = taken(ax)
    image = ax.imshow(
        np.ma.masked_equal(sizes, 0.0), cmap="viridis", norm=LogNorm(1e-3 * largest, largest), rasterized=True
    )
    ax.figure.colorbar(image, ax=ax, label="size of the derivative", shrink=0.8, extend="min")
    ax.set(xlabel="input", ylabel="output")
    return ax
