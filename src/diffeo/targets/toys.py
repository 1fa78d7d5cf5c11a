"""Two-dimensional toy densities with exact log-densities and entropies.

The eight toys of FFJORD (Grathwohl et al. 2019), defined by the same generators. Their rows here are
independent draws, where some of those generators place angles on a grid and fill the parts of a figure in
equal numbers. Each toy knows its exact log-density and its entropy, the smallest mean negative
log-likelihood that any model can reach on fresh samples: a model's *gap to entropy* is an absolute grade.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import numpy as np
import torch
from torch import Generator, Tensor

from diffeo.targets.base import Sampled
from diffeo.targets.energies import Energy

_BLOCK = 4096  # rows of log_prob computed at once, to bound memory


@final
class Toy(Energy, Sampled):
    """A two-dimensional density with a known entropy, which can be sampled exactly.

    Use one to see what a model gets wrong: ``-mean(flow.log_prob(x)) - toy.entropy`` on fresh samples is the
    model's distance to the truth, ``KL(p || model)``, in nats; ``mean(toy.log_prob(x) - flow.log_prob(x))``
    estimates the same with less noise. It is a target too: ``fit_target(flow, TOYS["moons"])``.

    ``log_z`` is 0 and ``scale`` 2. Gradients are exact, but the checkerboard, which is flat, gives none.

    Args:
        name: its key in ``TOYS``.
        entropy: ``-E[log p(x)]`` in nats; closed form or quadrature, error below 1e-5.
        draw: ``draw(n, generator)`` gives n independent rows, ``(n, 2)`` in float64.
        log_density: ``(n, 2)`` to ``(n,)`` in float64.

    Example:
        >>> import torch
        >>> from diffeo.targets import TOYS
        >>> toy = TOYS["moons"]
        >>> x = toy.sample(1000, torch.Generator().manual_seed(0))
        >>> x.shape, x.dtype
        (torch.Size([1000, 2]), torch.float32)
        >>> abs(-toy.log_prob(x).mean() - toy.entropy).item() < 0.1
        True
    """

    def __init__(
        self,
        name: str,
        entropy: float,
        draw: Callable[[int, Generator | None], Tensor],
        log_density: Callable[[Tensor], Tensor],
    ):
        super().__init__(2, 0.0, 2.0)
        self.name, self.entropy, self.draw, self.log_density = name, entropy, draw, log_density

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        return self.draw(n, generator).to(torch.get_default_dtype())

    def _log_prob(self, x: Tensor) -> Tensor:
        blocks = x.reshape(-1, 2).to(torch.float64).split(_BLOCK)
        return torch.cat([self.log_density(b) for b in blocks]).reshape(x.shape[:-1]).to(x.dtype)


# -- shared parts -----------------------------------------------------------------------------------


def _rand(generator: Generator | None, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def _randn(generator: Generator | None, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _randint(generator: Generator | None, stop: int, n: int) -> Tensor:
    return torch.randint(stop, (n,), generator=generator)


def _polar(radius: Tensor | float, angle: Tensor) -> Tensor:
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1)


def _gauss_legendre(start: float, stop: float, panels: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the 16-point rule on each of so many equal panels."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(16))
    width = (stop - start) / panels
    left = start + width * torch.arange(panels, dtype=torch.float64)[:, None]
    return (left + width * (nodes + 1) / 2).flatten(), (width / 2 * weights).repeat(panels)


def _gaussians(x: Tensor, centers: Tensor, weights: Tensor, scale: float) -> Tensor:
    """``log sum_i w_i N(x; c_i, scale^2 I)``."""
    square = torch.cdist(x, centers, compute_mode="donot_use_mm_for_euclid_dist").square()
    return (weights.log() - square / (2 * scale**2)).logsumexp(-1) - math.log(2 * math.pi * scale**2)


def _blurred_circles(x: Tensor, radii: tuple[float, ...], scale: float) -> Tensor:
    """An equal mixture of circles, each blurred by ``N(0, scale^2 I)``.

    One of radius R has density ``exp(-(r^2 + R^2) / (2 s^2)) I_0(r R / s^2) / (2 pi s^2)`` at distance r.
    """
    r = x.norm(dim=-1, keepdim=True)
    R = torch.tensor(radii, dtype=torch.float64)
    each = torch.special.i0e(r * R / scale**2).log() - (r - R).square() / (2 * scale**2)
    return each.logsumexp(-1) - math.log(2 * math.pi * scale**2 * len(radii))


# -- the toys ---------------------------------------------------------------------------------------

# 8gaussians: centers at distance 4 / 1.414, standard deviation 0.5 / 1.414 (the generator's own 1.414).
_EIGHT_SCALE = 0.5 / 1.414


def _eight_centers() -> Tensor:
    return _polar(4 / 1.414, torch.arange(8, dtype=torch.float64) * math.pi / 4)


def _eight_draw(n: int, generator: Generator | None) -> Tensor:
    return _eight_centers()[_randint(generator, 8, n)] + _EIGHT_SCALE * _randn(generator, n, 2)


def _eight_density(x: Tensor) -> Tensor:
    return _gaussians(x, _eight_centers(), torch.full((8,), 1 / 8, dtype=torch.float64), _EIGHT_SCALE)


# checkerboard: eight of the sixteen 2 x 2 squares of [-4, 4)^2, those whose indices add up to an even number.


def _checkerboard_draw(n: int, generator: Generator | None) -> Tensor:
    x = 4 * _rand(generator, n) - 2
    y = _rand(generator, n) - 2 * _randint(generator, 2, n) + x.floor() % 2
    return 2 * torch.stack([x, y], -1)


def _checkerboard_density(x: Tensor) -> Tensor:
    inside = ((x >= -4) & (x < 4)).all(-1) & ((x / 2).floor().sum(-1) % 2 == 0)
    log_p = torch.full_like(x[:, 0], -math.log(32.0)).masked_fill(~inside, -math.inf)
    return log_p.masked_fill(x.isnan().any(-1), math.nan)


# moons: two interleaved half circles of radius 2, blurred by 0.2 (scikit-learn's, twice as large, moved).
_MOON_SCALE = 0.2


def _moon(angle: Tensor, lower: Tensor) -> Tensor:
    upper = _polar(1.0, angle)
    point = torch.where(lower[:, None], torch.tensor([1.0, 0.5], dtype=torch.float64) - upper, upper)
    return 2 * point + torch.tensor([-1.0, -0.2], dtype=torch.float64)


def _moons_draw(n: int, generator: Generator | None) -> Tensor:
    lower = _randint(generator, 2, n).bool()
    return _moon(math.pi * _rand(generator, n), lower) + _MOON_SCALE * _randn(generator, n, 2)


def _moons_density(x: Tensor) -> Tensor:
    t, w = _gauss_legendre(0.0, math.pi, 8)
    lower = torch.zeros_like(t, dtype=torch.bool)
    centers = torch.cat([_moon(t, lower), _moon(t, ~lower)])
    return _gaussians(x, centers, torch.cat([w, w]) / (2 * math.pi), _MOON_SCALE)


# circles: radii 3 and 1.5, blurred by 0.24; rings: radii 3, 2.25, 1.5 and 0.75, blurred by 0.08.


def _circles_draw(radii: tuple[float, ...], scale: float) -> Callable[[int, Generator | None], Tensor]:
    def draw(n: int, generator: Generator | None) -> Tensor:
        radius = torch.tensor(radii, dtype=torch.float64)[_randint(generator, len(radii), n)]
        return _polar(radius, 2 * math.pi * _rand(generator, n)) + scale * _randn(generator, n, 2)

    return draw


def _circles_density(radii: tuple[float, ...], scale: float) -> Callable[[Tensor], Tensor]:
    return lambda x: _blurred_circles(x, radii, scale)


# pinwheel: f = (r, s) ~ N(1, 0.3^2) N(0, 0.1^2), turned clockwise by 2 pi k / 5 + exp(r) / 4, times 2.


def _pinwheel_draw(n: int, generator: Generator | None) -> Tensor:
    r, s = 1 + 0.3 * _randn(generator, n), 0.1 * _randn(generator, n)
    turn = 2 * math.pi / 5 * _randint(generator, 5, n) + r.exp() / 4
    return 2 * torch.stack([r * turn.cos() + s * turn.sin(), s * turn.cos() - r * turn.sin()], -1)


def _pinwheel_density(x: Tensor) -> Tensor:
    """Turning keeps ``rho = |f|``; the angle of f is a root phi of ``phi - exp(rho cos phi) / 4 = theta``
    modulo ``2 pi / 5`` (some arm), and each root gives ``p_f(f) / |1 + s exp(r) / 4|`` of density."""
    rho, theta = (x / 2).norm(dim=-1), torch.atan2(x[:, 1], x[:, 0])
    period = 2 * math.pi / 5

    def turns(phi: Tensor, rho: Tensor, theta: Tensor) -> Tensor:
        return (phi - (rho * phi.cos()).exp() / 4 - theta) / period

    # Every cell of a fine grid in which the number of whole turns changes holds a root.
    grid = torch.linspace(-math.pi, math.pi, 257, dtype=torch.float64)
    whole = turns(grid, rho[:, None], theta[:, None]).floor()
    row, cell = (whole[:, 1:] != whole[:, :-1]).nonzero(as_tuple=True)
    at = rho[row], theta[row]
    level = torch.maximum(whole[row, cell], whole[row, cell + 1])
    low, high = grid[cell], grid[cell + 1]
    rises = whole[row, cell + 1] > whole[row, cell]
    for _ in range(48):
        middle = (low + high) / 2
        before = (turns(middle, *at) < level) == rises
        low, high = torch.where(before, middle, low), torch.where(before, high, middle)
    phi = (low + high) / 2
    # a root moves with x: one Newton step, whose value is nothing and whose gradient is the root's
    slope = 1 + at[0] * phi.sin() * (at[0] * phi.cos()).exp() / 4
    step = (turns(phi, *at) - level) * period / slope
    phi = phi - (step - step.detach())
    r, s = at[0] * phi.cos(), at[0] * phi.sin()
    log_p = -((r - 1) / 0.3).square() / 2 - (s / 0.1).square() / 2 - (1 + s * r.exp() / 4).abs().log()
    log_p = log_p - math.log(2 * math.pi * 0.3 * 0.1 * 5 * 4)
    peak = torch.full_like(rho, -math.inf).scatter_reduce(0, row, log_p, "amax")
    return peak + torch.zeros_like(rho).index_add(0, row, (log_p - peak[row]).exp()).log() + x.sum(-1) * 0


# 2spirals: u = +-((-t cos t, t sin t) + U(0, 1/2)^2) / 3 with t = 3 pi sqrt(U(0, 1)), blurred by 0.1.


def _spiral(t: Tensor) -> Tensor:
    return torch.stack([-t * t.cos(), t * t.sin()], -1)


def _spirals_draw(n: int, generator: Generator | None) -> Tensor:
    arm = _spiral(3 * math.pi * _rand(generator, n).sqrt()) + 0.5 * _rand(generator, n, 2)
    sign = 1 - 2 * _randint(generator, 2, n)[:, None]
    return sign * arm / 3 + 0.1 * _randn(generator, n, 2)


def _spirals_density(x: Tensor) -> Tensor:
    """t has density ``2 t / (3 pi)^2``; each coordinate is a uniform of width 1/6 blurred by 0.1.

    Such a coordinate at distance d from its mean has the density ``6 (Phi(10 d + h) - Phi(10 d - h))``,
    h = 1 / 1.2.
    """
    t, w = _gauss_legendre(0.0, 3 * math.pi, 30)
    weight = w * 2 * t / (3 * math.pi) ** 2 / 2
    center = torch.cat([_spiral(t) + 0.25, -_spiral(t) - 0.25]).T / 3
    weight = torch.cat([weight, weight])
    h = 1 / 1.2

    def distance(x: Tensor) -> Tensor:
        return (x.T[:, :, None] - center[:, None, :]).abs() / 0.1

    far = distance(x) / math.sqrt(2)
    p = ((torch.erf(far + h / math.sqrt(2)) - torch.erf(far - h / math.sqrt(2))) / 2).prod(0) @ weight
    rare = p < 1e-8  # where differences of erf lose their digits: the same in logarithms
    log_p = torch.where(rare, 1.0, p).log()
    if rare.any():
        far = distance(x[rare])
        upper, lower = torch.special.log_ndtr(h - far), torch.special.log_ndtr(-h - far)
        each = (upper + torch.log(-torch.expm1(lower - upper))).sum(0)
        log_p[rare] = (each + weight.log()).logsumexp(-1)
    return log_p + 2 * math.log(6.0)


# swissroll: (t cos t, t sin t) / 5 with t uniform on (1.5 pi, 4.5 pi), blurred by 0.2.
_ROLL = (1.5 * math.pi, 4.5 * math.pi)


def _swissroll_draw(n: int, generator: Generator | None) -> Tensor:
    t = _ROLL[0] + (_ROLL[1] - _ROLL[0]) * _rand(generator, n)
    return _polar(t, t) / 5 + 0.2 * _randn(generator, n, 2)


def _swissroll_density(x: Tensor) -> Tensor:
    t, w = _gauss_legendre(*_ROLL, 20)
    return _gaussians(x, _polar(t, t) / 5, w / (_ROLL[1] - _ROLL[0]), 0.2)


_TWO, _FOUR = (3.0, 1.5), (3.0, 2.25, 1.5, 0.75)

TOYS: dict[str, Toy] = {
    toy.name: toy
    for toy in (
        Toy("8gaussians", 2.83188, _eight_draw, _eight_density),
        Toy("checkerboard", math.log(32.0), _checkerboard_draw, _checkerboard_density),
        Toy("moons", 2.39388, _moons_draw, _moons_density),
        Toy("circles", 3.26814, _circles_draw(_TWO, 0.24), _circles_density(_TWO, 0.24)),
        Toy("rings", 2.62318, _circles_draw(_FOUR, 0.08), _circles_density(_FOUR, 0.08)),
        Toy("pinwheel", 2.31779, _pinwheel_draw, _pinwheel_density),
        Toy("2spirals", 2.64545, _spirals_draw, _spirals_density),
        Toy("swissroll", 2.66965, _swissroll_draw, _swissroll_density),
    )
}
"""The eight toys by name, with entropies that the tests derive again."""
