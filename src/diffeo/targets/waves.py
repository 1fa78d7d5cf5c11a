"""The four plane energies of Rezende and Mohamed."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Generator, Tensor

from diffeo.targets.base import Sampled
from diffeo.targets.energies import Energy

_ROOT_2PI = math.sqrt(2 * math.pi)
_EDGE, _FALL = 4.0, 0.4


@final
class U1(Energy, Sampled):
    """A ring with two dense sides: test energy 1 of Rezende and Mohamed.

    Formula: ``log p(x) = -((|x| - 2) / 0.4)^2 / 2 + log(exp(-((x_0 - 2) / 0.6)^2 / 2) + exp(-((x_0 + 2) /
    0.6)^2 / 2))``; ``log_z`` by quadrature.

    Example:
        >>> import torch
        >>> from diffeo.targets import U1
        >>> U1().log_prob(torch.tensor([[2.0, 0.0], [-2.0, 0.0]])).abs() < 1e-6
        tensor([True, True])

    References:
        Rezende and Mohamed (2015), *Variational Inference with Normalizing Flows*, table 1.
    """

    def __init__(self) -> None:
        super().__init__(2, 1.87750163, 2.0)

    def _log_prob(self, x: Tensor) -> Tensor:
        ring = (torch.linalg.vector_norm(x, dim=-1) - 2) / 0.4
        return -0.5 * ring.square() + _sides(x[..., 0])

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """By rejection: a radius of density ``r exp(-((r - 2) / 0.4)^2 / 2)``, an angle, then the sides."""
        found = [torch.zeros(0, 2, dtype=torch.float64)]
        while sum(map(len, found)) < n:
            size = 4 * n + 100
            r = 2 + 0.4 * torch.randn(size, generator=generator, dtype=torch.float64)
            angle, radial, side = torch.rand(3, size, generator=generator, dtype=torch.float64)
            turn = 2 * math.pi * angle
            x = r.unsqueeze(-1) * torch.stack([turn.cos(), turn.sin()], -1)
            # r beyond 5 is 7.5 standard deviations out, and the sides are at most 1 + exp(-22)
            kept = (5 * radial < r) & (side.log() < _sides(x[:, 0]) - 1e-9)
            found.append(x[kept])
        return torch.cat(found)[:n].to(torch.get_default_dtype())


def _sides(first: Tensor) -> Tensor:
    right, left = (-0.5 * ((first - c) / 0.6).square() for c in (2, -2))
    return torch.logaddexp(right, left)


class _Waves(Energy, Sampled):
    """Ridges along the first axis, each a normal across: where they run, and how wide they are.

    Args:
        widths: standard deviations across.
    """

    def __init__(self, widths: Sequence[float]):
        length = 2 * _EDGE + _FALL * _ROOT_2PI
        super().__init__(2, math.log(sum(widths) * _ROOT_2PI * length), 3.0)
        self.widths = tuple(widths)

    @abstractmethod
    def _ridges(self, first: Tensor) -> tuple[Tensor, ...]:
        """Where along the second axis each runs."""

    def _log_prob(self, x: Tensor) -> Tensor:
        first, second = x[..., 0], x[..., 1]
        ridges = zip(self._ridges(first), self.widths, strict=True)
        across = torch.stack([-0.5 * ((second - c) / w).square() for c, w in ridges])
        beyond = (first.abs() - _EDGE).clamp_min(0) / _FALL
        return torch.logsumexp(across, 0) - 0.5 * beyond.square()

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        u, which = torch.rand(2, n, generator=generator, dtype=torch.float64)
        along, across = torch.randn(2, n, generator=generator, dtype=torch.float64)
        inside = 2 * _EDGE / (2 * _EDGE + _FALL * _ROOT_2PI)
        first = torch.where(u < inside, _EDGE * (2 * u / inside - 1), along.sign() * _EDGE + _FALL * along)
        widths = torch.tensor(self.widths, dtype=torch.float64)
        k = (which.unsqueeze(-1) >= (widths.cumsum(0) / widths.sum())[:-1]).sum(-1)
        ridges = torch.stack(self._ridges(first), -1)
        second = ridges.gather(-1, k.unsqueeze(-1)).squeeze(-1) + widths[k] * across
        return torch.stack([first, second], -1).to(torch.get_default_dtype())


def _wave(first: Tensor) -> Tensor:
    return torch.sin(0.5 * math.pi * first)


@final
class U2(_Waves):
    """One sine wave: test energy 2 of Rezende and Mohamed.

    Formula: ``log p(x) = -((x_1 - sin(pi x_0 / 2)) / 0.4)^2 / 2 - (max(|x_0| - 4, 0) / 0.4)^2 / 2``. The
    last term is ours, and 0 on the square that the paper shows: without it the wave never ends and its
    integral is infinite. With it ``log_z`` is exact, and so are samples.

    Example:
        >>> import torch
        >>> from diffeo.targets import U2
        >>> U2().log_prob(torch.tensor([[1.0, 1.0]])).abs() < 1e-6
        tensor([True])

    References:
        Rezende and Mohamed (2015), *Variational Inference with Normalizing Flows*, table 1.
    """

    def __init__(self) -> None:
        super().__init__((0.4,))

    def _ridges(self, first: Tensor) -> tuple[Tensor, ...]:
        return (_wave(first),)


@final
class U3(_Waves):
    """A sine wave that parts and joins again: test energy 3 of Rezende and Mohamed.

    Formula: two ridges of width 0.35, at ``w_1 = sin(pi x_0 / 2)`` and at ``w_1 - w_2``, ``w_2 = 3
    exp(-((x_0 - 1) / 0.6)^2 / 2)``; ended beyond |x_0| = 4 as ``U2`` is.

    Example:
        >>> from diffeo.targets import U3
        >>> round(U3().log_z, 4)
        2.7598

    References:
        Rezende and Mohamed (2015), *Variational Inference with Normalizing Flows*, table 1.
    """

    def __init__(self) -> None:
        super().__init__((0.35, 0.35))

    def _ridges(self, first: Tensor) -> tuple[Tensor, ...]:
        wave = _wave(first)
        return wave, wave - 3 * torch.exp(-0.5 * ((first - 1) / 0.6).square())


@final
class U4(_Waves):
    """A sine wave that forks: test energy 4 of Rezende and Mohamed.

    Formula: two ridges, of width 0.4 at ``w_1 = sin(pi x_0 / 2)`` and of width 0.35 at ``w_1 - w_3``,
    ``w_3 = 3 / (1 + exp(-(x_0 - 1) / 0.3))``; ended beyond |x_0| = 4 as ``U2`` is.

    Example:
        >>> from diffeo.targets import U4
        >>> round(U4().log_z, 4)
        2.8288

    References:
        Rezende and Mohamed (2015), *Variational Inference with Normalizing Flows*, table 1.
    """

    def __init__(self) -> None:
        super().__init__((0.4, 0.35))

    def _ridges(self, first: Tensor) -> tuple[Tensor, ...]:
        wave = _wave(first)
        return wave, wave - 3 * torch.sigmoid((first - 1) / 0.3)
