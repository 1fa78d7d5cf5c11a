"""Laws of which every question has an exact answer: discrete columns, and a Gaussian for each of their cells.

A cell is one level of each discrete column. Given levels or sets of them, values of numbers, and an interval
of one number, a cell's weight is its share times the density of the values times the interval's probability;
all answers are means over cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import multivariate_normal, norm


@dataclass(frozen=True)
class Law:
    """Levels by column, the share of each cell, and mean and covariance of the numbers there."""

    levels: Mapping[str, Sequence[str]]
    shares: np.ndarray
    """As many axes as there are discrete columns."""
    numbers: Sequence[str]
    means: np.ndarray
    """(cells, numbers), cells in the order of ``shares.ravel()``."""
    covariances: np.ndarray

    def draw(self, rows: int, seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        cell = rng.choice(self.shares.size, rows, p=self.shares.ravel())
        root = np.linalg.cholesky(self.covariances)
        x = self.means[cell] + np.einsum(
            "nij,nj->ni", root[cell], rng.standard_normal((rows, len(self.numbers)))
        )
        which = np.unravel_index(cell, self.shares.shape) if self.levels else ()
        found = {name: np.array(own)[i] for (name, own), i in zip(self.levels.items(), which, strict=True)}
        return found | dict(zip(self.numbers, x.T, strict=True))

    def _weights(self, given: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each cell its weight, and mean and covariance of the numbers given the values among them."""
        weights = self.shares.astype(float)
        for axis, (name, own) in enumerate(self.levels.items()):
            if name in given:
                wanted = given[name] if isinstance(given[name], set) else {given[name]}
                shape = [-1 if i == axis else 1 for i in range(weights.ndim)]
                weights = weights * np.reshape([level in wanted for level in own], shape)
        weights = weights.ravel().copy()
        fixed = [j for j, name in enumerate(self.numbers) if isinstance(given.get(name), float)]
        if not fixed:
            return weights, self.means, self.covariances
        values = np.array([given[self.numbers[j]] for j in fixed])
        means, covariances = self.means.copy(), self.covariances.copy()
        for cell, (mean, cov) in enumerate(zip(self.means, self.covariances, strict=True)):
            weights[cell] *= multivariate_normal.pdf(values, mean[fixed], cov[np.ix_(fixed, fixed)])
            gain = np.linalg.solve(cov[np.ix_(fixed, fixed)], cov[fixed]).T
            means[cell], covariances[cell] = mean + gain @ (values - mean[fixed]), cov - gain @ cov[fixed]
        return weights, means, covariances

    def _interval(self, given: Mapping[str, Any]) -> tuple[int, np.ndarray] | None:
        found = [name for name in self.numbers if isinstance(given.get(name), tuple)]
        return (self.numbers.index(found[0]), np.array(given[found[0]])) if found else None

    def mean(self, column: str, given: Mapping[str, Any]) -> float:
        weights, means, covariances = self._weights(given)
        j, held = self.numbers.index(column), self._interval(given)
        values = means[:, j]
        if held is not None:
            i, ends = held
            scale = np.sqrt(covariances[:, i, i])
            z = (ends[:, None] - means[:, i]) / scale
            inside = norm.cdf(z[1]) - norm.cdf(z[0])
            values = values + covariances[:, i, j] / scale * (norm.pdf(z[0]) - norm.pdf(z[1])) / inside
            weights = weights * inside
        return float(weights @ values / weights.sum())

    def probability(self, column: str, wanted: Any, given: Mapping[str, Any]) -> float:
        """Of a level, or of a number in an interval."""
        whole, part = self._mass(given), self._mass({**given, column: wanted})
        if column in given:
            raise ValueError(f"{column} is given.")
        return part / whole

    def _mass(self, given: Mapping[str, Any]) -> float:
        """The density of what is given; of intervals, the probability."""
        weights, means, covariances = self._weights(given)
        held = [name for name in self.numbers if isinstance(given.get(name), tuple)]
        at = [self.numbers.index(name) for name in held]
        if held:
            low, high = np.array([given[name] for name in held]).T
            boxes = [
                multivariate_normal.cdf(
                    high, m[at], c[np.ix_(at, at)], lower_limit=low, abseps=1e-9, releps=1e-9
                )
                for m, c in zip(means, covariances, strict=True)
            ]
            weights = weights * boxes
        return float(weights.sum())

    def log_density(self, values: Mapping[str, Any]) -> float:
        """Of these columns alone, whatever the others are."""
        return float(np.log(self._mass(values)))


def gaussian(seed: int = 1) -> Law:
    rng = np.random.default_rng(seed)
    a, scale = rng.standard_normal((5, 5)), np.array([1, 10, 0.1, 3, 100.0])
    cov = (a @ a.T + 0.3 * np.eye(5)) * np.outer(scale, scale)
    return Law({}, np.ones(1), list("abcde"), (scale * [0, 2, 5, -1, 3])[None], cov[None])


def net(seed: int = 2) -> Law:
    """A Bayes net of six columns, each with one or two parents among those before it."""
    rng = np.random.default_rng(seed)
    sizes, parents = (2, 3, 4, 2, 3, 5), ((), (0,), (0, 1), (2,), (1, 3), (2, 4))
    joint = np.ones(sizes)
    for j, size in enumerate(sizes):
        own = rng.dirichlet(np.full(size, 0.7), size=[sizes[i] for i in parents[j]]) * 0.97 + 0.03 / size
        shape = [sizes[i] if i in parents[j] or i == j else 1 for i in range(6)]
        joint = joint * own.reshape(shape)
    levels = {f"n{j}": [f"v{k}" for k in range(size)] for j, size in enumerate(sizes)}
    return Law(levels, joint, [], np.zeros((joint.size, 0)), np.zeros((joint.size, 0, 0)))


def both(seed: int = 3) -> Law:
    """Three kinds by two sexes, and in each cell its own Gaussian of three numbers."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(6, 3.0)).reshape(3, 2)
    a = rng.standard_normal((6, 3, 3))
    covariances = np.einsum("cij,ckj->cik", a, a) + 0.3 * np.eye(3)
    levels = {"kind": ["x", "y", "z"], "sex": ["f", "m"]}
    return Law(levels, shares, ["p", "q", "r"], 2.5 * rng.standard_normal((6, 3)), covariances)


LAWS = {"gaussian": gaussian, "net": net, "both": both}
