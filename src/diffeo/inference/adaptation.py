"""What a warm-up learns: a step size, and the spread of each coordinate."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class DualAveraging:
    """A step size for which the mean probability of acceptance is ``goal``.

    With ``e_t = goal - acceptance`` the tried sizes are ``log s_t = mu - sqrt(t) / gamma * H_t``, where H
    is a running mean of e; ``settled`` averages them, the later ones more.

    Args:
        first: size to start from; sizes up to ten times that are tried soon.
        goal: wanted mean probability of acceptance, in (0, 1).

    References: Hoffman and Gelman 2014, "The No-U-turn sampler", section 3.2, eq. 6 and the constants of
    section 3.2.1.

    Example:
        >>> steps = DualAveraging(1.0, 0.8)
        >>> for _ in range(300):
        ...     steps.update(math.exp(-steps.size))  # acceptance falls with the size
        >>> abs(math.exp(-steps.settled) - 0.8) < 0.02
        True
    """

    gamma, delay, kappa = 0.05, 10, 0.75

    def __init__(self, first: float, goal: float):
        self.goal = goal
        self.size = first
        self.restart()

    def restart(self) -> None:
        """Forget all but the present size: the problem has changed."""
        self._count = 0
        self._error = 0.0
        self._center = math.log(10 * self.size)
        self._mean = 0.0

    def update(self, acceptance: float) -> None:
        """Take the mean probability of acceptance at ``size``, and set the next."""
        self._count += 1
        t = self._count
        self._error += (self.goal - acceptance - self._error) / (t + self.delay)
        log_size = self._center - math.sqrt(t) / self.gamma * self._error
        self._mean += t**-self.kappa * (log_size - self._mean)
        self.size = math.exp(min(max(log_size, -40.0), 40.0))

    @property
    def settled(self) -> float:
        """The averaged size."""
        return math.exp(self._mean) if self._count else self.size


class Spread:
    """Running variance of each coordinate over all rows given, shrunk toward that of the latent, 1.

    Example:
        >>> spread = Spread(2)
        >>> spread.update(torch.tensor([[0.0, 0.0], [0.0, 20.0]]).repeat(1000, 1))
        >>> [round(s, 1) for s in spread.std.tolist()]
        [0.1, 10.0]
    """

    prior = 10

    def __init__(self, features: int):
        self._count = 0
        self._mean = torch.zeros(features, dtype=torch.float64)
        self._sum = torch.zeros(features, dtype=torch.float64)

    def update(self, rows: Tensor) -> None:
        """Add rows, ``(rows, D)``."""
        here = rows.mean(0)
        shift, total = here - self._mean.to(here), self._count + len(rows)
        self._sum = self._sum.to(here) + (rows - here).square().sum(0)
        self._sum += shift.square() * (self._count * len(rows) / total)
        self._mean = self._mean.to(here) + shift * (len(rows) / total)
        self._count = total

    @property
    def std(self) -> Tensor:
        """Standard deviations, ``(D,)``."""
        return ((self._sum + self.prior) / (self._count + self.prior)).sqrt()
