"""Each column onto a normal, from its quantiles."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffeo._typing import Initializable
from diffeo.bijections.base import Bijection
from diffeo.elementwise.rational_quadratic import FLOOR, RationalQuadratic
from diffeo.functional import tails
from diffeo.functional.shapes import sum_event

_THRESHOLD = 2.0
_HALF = 4.5


class Marginal(Bijection, Initializable):
    """Each column onto a standard normal: logarithmic tails, then a spline through its quantiles.

    ``initialize`` sets it in closed form from smoothed quantiles of training rows; all of it is then
    learned on. What the layers behind it see has no gaps, spikes or heavy tails left, which is worth
    more on real tables than a larger flow.

    Args:
        features: D, columns.
        bins: K of each column's spline.

    Shape: ``(*batch, D)``.
    """

    loc: Tensor
    scale: Tensor
    shift: Tensor
    stretch: Tensor
    initialized: Tensor

    def __init__(self, features: int, bins: int = 32):
        super().__init__((features,))
        self.family = RationalQuadratic(bins, _HALF)
        for name, value in (("loc", 0.0), ("scale", 1.0), ("shift", 0.0), ("stretch", 1.0)):
            self.register_buffer(name, torch.full((features,), value))
        self.register_buffer("initialized", torch.tensor(False))
        self.log_rates = nn.Parameter(torch.full((2, features), -3.0))
        self.params = nn.Parameter(torch.zeros(features, self.family.num_params))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, ls0 = tails.forward((x - self.loc) / self.scale, *self.log_rates.exp(), _THRESHOLD)
        u = (u - self.shift) * self.stretch
        y, ls1 = self.family.forward(u, self.params.expand(*u.shape, -1))
        return y, sum_event(ls0 + ls1 + (self.stretch / self.scale).log(), 1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, ls1 = self.family.inverse(y, self.params.expand(*y.shape, -1))
        u, ls0 = tails.inverse(u / self.stretch + self.shift, *self.log_rates.exp(), _THRESHOLD)
        return u * self.scale + self.loc, sum_event(ls0 + ls1 - (self.stretch / self.scale).log(), 1)

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set tails and knots from the columns' quantiles; a column that does not vary keeps its place."""
        if self.initialized:
            return
        rows = x.reshape(-1, self.event_shape[0]).double().sort(0).values
        n = len(rows)

        def quantile(p: Tensor) -> Tensor:
            at = (p * n - 0.5).clamp(0, n - 1)
            low = at.floor().long().clamp(max=n - 1)
            high = (low + 1).clamp(max=n - 1)
            return torch.lerp(rows[low], rows[high], (at - low)[:, None].to(rows.dtype))

        lo, mid, hi = quantile(torch.tensor([0.1587, 0.5, 0.8413], dtype=torch.float64))
        spread = (hi - lo) / 2
        std = rows.std(0, unbiased=False)
        spread = torch.where(spread > 0.1 * std, spread, 0.1 * std)
        spread = torch.where(spread > 1e-12 * (1 + mid.abs()), spread, torch.ones_like(spread))
        rows = (rows - mid) / spread
        self.loc.copy_(mid)
        self.scale.copy_(spread)

        expected = float(-torch.special.ndtri(torch.tensor(0.25 / n, dtype=torch.float64)))
        reach = max(expected - _THRESHOLD, 0.5)
        ends = torch.stack([-rows[0], rows[-1]]) - _THRESHOLD
        self.log_rates.copy_(_rate(ends, reach).log())
        rows = tails.forward(rows, *self.log_rates.double().exp(), _THRESHOLD)[0]

        span = rows[-1] - rows[0]
        margin = torch.where(span > 0, 0.02 * span, torch.ones_like(span))
        low, high = rows[0] - margin, rows[-1] + margin
        self.shift.copy_((low + high) / 2)
        self.stretch.copy_(2 * _HALF / (high - low))
        rows = (rows - self.shift.double()) * self.stretch.double()

        k = self.family.bins
        z = _levels(k, expected, n)
        knots_x = quantile(torch.special.ndtr(z))
        self._through(torch.cat([torch.full_like(knots_x[:1], -_HALF), knots_x, torch.full_like(knots_x[:1], _HALF)]), z)
        self.initialized.fill_(True)

    def _through(self, knots_x: Tensor, z: Tensor) -> None:
        k = self.family.bins
        knots_y = torch.cat([z.new_tensor([-_HALF]), z, z.new_tensor([_HALF])])[:, None].expand_as(knots_x)
        box = 2 * _HALF
        widths = (knots_x.diff(dim=0) / box).clamp(min=2 * FLOOR)
        heights = (knots_y.diff(dim=0) / box).clamp(min=2 * FLOOR)
        widths, heights = widths / widths.sum(0), heights / heights.sum(0)
        s = heights / widths
        slopes = (2 * s[1:] * s[:-1] / (s[1:] + s[:-1])).clamp(0.02, 50)

        def logits(f: Tensor) -> Tensor:
            return ((f - FLOOR) / (1 - k * FLOOR)).clamp(min=1e-6).log()

        raw = torch.log(torch.expm1(slopes - FLOOR)) - math.log(math.expm1(1 - FLOOR))
        w, h = logits(widths), logits(heights)
        self.params.copy_(torch.cat([w - w.mean(0), h - h.mean(0), raw]).T)


def _levels(bins: int, expected: float, n: int) -> Tensor:
    """K - 1 inner levels in z: half of them equally probable, half equally spaced."""
    m = bins - 1
    half = m // 2
    even = torch.linspace(-1, 1, m - half + 2, dtype=torch.float64)[1:-1] * expected * 0.85
    probable = torch.special.ndtri(torch.linspace(0, 1, half + 2, dtype=torch.float64)[1:-1])
    return torch.cat([even, probable]).sort().values


def _rate(t: Tensor, reach: float) -> Tensor:
    """The rate k with log(1 + k t) / k = reach; a small one where t is within reach anyway."""
    low, high = torch.full_like(t, 1e-3), torch.full_like(t, 1e3)
    for _ in range(60):
        k = (low * high).sqrt()
        far = torch.log1p(k * t.clamp(min=0)) / k > reach
        low, high = torch.where(far, k, low), torch.where(far, high, k)
    return (low * high).sqrt()


__all__ = ["F", "Marginal"]
