"""The pictures of a report's page: small SVGs drawn by hand, whose colors are the style sheet's.

A picture has a text that says what it shows; what it shows in detail stands beside it, in words or a table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffeo.tables.markup import safe

_WIDTH, _HEIGHT = 300, 84
_CELL, _NAME, _LETTERS = 20, 170, 24


def histograms(real: Sequence[float], synthetic: Sequence[float], label: str) -> str:
    """Two histograms with the same bars: the real one an area, the synthetic one a line."""
    top = max(*real, *synthetic, 1e-12)
    return _svg(f'{_area(real, top)}<path class="step" d="{_outline(synthetic, top)}"/>', label)


def bars(shares: Sequence[float], level: float, label: str) -> str:
    """A histogram, and the height that all bars should have."""
    top = max(*shares, 1.5 * level)
    y = _HEIGHT * (1 - level / top)
    return _svg(f'{_area(shares, top)}<path class="rule" d="M0 {y:.2f}H{_WIDTH}"/>', label)


def pair_of_bars(real: float, synthetic: float, top: float) -> str:
    """Two shares as bars, one above the other, of a common scale."""
    a, b = (100 * share / top if top > 0 else 0 for share in (real, synthetic))
    return (
        f'<svg height="15" aria-hidden="true"><rect class="bar-real" width="{a:.2f}%" height="6" rx="1"/>'
        f'<rect class="bar-synthetic" y="8" width="{b:.2f}%" height="6" rx="1"/></svg>'
    )


def bar_with_error(value: float, error: float, top: float) -> str:
    """A value as a bar with a whisker of a standard error to either side."""
    scale = 100 / top if top > 0 else 0
    end, low, high = (min(max(0.0, scale * x), 100.0) for x in (value, value - error, value + error))
    return (
        f'<svg height="14" aria-hidden="true">'
        f'<rect class="bar-synthetic" y="2" width="{end:.2f}%" height="10" rx="1"/>'
        f'<line class="whisker" x1="{low:.2f}%" x2="{high:.2f}%" y1="7" y2="7"/></svg>'
    )


def pair_map(names: Sequence[str], lacking: np.ndarray, strongest: float, label: str) -> str:
    """A square of cells, one for each pair of columns: the stronger its color, the less alike; blank where
    there is no figure.

    Args:
        names: of the columns; shortened, and numbered as the columns of the square are.
        lacking: 1 less the similarity, ``(columns, columns)``; NaN where there is none.
        strongest: what has the full color.
        label: what the picture shows, in words.
    """
    n, parts = len(names), []
    for i, name in enumerate(names):
        short = name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…"
        y = (i + 1) * _CELL
        parts.append(f'<text x="{_NAME - 6}" y="{y + 14}" text-anchor="end">{safe(short)} {i + 1}</text>')
        parts.append(f'<text x="{_NAME + i * _CELL + _CELL / 2}" y="14" text-anchor="middle">{i + 1}</text>')
        for j, other in enumerate(names):
            x, found = _NAME + j * _CELL, lacking[i, j]
            place = f'x="{x}" y="{y}" width="{_CELL}" height="{_CELL}"'
            if np.isnan(found):
                parts.append(f'<rect class="blank" {place}/>')
                continue
            strength = min(1.0, max(0.0, found / strongest))
            said = f"<title>{safe(name)} and {safe(other)}: {1 - found:.3f}</title>"
            parts.append(f'<rect class="cell" fill-opacity="{strength:.3f}" {place}>{said}</rect>')
    width, height = _NAME + n * _CELL + 2, (n + 1) * _CELL + 2
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg {size} role="img" aria-label="{safe(label)}">{"".join(parts)}</svg>'


# -- inside ---------------------------------------------------------------------------------------


def _svg(inside: str, label: str) -> str:
    size = f'viewBox="0 -3 {_WIDTH} {_HEIGHT + 4}" height="{_HEIGHT}" preserveAspectRatio="none"'
    base = f'<line class="base" x1="0" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}"/>'
    return f'<svg {size} role="img" aria-label="{safe(label)}">{inside}{base}</svg>'


def _area(shares: Sequence[float], top: float) -> str:
    outline = _outline(shares, top)
    return f'<path class="area" d="{outline}Z"/><path class="edge" d="{outline}"/>'


def _outline(shares: Sequence[float], top: float) -> str:
    """The outline of a histogram, from its lower left corner to the lower right one."""
    width = _WIDTH / len(shares)
    steps = (f"V{_HEIGHT * (1 - s / top):.2f}H{width * (i + 1):.2f}" for i, s in enumerate(shares))
    return f"M0 {_HEIGHT}{''.join(steps)}V{_HEIGHT}"
