"""``log det(I + J)`` for a contraction's Jacobian J: exact, as a truncated series, and unbiased by roulette.

With every singular value of J at most L < 1, ``log det(I + J) = sum_k (-1)^(k+1) tr(J^k) / k``, and the
gradient is ``tr((I + J)^-1 dJ)`` with ``(I + J)^-1 = sum_k (-1)^k J^k``.

``LogDet.draw`` and ``LogDet.estimate`` are two methods of one object, so that evaluation cannot be random by
mistake.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diffeo.errors import ConfigError
from diffeo.functional.linearize import Product, jacobian
from diffeo.functional.shapes import sum_event

EXACT_FEATURES = 64
"""Up to so many features a determinant costs less than it is worth to estimate it."""


class Estimate(NamedTuple):
    """A log-det and how well it is known."""

    log_det: Tensor
    standard_error: Tensor
    """Of the trace estimates, over the probes; 0 where traces are exact."""
    remainder: float
    """Bound on what a truncated series leaves out, in nats."""


def exact_log_det(product: Product, x: Tensor, event_dims: int) -> Tensor:
    """``log det(I + J)`` by D products and a factorization."""
    j = jacobian(product, x, event_dims)
    size = j.shape[-1]
    if size == 1:
        return j[..., 0, 0].log1p()
    if size == 2:
        a, b, c, d = j.flatten(-2).unbind(-1)
        return (a + d + (a * d - b * c)).log1p()
    return torch.linalg.slogdet(j + torch.eye(size, dtype=j.dtype, device=j.device))[1]


def remainder(lipschitz: float, terms: int, features: int) -> float:
    """Bound on the series' tail after so many terms: ``D L^(n+1) / ((n + 1) (1 - L))``, in nats."""
    return features * lipschitz ** (terms + 1) / ((terms + 1) * (1 - lipschitz))


def terms_for(lipschitz: float, tolerance: float, features: int) -> int:
    """The fewest terms whose remainder is at most ``tolerance``."""
    terms = 1
    while remainder(lipschitz, terms, features) > tolerance:
        terms += 1
    return terms


def rademacher(shape: torch.Size, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Signs, each with probability a half."""
    signs = torch.randint(0, 2, shape, generator=generator, device=like.device)
    return signs.to(like.dtype).mul_(2).sub_(1)


def probed_series(product: Product, probes: Tensor, weights: list[float], event_dims: int) -> Tensor:
    """``sum_k weights[k-1] v' J^k v`` for each probe v: ``(K, *batch)``, by differentiable products."""
    power, total = probes, torch.zeros(probes.shape[: probes.dim() - event_dims]).to(probes)
    for weight in weights:
        power = product(power)
        total = total + weight * sum_event(power * probes, event_dims)
    return total


def alternating(terms: int) -> list[float]:
    """``(-1)^(k+1) / k`` for k = 1 .. terms."""
    return [(-1) ** (k + 1) / k for k in range(1, terms + 1)]


class LogDet(ABC):
    """How ``log det(I + J)`` is computed: by ``draw`` in training, by ``estimate`` in evaluation."""

    @abstractmethod
    def exact(self, features: int) -> bool:
        """Whether its value is exact in training as in evaluation."""

    @abstractmethod
    def probe_shape(self, event_shape: torch.Size) -> torch.Size | None:
        """Of the fixed probes that evaluation takes; None where it takes none."""

    @abstractmethod
    def estimate(
        self, product: Product, x: Tensor, event_dims: int, lipschitz: float, probes: Tensor | None
    ) -> Estimate:
        """In evaluation: ``(*batch,)``, the same each time."""

    @abstractmethod
    def draw(self, product: Product, x: Tensor, event_dims: int, lipschitz: float) -> Tensor:
        """In training: ``(*batch,)``, with noise from torch's default generator where it is an estimate."""


@dataclass(frozen=True)
class ExactLogDet(LogDet):
    """The determinant of the D x D Jacobian. Cost: D products, and D^3 for each row."""

    def exact(self, features: int) -> bool:
        return True

    def probe_shape(self, event_shape: torch.Size) -> torch.Size | None:
        return None

    def estimate(
        self, product: Product, x: Tensor, event_dims: int, lipschitz: float, probes: Tensor | None
    ) -> Estimate:
        log_det = exact_log_det(product, x, event_dims)
        return Estimate(log_det, torch.zeros_like(log_det), 0.0)

    def draw(self, product: Product, x: Tensor, event_dims: int, lipschitz: float) -> Tensor:
        return exact_log_det(product, x, event_dims)


@dataclass(frozen=True)
class SeriesLogDet(LogDet):
    """The power series, cut where its remainder is below ``tolerance``; traces by random signs.

    Its expectation is off by at most the remainder. In evaluation the probes are fixed, the number of terms
    comes from the bound, and the standard error over the probes is reported.

    Args:
        tolerance: bound on the remainder, in nats for each feature.
        probes: random signs for each row in evaluation; training takes one.

    References: Behrmann et al. 2019, "Invertible residual networks", section 3.2, theorem 3.
    """

    tolerance: float = 1e-3
    probes: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < math.inf:
            raise ConfigError(f"tolerance must be positive and finite, not {self.tolerance}.")
        if self.probes < 2:
            raise ConfigError(f"probes must be at least 2, for a standard error, not {self.probes}.")

    def exact(self, features: int) -> bool:
        return False

    def probe_shape(self, event_shape: torch.Size) -> torch.Size | None:
        return torch.Size([self.probes, *event_shape])

    def terms(self, lipschitz: float) -> int:
        """How many terms the tolerance takes."""
        return terms_for(lipschitz, self.tolerance, 1)

    def estimate(
        self, product: Product, x: Tensor, event_dims: int, lipschitz: float, probes: Tensor | None
    ) -> Estimate:
        assert probes is not None
        batch, event = x.shape[: x.dim() - event_dims], probes.shape[1:]
        each = probes.reshape(len(probes), *[1] * len(batch), *event).expand(len(probes), *x.shape)
        terms = self.terms(lipschitz)
        draws = probed_series(product, each, alternating(terms), event_dims)
        error = draws.std(0) / math.sqrt(len(draws))
        return Estimate(draws.mean(0), error, remainder(lipschitz, terms, event.numel()))

    def draw(self, product: Product, x: Tensor, event_dims: int, lipschitz: float) -> Tensor:
        terms = self.terms(lipschitz)
        return _with_neumann_gradient(product, x, event_dims, [1.0] * terms)


@dataclass(frozen=True)
class RouletteLogDet(LogDet):
    """The power series cut at random and reweighted, so that value and gradient are unbiased in training.

    ``exact_terms`` are always computed; each one after them is the last with probability ``stop``, and term k
    is divided by the probability that it was reached. In evaluation there is nothing random: exact up to 64
    features, else the series with its terms chosen from the bound and fixed probes.

    Args:
        exact_terms: terms before the roulette begins, at least 1.
        stop: probability in (0, 1 - L^2), outside which the variance is infinite; by default 1 - L.
        evaluation: the series for evaluation of more than 64 features.

    References: Chen, Behrmann, Duvenaud and Jacobsen 2019, "Residual flows for invertible generative
    modeling", theorems 1 and 2, eqs. 6 and 8.
    """

    exact_terms: int = 4
    stop: float | None = None
    evaluation: SeriesLogDet = SeriesLogDet()

    def __post_init__(self) -> None:
        if self.exact_terms < 1:
            raise ConfigError(f"exact_terms must be at least 1, not {self.exact_terms}.")
        if self.stop is not None and not 0 < self.stop < 1:
            raise ConfigError(f"stop must be in (0, 1), not {self.stop}.")

    def exact(self, features: int) -> bool:
        return False

    def probe_shape(self, event_shape: torch.Size) -> torch.Size | None:
        few = event_shape.numel() <= EXACT_FEATURES
        return None if few else self.evaluation.probe_shape(event_shape)

    def estimate(
        self, product: Product, x: Tensor, event_dims: int, lipschitz: float, probes: Tensor | None
    ) -> Estimate:
        way = ExactLogDet() if probes is None else self.evaluation
        return way.estimate(product, x, event_dims, lipschitz, probes)

    def draw(self, product: Product, x: Tensor, event_dims: int, lipschitz: float) -> Tensor:
        stop = 1 - lipschitz if self.stop is None else self.stop
        if not stop < 1 - lipschitz**2:
            raise ConfigError(
                f"stop = {stop} gives infinite variance for a Lipschitz bound of {lipschitz}; "
                f"it must be below 1 - L^2 = {1 - lipschitz**2:.4g}."
            )
        u = 1 - torch.rand((), dtype=torch.float64).item()  # in (0, 1]
        go_on = 1 - stop
        more = 1 + int(math.log(u) / math.log(go_on)) if go_on > 0 else 1  # P(more >= j) = go_on^(j - 1)
        weights = [1.0] * self.exact_terms + [go_on**-j for j in range(more)]
        return _with_neumann_gradient(product, x, event_dims, weights)


def _with_neumann_gradient(product: Product, x: Tensor, event_dims: int, weights: list[float]) -> Tensor:
    """The series of fresh probes, term k times ``weights[k-1]``, with the gradient of the Neumann series.

    ``u = sum_k (-1)^k weights[k] J^k v`` is a constant, and the gradient that of ``v' J u``: memory for one
    product however many terms there are.
    """
    v = rademacher(torch.Size([1, *x.shape]), x)
    with torch.no_grad():
        power, u, value = v, torch.zeros_like(v), torch.zeros_like(v[..., 0] if event_dims else v)
        value = sum_event(torch.zeros_like(v), event_dims)
        for k, weight in enumerate(weights, 1):
            u = u + (-1) ** (k - 1) * weight * power
            power = product(power)
            value = value + (-1) ** (k + 1) * weight / k * sum_event(power * v, event_dims)
    slope = sum_event(v * product(u), event_dims)
    return (value + (slope - slope.detach())).squeeze(0)
