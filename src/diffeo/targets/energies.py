"""The standard test densities that samplers and flows are compared on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Generator, Tensor

from diffeo.errors import ConfigError, ShapeError
from diffeo.targets.base import Sampled

LOG_2PI = math.log(2 * math.pi)


class Energy(ABC):
    """A test density: a target that knows its size, where to look, and often its normalizing constant.

    Args:
        features: D, the columns of x.
        log_z: the logarithm of the integral of ``exp(log_prob)``; None where it is not known.
        scale: the standard deviation of a normal around 0 from which to start looking.
    """

    def __init__(self, features: int, log_z: float | None, scale: float):
        if isinstance(features, bool) or not isinstance(features, int) or features < 1:
            raise ConfigError(
                f"{type(self).__name__}: features must be a whole number of at least 1, got {features}."
            )
        self.features = features
        self.log_z = log_z
        self.scale = scale

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density up to ``log_z``: ``(*batch, features)`` to ``(*batch,)``, in the dtype of ``x``."""
        if x.shape[-1:] != (self.features,):
            raise ShapeError(
                f"{type(self).__name__} has {self.features} columns, but x has shape {tuple(x.shape)}; "
                f"pass (rows, {self.features})."
            )
        return self._log_prob(x)

    @abstractmethod
    def _log_prob(self, x: Tensor) -> Tensor: ...


@final
class GaussianMixture40(Energy, Sampled):
    """Forty equal round Gaussians, strewn over a square of side 80: does a method find every mode?

    Formula: ``p(x) = 1/40 sum_k N(x; m_k, s^2 I)`` in the plane, ``s = softplus(1) = 1.3133``, the means
    those of the reference implementation: uniform on (-40, 40)^2 from torch's generator at seed 0.
    ``log_z = 0``.

    Example:
        >>> import torch
        >>> from diffeo.targets import GaussianMixture40
        >>> target = GaussianMixture40()
        >>> target.modes.shape, target.nearest(target.modes[:3] + 0.1)
        (torch.Size([40, 2]), tensor([0, 1, 2]))

    References:
        Midgley, Stimper, Simm, Schölkopf and Hernández-Lobato (2023), *Flow Annealed Importance Sampling
        Bootstrap*, section 4.1.
    """

    sd: float = math.log1p(math.e)

    def __init__(self) -> None:
        super().__init__(2, 0.0, 25.0)
        uniform = torch.rand((40, 2), generator=Generator().manual_seed(0), dtype=torch.float32)
        self.modes = ((uniform - 0.5) * 2 * 40).double()
        """The forty means, ``(40, 2)``."""

    def _log_prob(self, x: Tensor) -> Tensor:
        squares = ((x.unsqueeze(-2) - self.modes.to(x)) / self.sd).square().sum(-1)
        return torch.logsumexp(-0.5 * squares, -1) - math.log(40) - LOG_2PI - 2 * math.log(self.sd)

    def nearest(self, x: Tensor) -> Tensor:
        """Which mode each row is nearest to, 0 to 39: rows' counts are the weights that a method found."""
        return torch.cdist(x.to(self.modes), self.modes).argmin(-1)

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        which = torch.randint(40, (n,), generator=generator)
        return _default(self.modes[which] + self.sd * _normal(generator, n, 2))


@final
class ManyWell(Energy, Sampled):
    """Independent double wells, 2^(D/2) modes of two weights: does a method drop any?

    Formula: ``log p(x) = sum over pairs of -a^4 + 6 a^2 + a / 2 - b^2 / 2`` with ``(a, b)`` columns
    ``(0, 1)``, ``(2, 3)`` and so on. ``log_z = D/2 (log 11784.50927 + log(2 pi) / 2)``: 164.6957 for D = 32.

    Args:
        features: D, even.

    Raises:
        ConfigError: for an odd number.

    Example:
        >>> from diffeo.targets import ManyWell
        >>> round(ManyWell(32).log_z, 4)
        164.6957

    References:
        Midgley, Stimper, Simm, Schölkopf and Hernández-Lobato (2023), *Flow Annealed Importance Sampling
        Bootstrap*, section 4.2; Noé, Olsson, Köhler and Wu (2019), *Boltzmann generators*.
    """

    log_z: float
    log_z_well: float = 9.374541173869195
    """Of one a: log 11784.50927."""

    def __init__(self, features: int = 32):
        super().__init__(features, features / 2 * (self.log_z_well + 0.5 * LOG_2PI), 2.0)
        if features % 2:
            raise ConfigError(f"ManyWell: features must be even, got {features}.")

    def _log_prob(self, x: Tensor) -> Tensor:
        return self._well(x[..., 0::2]).sum(-1) - 0.5 * x[..., 1::2].square().sum(-1)

    def _well(self, a: Tensor) -> Tensor:
        return -a.square() * (a.square() - 6) + 0.5 * a

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        pairs = self.features // 2
        a = self._wells(n * pairs, generator).reshape(n, pairs)
        return _default(torch.stack([a, _normal(generator, n, pairs)], -1).reshape(n, self.features))

    def _wells(self, n: int, generator: Generator | None) -> Tensor:
        """n exact draws of a: a step function over the wells that is nowhere below them, and rejection."""
        edges = torch.linspace(-4, 4, 4097, dtype=torch.float64)  # beyond, the mass is exp(-160)
        heights = self._well(edges)
        # between edges 1/512 apart, with a curvature of at most 180, it rises 180 / (8 512^2) higher at most
        steps = torch.maximum(heights[1:], heights[:-1]) + 1e-4
        chances = (steps - steps.max()).exp().cumsum(0)
        found = [torch.zeros(0, dtype=torch.float64)]
        while sum(map(len, found)) < n:
            u, place, v = torch.rand(3, n + 100, generator=generator, dtype=torch.float64)
            cell = torch.searchsorted(chances, u * chances[-1], right=True).clamp_max(len(steps) - 1)
            a = edges[cell] + place / 512
            found.append(a[v.log() < self._well(a) - steps[cell]])
        return torch.cat(found)[:n]


@final
class Funnel(Energy, Sampled):
    """Neal's funnel: one column sets the scale of all others, from exp(-5) to exp(5).

    The shape of hierarchical models' posteriors; samplers with one step size miss the neck.

    Formula: ``x_0 ~ N(0, 9)``, the others ``N(0, exp(x_0))``, that being their variance; ``log_z = 0``. So
    that gradients stay finite, the variance falls no further below a point more than 17 standard deviations
    out (``x_0 < -53`` in float32, -425 in float64); the density still integrates to one.

    Args:
        features: D, at least 2.

    Example:
        >>> import torch
        >>> from diffeo.targets import Funnel
        >>> Funnel(3).log_prob(torch.zeros(1, 3))
        tensor([-3.8554])

    References:
        Neal (2003), *Slice Sampling*, section 8.
    """

    def __init__(self, features: int = 10):
        super().__init__(features, 0.0, 3.0)
        if features < 2:
            raise ConfigError(f"Funnel: features must be at least 2, got {features}.")

    def _log_prob(self, x: Tensor) -> Tensor:
        first, others = x[..., 0], x[..., 1:]
        neck = -0.6 * math.log(torch.finfo(x.dtype).max)
        log_variance = first.clamp_min(neck)
        squares = (others * torch.exp(-0.5 * log_variance).unsqueeze(-1)).square().sum(-1)
        below = -0.5 * (squares + (self.features - 1) * log_variance)
        return below - 0.5 * (first / 3).square() - math.log(3) - 0.5 * self.features * LOG_2PI

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        noise = _normal(generator, n, self.features)
        first = 3 * noise[:, :1]
        return _default(torch.cat([first, torch.exp(0.5 * first) * noise[:, 1:]], 1))


@final
class Banana(Energy, Sampled):
    """A normal bent along a parabola: strong dependence that no linear map undoes.

    Formula: ``x_0 ~ N(0, spread^2)``, ``x_1 ~ N(bend (spread^2 - x_0^2), 1)``, the others standard normal;
    ``log_z = 0``.

    Args:
        features: D, at least 2.
        bend: b; 0.03 is the moderate banana of the paper, 0.1 the strong one.
        spread: standard deviation along the banana, > 0.

    Example:
        >>> import torch
        >>> from diffeo.targets import Banana
        >>> Banana().log_prob(torch.tensor([[0.0, 3.0]]))
        tensor([-4.1405])

    References:
        Haario, Saksman and Tamminen (1999), *Adaptive proposal distribution for random walk Metropolis
        algorithm*.
    """

    def __init__(self, features: int = 2, bend: float = 0.03, spread: float = 10.0):
        super().__init__(features, 0.0, spread)
        if features < 2 or not math.isfinite(bend) or not 0 < spread < math.inf:
            raise ConfigError(
                f"Banana: features must be at least 2, bend finite and spread positive, got {features}, "
                f"{bend} and {spread}."
            )
        self.bend = bend
        self.spread = spread

    def _log_prob(self, x: Tensor) -> Tensor:
        first, second = x[..., 0], x[..., 1] - self._ridge(x[..., 0])
        squares = (first / self.spread).square() + second.square() + x[..., 2:].square().sum(-1)
        return -0.5 * squares - math.log(self.spread) - 0.5 * self.features * LOG_2PI

    def _ridge(self, first: Tensor) -> Tensor:
        return self.bend * (self.spread**2 - first.square())

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        x = _normal(generator, n, self.features)
        x[:, 0] *= self.spread
        x[:, 1] += self._ridge(x[:, 0])
        return _default(x)


def _normal(generator: Generator | None, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _default(x: Tensor) -> Tensor:
    return x.to(torch.get_default_dtype())
