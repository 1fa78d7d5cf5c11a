"""The house style: colors everyone can tell apart, and files that read on paper and on a dark screen.

A picture is one SVG for light and dark pages. Two files a picture was the alternative; Chromium, where it
was tried, gives an image the page's preference, the site's own switch included.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffeo._files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {
    "blue": "#0072b2",
    "orange": "#d55e00",
    "green": "#009e73",
    "purple": "#b0558f",
    "gray": "#6e7781",
    "ink": "#24292f",
}
"""The colors of every picture here: after Okabe and Ito's, which color-blind readers can tell apart."""

DARK = {
    "blue": "#56b4e9",
    "orange": "#f0883e",
    "green": "#3fc79a",
    "purple": "#dd8fc0",
    "gray": "#9aa4af",
    "ink": "#e6edf3",
}
"""What ``save`` makes of each of them on a dark ground."""

STYLE: dict[str, Any] = {
    "axes.edgecolor": COLORS["ink"],
    "axes.facecolor": "none",
    "axes.labelcolor": COLORS["ink"],
    "axes.prop_cycle": f"cycler('color', {[COLORS[c] for c in ('blue', 'orange', 'green', 'purple')]})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": COLORS["ink"],
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "font.size": 9,
    "image.cmap": "magma",
    "legend.frameon": False,
    "savefig.bbox": "tight",
    "savefig.dpi": 150,
    "svg.fonttype": "path",
    "text.color": COLORS["ink"],
    "xtick.color": COLORS["ink"],
    "ytick.color": COLORS["ink"],
}
"""The house style, for ``matplotlib.pyplot.style.use(plots.STYLE)``."""


def save(fig: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure: as SVG, with a ground you can see through and colors that turn on a dark screen.

    An SVG carries the dark twins of ``COLORS`` in a style sheet that browsers apply where the reader prefers
    dark pages, never in print; anything else that draws SVG shows the light ones. The same figure gives
    the same bytes. Other formats (by suffix: ``.pdf``, ``.png``) get a white ground.

    Args:
        fig: drawn in ``STYLE``, best with ``COLORS``; other colors stay as they are.
        path: replaced whole or not at all.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> import tempfile
        >>> from pathlib import Path
        >>> from matplotlib import pyplot as plt
        >>> from diffeo import plots
        >>> with plt.style.context(plots.STYLE), tempfile.TemporaryDirectory() as folder:
        ...     fig, ax = plt.subplots()
        ...     plots.save(fig, Path(folder) / "empty.svg")
        ...     "prefers-color-scheme: dark" in (Path(folder) / "empty.svg").read_text()
        True
    """
    from matplotlib import rc_context

    kind = Path(path).suffix.removeprefix(".").lower() or "svg"
    drawn = io.BytesIO()
    if kind == "svg":
        with rc_context({"svg.hashsalt": "diffeo"}):  # else names inside are drawn anew each time
            fig.savefig(drawn, format=kind, facecolor="none", metadata={"Date": None})
        found = drawn.getvalue().replace(b"<defs>", _dark_sheet().encode() + b"<defs>", 1)
    else:
        fig.savefig(drawn, format=kind, facecolor="white")
        found = drawn.getvalue()
    with replacing(path) as file:
        file.write(found)


def _dark_sheet() -> str:
    # Matplotlib writes colors into style attributes, which only !important overrules.
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{DARK[name]}!important}}'
        for name, light in COLORS.items()
        for what in ("fill", "stroke")
    )
    return f"<style>@media screen and (prefers-color-scheme: dark){{{rules}}}</style>"
