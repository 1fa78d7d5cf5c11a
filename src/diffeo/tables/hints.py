"""What a column's values and name hint at: heaps, codes, caps, identifiers, supports. Only ever a word."""

from __future__ import annotations

import math
import re

import numpy as np

from diffeo.encodings.column_kind import Kind
from diffeo.encodings.kinds import Integer, Lattice
from diffeo.tables.lattices import Tally, gaps, looks_like_codes, odd_rows, sharp_ends

_MISSING = re.compile(r"-?9{2,6}|-1|-1e\+30|1e\+20|9\.96921e\+36")
"""Numbers that files use for a missing value, as ``%g`` writes them."""
_IDENTIFIES = re.compile(r"(^|[\s_.-])(id|ids|key|index|idx|uuid|nr|no|rowid|row|serial)$", re.IGNORECASE)


def doubt(name: str, tally: Tally, kind: Kind) -> str:
    """What no density of this kind shows of the values; "" for nothing."""
    if not isinstance(kind, Integer | Lattice):
        return _heap(tally) or _missing(tally)
    return _identifier(name, tally, kind) or _cap(tally) or _grid(tally, kind) or _missing(tally)


def lasting(name: str, tally: Tally, kind: Kind) -> str:
    """What is doubted of the values even where each that repeats has a mass of its own; "" for nothing."""
    grid = isinstance(kind, Integer | Lattice)
    return (_identifier(name, tally, kind) if grid else "") or _missing(tally)


def _identifier(name: str, tally: Tally, kind: Integer | Lattice) -> str:
    """What to say of whole numbers that name their rows."""
    if kind.step != 1 or tally.rows < 20 or len(tally.unique) < tally.rows:
        return ""
    if np.ptp(tally.unique) == tally.rows - 1 or _IDENTIFIES.search(name):
        return "looks like an identifier, each row its own: drop it"
    return ""


def _missing(tally: Tally) -> str:
    """What to say of an outermost value, far from the rest, that is a common code for a missing one."""
    for at, rest in ((0, tally.unique[1:]), (-1, tally.unique[:-1])):
        value, rows = tally.unique[at], tally.counts[at]
        if len(rest) < 4 or rows < 2 or not _MISSING.fullmatch(f"{value:g}"):
            continue
        if abs(rest - value).min() > np.ptp(rest) / 2:
            return f"{rows} rows are {value:g}, perhaps a code for missing values"
    return ""


def _heap(tally: Tally) -> str:
    """What to say of one value that many rows of a continuous column have exactly."""
    most = int(tally.counts.argmax())
    return tally.share(most) if tally.counts[most] >= max(10, 0.01 * tally.rows) else ""


def _cap(tally: Tally) -> str:
    """What to say of the outermost of whole numbers, where far more rows have it than its neighbors."""
    most = int(tally.counts.argmax())
    near = {0: tally.counts[1:11], len(tally.counts) - 1: tally.counts[-11:-1]}.get(most)
    if near is None or len(near) < 10 or tally.counts[most] < 10 * near.max():
        return ""
    return _heap(tally)


def _grid(tally: Tally, kind: Integer | Lattice) -> str:
    """What to say of a grid: that it hardly is one, or that few rows make it so fine."""
    odd, step = odd_rows(tally, kind.step, kind.offset)
    if odd:
        rows = "1 row makes" if odd == 1 else f"{odd} rows make"
        return f"{rows} the step {kind.step:.6g}; all others lie on {step:.6g}, and are smeared"
    unique, most = tally.unique, int(tally.counts.argmax())
    if looks_like_codes(tally, kind.step):
        cells = round(float(unique[-1] - unique[0]) / kind.step) + 1
        return f"looks like codes: {len(unique)} values on {cells:,} points, and draws fall between"
    if most in (0, len(unique) - 1) and gaps(tally, kind.step)[0 if most == 0 else -1]:
        others = np.delete(unique, most)
        if abs(others - unique[most]).min() > np.ptp(others):
            return f"{tally.share(most)}, far from the rest"
    return ""


def ends(tally: Tally) -> str:
    """The bounds that whole numbers seem to have."""
    sharp, (low, high) = sharp_ends(tally), map(float, (tally.unique[0], tally.unique[-1]))
    if not sharp[0] or low not in (0, 1):
        return ""
    return str(Integer(low, high) if sharp[1] else Integer(low))


_INTERVALS = ((0.0, 1.0), (-1.0, 1.0), (0.0, 100.0))
_ANGLE = re.compile(
    r"angle|bearing|direction|heading|azimuth|orientation|longitude|hour|(^|_)(theta|phi|phase|yaw|lon)(_|$)",
    re.IGNORECASE,
)
_TURNS = ((0.0, 360.0), (-180.0, 180.0), (0.0, 24.0), (0.0, 2 * math.pi), (-math.pi, math.pi))


def suggestion(name: str, values: np.ndarray) -> str:
    """What a continuous column might be declared as; only ever a hint."""
    if len(values) < 50:
        return ""
    low, high = float(values.min()), float(values.max())
    for a, b in _TURNS:
        # its name says so and it goes most of the way round, or
        if _ANGLE.search(name) and a <= low and high <= b and high - low > 0.8 * (b - a):
            return f"circular({a:.10g}, {b:.10g})"
        # a circle is filled to its ends, and evenly enough on both sides of the seam
        near = 0.02 * (b - a)
        if a <= low < a + near / 4 and b - near / 4 < high <= b:
            seam = [np.mean(values < a + near), np.mean(values > b - near)]
            if min(seam) > 0.25 * max(seam):
                return f"circular({a:.10g}, {b:.10g})"
    for a, b in _INTERVALS:
        reach = 0.05 * (b - a)
        if a < low < a + reach and b - reach < high < b:
            return f"bounded({a:g}, {b:g})"
    if low > 0 and low < 0.1 * float(np.median(values)):
        return "positive"
    return ""
