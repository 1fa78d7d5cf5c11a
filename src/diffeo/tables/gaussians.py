"""What a flow has to beat: one Gaussian, and a mixture of Gaussians, fitted to the same rows.

Both are fitted on standardized columns and report held-out nats per row in the columns' own units, so that
their figures stand beside a flow's mean ``log_prob`` directly.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from diffeo._arrays import unmasked
from diffeo.encodings.base import Encoding
from diffeo.errors import DataError

Array = NDArray[np.float64]

_RIDGE = 1e-6  # added to the variances of standardized columns
_MIN_ROWS, _MAX_ROWS = 10_000, 50_000  # the most rows a mixture is fitted on, for wide and for narrow tables
_MAX_WORK = 6e8  # components * rows * features^2 of the mixture's fit: about ten seconds at the most
_WORK = _MAX_WORK / 30  # of such work, what a second does on a slow machine
_MOST = 500_000  # training rows of the Gaussian behind an encoding


def baselines(
    train: Any,
    test: Any,
    *,
    given: Any = None,
    test_given: Any = None,
    weights: Any = None,
    test_weights: Any = None,
    components: int = 20,
    seed: int = 0,
) -> dict[str, float]:
    """Both baselines' mean held-out log-likelihood, in nats per row.

    Args:
        train: rows to fit, ``(rows, features)``: a tensor or an array, finite.
        test: rows to score.
        given: columns to condition on, ``(rows, given)``: both are fitted to the joint rows and score
            ``log p(row, given) - log p(given)``.
        test_given: those of the test rows.
        weights: of the training rows, at least 0; the Gaussian honors them, the mixture is fitted without.
        test_weights: of the test rows, for the means.
        components: how many the mixture has.
        seed: of the mixture's start.

    Example:
        >>> import torch
        >>> rows = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
        >>> found = baselines(rows[:1500], rows[1500:])
        >>> sorted(found), abs(found["gaussian"] + 3 * 1.4189) < 0.15
        (['gaussian', 'mixture'], True)
    """
    log_p = _both(train, test, given, test_given, weights, components, seed)
    return {name: float(_weights(test_weights, len(rows)) @ rows) for name, rows in log_p.items()}


def encoded_baselines(
    encoding: Encoding, train: Tensor, test: Tensor, *, test_weights: Any = None, **options: Any
) -> dict[str, float]:
    """The mean of each of ``encoded_scores``, with its arguments; ``test_weights`` are those of the mean."""
    w = _weights(test_weights, len(test))
    return {name: float(w @ rows) for name, rows in encoded_scores(encoding, train, test, **options).items()}


def encoded_scores(
    encoding: Encoding,
    train: Tensor,
    test: Tensor,
    *,
    given: Any = None,
    test_given: Any = None,
    weights: Any = None,
    seconds: float = math.inf,
) -> dict[str, Array]:
    """Each row's nats under both baselines on what a flow behind ``encoding`` sees, in the data's own units.

    Where columns are discrete, a row's likelihood is the mean over the encoding's draws, as the flow's is.

    Args:
        encoding: the flow's; left in evaluation mode.
        train, test: rows as the encoding takes them.
        given, test_given, weights: of the rows, as in ``baselines``.
        seconds: that the mixture's fit may take on a slow machine; it never asks the clock, so that a seed
            gives the same figures.
    """
    if len(train) > _MOST:
        some = np.random.default_rng(0).choice(len(train), _MOST, replace=False)
        given, weights = (None if t is None else t[some] for t in (given, weights))
        train = train[some]
    fitted = encoding.train().encode(train)[0][0]
    v, log_weight = encoding.eval().encode(test)
    draws, rows = v.shape[:2]
    repeated = None if test_given is None else np.tile(np.asarray(test_given), (draws, 1))
    found = {}
    for name, log_p in _both(fitted, v.flatten(0, 1), given, repeated, weights, seconds=seconds).items():
        each = log_p.reshape(draws, rows) + np.asarray(log_weight.double())
        found[name] = np.logaddexp.reduce(each, 0) - math.log(draws)
    return found


def gaussian_log_prob(
    train: Any, test: Any, given: Any = None, test_given: Any = None, weights: Any = None
) -> Array:
    """Nats of each held-out row under the (weighted) maximum-likelihood Gaussian, full covariance."""
    train, test, features, log_scale = _joint(train, test, given, test_given, weights)
    w = _weights(weights, len(train))
    mean = w @ train
    centered = train - mean
    covariance = (centered * w[:, None]).T @ centered + _RIDGE * np.eye(train.shape[1])
    return _conditional(np.ones(1), mean[None], covariance[None], test, features) - log_scale


def mixture_log_prob(
    train: Any,
    test: Any,
    given: Any = None,
    test_given: Any = None,
    *,
    components: int = 20,
    seed: int = 0,
    seconds: float = math.inf,
) -> Array:
    """Nats of each held-out row under scikit-learn's mixture of full-covariance Gaussians.

    Few rows get fewer components (one per ``2 * columns`` rows, at least one). So that the fit stays a
    matter of seconds, a long table is fitted on a random 50,000 of its rows, a wide one on down to 10,000,
    and one wider still with fewer components; ``seconds`` may allow less.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    train, test, features, log_scale = _joint(train, test, given, test_given, None)
    width, work = train.shape[1], min(_WORK * seconds, _MAX_WORK)
    rows = min(len(train), _MAX_ROWS, max(_MIN_ROWS, int(work / (components * width**2))))
    if rows < len(train):
        train = train[np.random.default_rng(seed).choice(len(train), rows, replace=False)]
    components = max(1, min(components, rows // (2 * width), int(work / (rows * width**2))))
    model = GaussianMixture(components, reg_covar=_RIDGE, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train)
    weights, means, covariances = map(np.asarray, (model.weights_, model.means_, model.covariances_))
    return _conditional(weights, means, covariances, test, features) - log_scale


def _both(
    train: Any,
    test: Any,
    given: Any,
    test_given: Any,
    weights: Any,
    components: int = 20,
    seed: int = 0,
    seconds: float = math.inf,
) -> dict[str, Array]:
    return {
        "gaussian": gaussian_log_prob(train, test, given, test_given, weights),
        "mixture": mixture_log_prob(
            train, test, given, test_given, components=components, seed=seed, seconds=seconds
        ),
    }


def _conditional(weights: Array, means: Array, covariances: Array, x: Array, features: int) -> Array:
    """``log p(x) - log p(c)`` of a mixture of Gaussians, ``c`` the columns of ``x`` from ``features`` on.

    Exact: the marginal of each Gaussian has the means and the covariances of its columns.
    """
    joint = _log_prob(weights, means, covariances, x)
    if features == x.shape[1]:
        return joint
    c = slice(features, None)
    return joint - _log_prob(weights, means[:, c], covariances[:, c, c], x[:, c])


def _log_prob(weights: Array, means: Array, covariances: Array, x: Array) -> Array:
    total = np.full(len(x), -math.inf)
    for weight, mean, covariance in zip(weights, means, covariances, strict=True):
        factor = np.linalg.cholesky(covariance)
        z = np.linalg.solve(factor, (x - mean).T)
        log_p = -0.5 * (z**2).sum(0) - np.log(np.diag(factor)).sum() - 0.5 * len(z) * math.log(2 * math.pi)
        total = np.logaddexp(total, log_p + math.log(max(weight, 1e-300)))
    return total


def _joint(
    train: Any, test: Any, given: Any, test_given: Any, weights: Any
) -> tuple[Array, Array, int, float]:
    """Rows beside their given columns on the training rows' scale; how many columns are the rows' own, and
    the sum of the logs of their scale."""
    train, test, log_scale = _standardized(train, test, weights)
    features = train.shape[1]
    if given is None:
        return train, test, features, log_scale
    given, test_given = (unmasked(t).astype(np.float64) for t in (given, test_given))
    varies = np.ptp(given, axis=0) > 0  # what never varies says nothing
    if varies.any():
        c, test_c, _ = _standardized(given[:, varies], test_given[:, varies], weights)
        train, test = np.concatenate([train, c], 1), np.concatenate([test, test_c], 1)
    return train, test, features, log_scale


def _standardized(train: Any, test: Any, weights: Any) -> tuple[Array, Array, float]:
    """Both tables on the training rows' scale, and the sum of the logs of that scale."""
    train, test = (unmasked(t).astype(np.float64) for t in (train, test))
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1]:
        raise DataError(
            f"train and test are tables with the same columns; got shapes {train.shape} and {test.shape}."
        )
    if len(train) < 2 or not len(test) or not train.shape[1]:
        raise DataError(
            f"a baseline needs two training rows, a test row and a column; got {train.shape}, {test.shape}."
        )
    for name, table in (("train", train), ("test", test)):
        if not np.isfinite(table).all():
            row, column = np.argwhere(~np.isfinite(table))[0]
            raise DataError(
                f"{name} has a value that is not finite in row {row}, column {column}; drop the row."
            )
    w = _weights(weights, len(train))
    mean = w @ train
    scale = np.sqrt(w @ (train - mean) ** 2)
    if not (scale > 0).all():
        raise DataError(f"column {int(np.argmin(scale > 0))} of train is constant; set it aside.")
    return (train - mean) / scale, (test - mean) / scale, float(np.log(scale).sum())


def _weights(weights: Any, rows: int) -> Array:
    if weights is None:
        return np.full(rows, 1 / rows)
    w = unmasked(weights).astype(np.float64)
    if w.shape != (rows,) or not np.isfinite(w).all() or (w < 0).any() or not (w > 0).any():
        raise DataError(f"weights are {rows} numbers, finite, not negative, not all 0; got shape {w.shape}.")
    w = w / w.max()  # only ratios count, and a sum of huge ones would overflow
    return w / w.sum()
