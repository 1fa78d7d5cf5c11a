"""What the draws' check says: nothing of draws of the right law, and each fault by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import diffeo
from diffeo.presets import Tabular
from diffeo.tables.draws import doubts

LAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "lognormal": lambda rng, n: rng.lognormal(0, 2, n),
    "student": lambda rng, n: rng.standard_t(2.5, n),
    "uniform": lambda rng, n: rng.random(n),
    "count": lambda rng, n: rng.poisson(1, n).astype(float),
    "sentinel": lambda rng, n: np.where(rng.random(n) < 0.09, -9999, rng.normal(10, 1, n)),
    "rare": lambda rng, n: 100.0 * (rng.random(n) < 0.004),
    "same": lambda rng, n: np.full(n, 7.0),
}
NAMES = (*LAWS, "line", "wave")


def rows(rng: np.random.Generator, n: int) -> np.ndarray:
    x = np.stack([law(rng, n) for law in LAWS.values()], 1)
    line, wave = x[:, 0] + 0.01 * rng.normal(size=n), np.sin(3 * x[:, 0]) + 0.02 * rng.normal(size=n)
    return np.c_[x, line, wave]


def said(n: int, seed: int, spoil: Callable[[np.random.Generator, np.ndarray], None]) -> list[str]:
    rng = np.random.default_rng(seed)
    drawn = rows(rng, n)
    spoil(rng, drawn)
    return doubts(NAMES, rows(rng, n - n // 10), rows(rng, n // 10), drawn)


@pytest.mark.parametrize("n", [100, 300, 2000])
def test_draws_of_the_right_law_are_not_accused(n: int):
    assert [said(n, seed, lambda rng, x: None) for seed in range(8)] == [[]] * 8


def widen(rng: np.random.Generator, x: np.ndarray) -> None:
    x[:, 0] *= 3


def negative(rng: np.random.Generator, x: np.ndarray) -> None:
    x[:, 1] = np.where(rng.random(len(x)) < 0.1, -0.001, x[:, 1])


def throw(rng: np.random.Generator, x: np.ndarray) -> None:
    x[5, 5] = -3e13


def leave_the_curve(rng: np.random.Generator, x: np.ndarray) -> None:
    x[:, 9] += np.where(rng.random(len(x)) < 0.1, rng.normal(size=len(x)), 0)


def beyond(rng: np.random.Generator, x: np.ndarray) -> None:
    x[:, 3] = x[:, 3] * 1.3


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (widen, "column 'normal': the draws' deviation is "),
        (negative, "% of the draws lie below 0, but no row does."),
        (throw, "column 'sentinel': a draw lies at -3e+13, the lowest of 2,000 rows at -9999."),
        (leave_the_curve, "columns 'normal' and 'wave': around their relation the draws' deviation is "),
        (beyond, "% of the draws lie above 0.99"),
    ],
)
def test_each_fault_is_said(spoil: Callable[[np.random.Generator, np.ndarray], None], says: str):
    found = said(2000, 1, spoil)
    assert any(says in line for line in found), found


def test_a_fit_says_what_its_draws_and_its_columns_have():
    rng = np.random.default_rng(0)
    heap = rng.random(600) < 0.45
    columns = {
        "rain": np.where(heap, 0, rng.lognormal(0, 1, 600)),
        "code": np.where(rng.random(600) < 0.8, 0, 1000),
    }
    flow, report = diffeo.fit_table(columns, preset=Tabular(2, marginal=8), max_steps=40)
    assert report.doubts[0] == f"column 'rain': {heap.mean():.0%} of rows are exactly 0."
    assert report.doubts[1].startswith("column 'code': looks like codes: 2 values on 1,001 points")
    assert not any("a draw lies at" in line for line in report.doubts)
    assert any("'rain'" in line and "of the draws lie below 0" in line for line in report.doubts)
    assert flow.notes["doubts"] == list(report.doubts)
    _, cells = diffeo.fit_table(columns, max_steps=40)
    assert cells.doubts == ()  # each value that repeats has a mass of its own
    plain, clean = diffeo.fit_table(rng.normal(size=(600, 2)), max_steps=40)
    assert clean.doubts == ()
    assert "doubts" not in plain.notes
