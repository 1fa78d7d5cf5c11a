"""One-dimensional maps of each column, set in closed form from its quantiles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffeo.bijections.set_from_data import SetFromData
from diffeo.elementwise.rational_quadratic import RationalQuadratic, inverse_slope
from diffeo.functional import rational_quadratic as rq
from diffeo.functional import tails
from diffeo.functional.shapes import sum_event

_THRESHOLD = 2.0
"""Where the logarithmic tails begin, in robust standard deviations."""
_HALF = 4.5
"""Half-width of the spline's box, in standard deviations of the normal it maps onto."""


def _quantile(rows: Tensor, p: Tensor) -> Tensor:
    """Quantiles of sorted rows by linear interpolation between the plotting positions (i + 1/2) / n."""
    n = len(rows)
    at = (p * n - 0.5).clamp(0, n - 1)
    low = at.floor().long().clamp(max=n - 1)
    return torch.lerp(rows[low], rows[(low + 1).clamp(max=n - 1)], (at - low)[:, None])


def _reach(n: int) -> float:
    """How far out the largest of ``n`` normal draws may be expected to lie."""
    return float(-torch.special.ndtri(torch.tensor(0.25 / n, dtype=torch.float64)))


class LogTails(SetFromData):
    """Robust standardization, then logarithms beyond two standard deviations: no heavy tails left.

    An outlier at 100 standard deviations costs a flow with linear tails 5,000 nats; here it costs some
    tens, and does not stretch what the layers behind see. With u = (x - median) / spread,

        z = u                                        where |u| <= 2
        z = sign(u) (2 + log(1 + k (|u| - 2)) / k)   beyond,

    continuously differentiable, with a learned rate k > 0 for each column and side, which
    ``initialize`` sets so that the outermost row lands where a normal sample's would. From the outermost row
    on the map is linear: how heavy a tail is beyond all rows is not to be known, and a draw that strays by a
    few units of z would be thrown e^k times as far by each.

    Domain: the whole line. Cost: one logarithm a scalar.

    Args:
        features: D, columns.

    Shape: ``(*batch, D)``.

    Raises:
        DataError: by ``initialize`` for rows that are not finite.

    Example:
        >>> import torch
        >>> layer = LogTails(1)
        >>> layer.initialize(torch.distributions.Cauchy(0.0, 1.0).sample((5000, 1)))
        >>> bool(layer(torch.tensor([[1e4]]))[0] < 30)
        True
    """

    loc: Tensor
    scale: Tensor
    ends: Tensor

    def __init__(self, features: int):
        super().__init__((features,))
        self.register_buffer("loc", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("ends", torch.full((2, features), tails.NO_END))
        self.log_rates = nn.Parameter(torch.full((2, features), -3.0))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_slope = tails.forward((x - self.loc) / self.scale, self.log_rates.exp(), _THRESHOLD, self.ends)
        return z, sum_event(log_slope - self.scale.log(), 1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, log_slope = tails.inverse(y, self.log_rates.exp(), _THRESHOLD, self.ends)
        return u * self.scale + self.loc, sum_event(log_slope + self.scale.log(), 1)

    def set_from(self, rows: Tensor) -> None:
        """Set center, spread, rates and ends from training rows."""
        rows = rows.sort(0).values
        low, middle, high = _quantile(rows, rows.new_tensor([0.1587, 0.5, 0.8413]))
        # a column that mostly repeats one value has no spread between its quantiles
        spread = torch.maximum((high - low) / 2, 0.1 * rows.std(0, unbiased=False))
        spread = torch.where(spread > 1e-12 * (1 + middle.abs()), spread, torch.ones_like(spread))
        self.loc.copy_(middle)
        self.scale.copy_(spread)
        ends = torch.stack([middle - rows[0], rows[-1] - middle]) / spread - _THRESHOLD
        self.ends.copy_(ends.clamp(min=0))
        self.log_rates.copy_(_rate(ends, max(_reach(len(rows)) - _THRESHOLD, 0.5)).log())


def _rate(t: Tensor, reach: float) -> Tensor:
    """The rate k with log(1 + k t) / k = reach, by bisection; the least where t is within reach."""
    low, high = torch.full_like(t, 1e-3), torch.full_like(t, 1e3)
    for _ in range(60):
        k = (low * high).sqrt()
        far = torch.log1p(k * t.clamp(min=0)) / k > reach
        low, high = torch.where(far, k, low), torch.where(far, high, k)
    return (low * high).sqrt()


class Marginal(SetFromData):
    """Each column onto a standard normal by a spline through its quantiles.

    ``initialize`` sets the spline in closed form from training rows; it is then learned on. What the
    layers behind it see has no gaps, spikes or skew left, which on many tables is worth more than a
    larger flow. Beyond the rows' range, extended by a fiftieth, the map goes on linearly.

    Domain: the whole line. Cost: one spline a scalar. Put ``LogTails`` before it.

    Args:
        features: D, columns.
        bins: K of each column's spline.

    Shape: ``(*batch, D)``.

    Raises:
        DataError: by ``initialize`` for rows that are not finite.

    References: Chen and Gopinath 2001, "Gaussianization", section 3; Dai and Seljak 2021, section 3.

    Example:
        >>> import torch
        >>> layer = Marginal(1, bins=16)
        >>> rows = torch.rand(5000, 1)
        >>> layer.initialize(rows)
        >>> z = layer(rows)[0]
        >>> bool(z.mean().abs() < 0.1), bool((z.std() - 1).abs() < 0.1)
        (True, True)
    """

    center: Tensor
    stretch: Tensor

    def __init__(self, features: int, bins: int = 32):
        super().__init__((features,))
        self.family = RationalQuadratic(bins, _HALF)
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("stretch", torch.ones(features))
        self.params = nn.Parameter(torch.zeros(features, self.family.num_params))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u = (x - self.center) * self.stretch
        y, log_slope = self.family.forward(u, self.params)
        return y, sum_event(log_slope + self.stretch.log(), 1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, log_slope = self.family.inverse(y, self.params)
        return u / self.stretch + self.center, sum_event(log_slope - self.stretch.log(), 1)

    def set_from(self, rows: Tensor) -> None:
        """Set the box and the knots from training rows."""
        rows = rows.sort(0).values
        span = rows[-1] - rows[0]
        varies = span > 1e-12 * (1 + rows[-1].abs())
        span = torch.where(varies, 1.04 * span, 2 * _HALF)
        center = (rows[0] + rows[-1]) / 2
        self.center.copy_(center)
        self.stretch.copy_(2 * _HALF / span)
        rows = (rows - center) * (2 * _HALF / span)

        # half of the inner knots equally probable, half equally spaced under the normal
        inner = self.family.bins - 1
        even = (
            torch.linspace(-1, 1, inner - inner // 2 + 2, dtype=rows.dtype)[1:-1] * 0.85 * _reach(len(rows))
        )
        probable = torch.special.ndtri(torch.linspace(0, 1, inner // 2 + 2, dtype=rows.dtype)[1:-1])
        z = torch.cat([even, probable]).sort().values[:, None]
        knots_x = torch.where(varies, _quantile(rows, torch.special.ndtr(z[:, 0])), z)
        self.params.copy_(_through(knots_x, z.expand_as(knots_x)).T)


def _through(inner_x: Tensor, inner_y: Tensor) -> Tensor:
    """Parameters, ``(3 K - 1, D)``, of the splines through these inner knots."""
    low, high = torch.full_like(inner_x[:1], -_HALF), torch.full_like(inner_x[:1], _HALF)
    widths, heights = (
        rq.clip_fractions(torch.cat([low, inner, high]).diff(dim=0) / (2 * _HALF))
        for inner in (inner_x, inner_y)
    )
    s = heights / widths
    # harmonic means of neighboring slopes keep the spline free of wiggles (Fritsch and Butland 1984)
    slopes = (2 * s[1:] * s[:-1] / (s[1:] + s[:-1])).clamp(0.02, 50)
    return torch.cat([rq.fraction_logits(widths), rq.fraction_logits(heights), inverse_slope(slopes)])
