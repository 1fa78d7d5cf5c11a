"""Baselines: right where the answer is known, bounded in time, and clear about what they cannot take."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch

from diffeo.errors import DataError
from diffeo.tables.gaussians import baselines, encoded_baselines, gaussian_log_prob, mixture_log_prob
from diffeo.tables.schema import Schema
from diffeo.tables.table import Table


def test_gaussian_is_the_maximum_likelihood_gaussian():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 3)) * [1e-4, 1, 1e5] + [1, 2, 3e6]
    train, test = x[:300], x[300:]
    reference = torch.distributions.MultivariateNormal(
        torch.from_numpy(train.mean(0)), torch.from_numpy(np.cov(train.T, bias=True))
    )
    expected = reference.log_prob(torch.from_numpy(test)).mean().item()
    assert gaussian_log_prob(train, test).mean() == pytest.approx(expected, abs=1e-3)


def test_weights_are_repetitions():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 2)) ** 3
    counts, test_counts = rng.integers(0, 4, 40), rng.integers(0, 4, 10)
    repeated = baselines(np.repeat(x[:40], counts, 0), np.repeat(x[40:], test_counts, 0))["gaussian"]
    weighted = baselines(x[:40], x[40:], weights=counts, test_weights=test_counts)["gaussian"]
    assert weighted == pytest.approx(repeated)
    assert baselines(x[:40], x[40:])["gaussian"] != pytest.approx(repeated)


def test_units_cancel():
    """Multiplying a column by c lowers every log-density by log c."""
    x = torch.randn(600, 2, generator=torch.Generator().manual_seed(0)).double()
    y = x * torch.tensor([1e3, 1e-3])
    y[:, 1] *= 10
    one, other = baselines(x[:500], x[500:]), baselines(y[:500], y[500:])
    for name in one:
        assert one[name] - other[name] == pytest.approx(math.log(10), abs=1e-6)


def test_mixture_finds_what_a_gaussian_cannot():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2000, 2)) * 0.1 + rng.choice([-3, 0, 3], size=(2000, 1))
    truth = -math.log(3) - 2 * (0.5 * math.log(2 * math.pi * math.e) + math.log(0.1))
    found = baselines(x[:1500], x[1500:], components=3)
    assert found["mixture"] == pytest.approx(truth, abs=0.1)
    assert found["mixture"] > found["gaussian"] + 1


def test_given_columns_are_conditioned_on():
    """Exactly: p(y, c) integrates to p(c), so that the conditional has mass 1; and c takes its share."""
    rng = np.random.default_rng(5)
    c = rng.choice([-2.0, 0.0, 3.0], size=(3000, 1)) + 0.2 * rng.normal(size=(3000, 1))
    y = 5e2 * (c + 0.1 * rng.normal(size=(3000, 1)))
    truth = -math.log(5e2 * 0.1) - 0.5 * math.log(2 * math.pi * math.e)
    c = np.concatenate([c, np.ones((3000, 1))], 1)  # what never varies says nothing
    found = baselines(y[:2000], y[2000:], given=c[:2000], test_given=c[2000:], components=3)
    assert found["gaussian"] == pytest.approx(truth, abs=0.06)
    assert found["mixture"] == pytest.approx(truth, abs=0.06)
    line = np.linspace(-3e3, 3e3, 20_001)[:, None]
    for log_prob in (gaussian_log_prob, mixture_log_prob):
        density = np.exp(log_prob(y, line, c, np.broadcast_to([2.5, 1.0], (len(line), 2))))
        assert density.sum() * (line[1, 0] - line[0, 0]) == pytest.approx(1, abs=1e-3)


def test_a_mixture_scores_as_scikit_learn_does():
    from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(6)
    x = rng.normal(size=(600, 2)) + rng.choice([-3, 3], size=(600, 1))
    x = (x - x.mean(0)) / x.std(0)
    model = GaussianMixture(2, reg_covar=1e-6, random_state=0).fit(x)
    np.testing.assert_allclose(
        mixture_log_prob(x, x[:9], components=2), model.score_samples(x[:9]), rtol=1e-6
    )


def test_discrete_columns_take_the_log_of_the_mean_over_the_draws():
    table = Table.of({"n": np.random.default_rng(7).poisson(1.0, 800), "g": np.arange(800) % 2})
    encoding = Schema.infer(table.drop(["g"])).encoding(table, given=["g"])
    x, g = torch.from_numpy(table.select(["n"]).values), table.select(["g"]).values
    everything = torch.arange(-6.0, 12.0).double()[:, None]
    ones = np.ones((1, 1))
    for name in ("gaussian", "mixture"):
        mass = 0.0
        for value in everything:
            torch.manual_seed(0)  # the same noise for the training rows
            found = encoded_baselines(encoding, x, value[None], given=g, test_given=ones)
            mass += math.exp(found[name])
        assert mass == pytest.approx(1, abs=0.05)


def test_few_rows_fall_back_to_one_component():
    x = np.random.default_rng(3).normal(size=(60, 20))
    found = baselines(x[:30], x[30:])
    assert found["mixture"] == pytest.approx(found["gaussian"], abs=1e-6)
    assert all(map(math.isfinite, found.values()))


def test_many_rows_stay_quick_and_deterministic():
    x = np.random.default_rng(4).normal(size=(200_000, 4))
    start = time.monotonic()
    first = mixture_log_prob(x, x[:1000], components=4, seed=1).mean().mean()
    assert time.monotonic() - start < 30
    assert first == pytest.approx(-4 * 0.5 * math.log(2 * math.pi * math.e), abs=0.2)
    assert first == mixture_log_prob(x, x[:1000], components=4, seed=1).mean().mean()


@pytest.mark.parametrize(
    "train, test, weights, message",
    [
        (np.zeros((5, 2)), np.zeros((5, 3)), None, "same columns"),
        (np.eye(3), np.array([[1.0, math.nan, 2.0]]), None, "row 0, column 1"),
        (np.stack([np.arange(5.0), np.ones(5)], 1), np.ones((2, 2)), None, "column 1 of train is constant"),
        (np.eye(3), np.eye(3), [1, 2], "3 numbers"),
        (np.eye(3), np.eye(3), [1, 2, -1], "not negative"),
        (np.eye(3)[:1], np.eye(3), None, "two training rows"),
    ],
)
def test_errors_say_what_and_where(train, test, weights, message):
    with pytest.raises(DataError, match=message):
        gaussian_log_prob(train, test, weights=weights)
