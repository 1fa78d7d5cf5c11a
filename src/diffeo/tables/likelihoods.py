"""What a likelihood says of a model that samples cannot: figures of rows' scores, each from plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from diffeo.tables.scores import Scores
from diffeo.tables.sides import Array
from diffeo.tables.table import Table
from diffeo.tables.trends import kolmogorov_smirnov

BARS = 20
"""Bars of a histogram of PITs."""
_OTHERS, _REASONS, _TELLING = 32, 3, 0.7
"""Rows whose values take the place of a rare row's; columns named for it, and the nats from which one is."""


class ColumnPits(Protocol):
    """What a model expects of single columns, each given the columns that it looks at before."""

    @property
    def names(self) -> Sequence[str]: ...

    def pits(self, table: Table, seed: int) -> Array:
        """The distribution function of each conditional at the row's own value, ``(rows, columns)``.

        Uniform in [0, 1] where the model is right; within an atom, a level or a gap drawn uniformly from the
        step there.
        """
        ...


@dataclass(frozen=True)
class Nats:
    """Mean log-likelihood of held-out rows, in nats a row.

    Args:
        name: the model's or the baseline's.
        mean, error: over the rows with finite scores, and its standard error.
        gain, gain_error: by how much the model is above it, row by row, and the standard error of that.
        lost: rows with no finite score.
    """

    name: str
    mean: float
    error: float
    gain: float
    gain_error: float
    lost: int = 0


@dataclass(frozen=True)
class Gap:
    """Mean log-likelihood of training rows and of held-out ones, and their difference with its error.

    A likelihood alone can tell this: a model that has learned rows by heart scores them above others.
    """

    train: float
    held_out: float
    gap: float
    error: float


@dataclass(frozen=True)
class Calibration:
    """PITs of held-out rows in one column, or of their scores among those of the model's own draws.

    Args:
        name: the column's.
        shares: of the rows, in 20 equal bars of [0, 1]; each is 0.05 where the model is right.
        distance: of the PITs from uniform, by Kolmogorov and Smirnov.
        chance: what the distance is below, 19 times in 20, where the model is right.
    """

    name: str
    shares: tuple[float, ...]
    distance: float
    chance: float


@dataclass(frozen=True)
class Reason:
    """A column that makes a row rare: its value, and by how many nats the row would be likelier with the
    values of other rows in its place, on average over these."""

    column: str
    value: str
    nats: float


@dataclass(frozen=True)
class RareRow:
    """A row that the model thinks rare.

    Args:
        row: its number in the table, from 1.
        log_prob, quantile: its score, and which share of held-out rows score no higher.
        held_out: whether it was held out, not trained on.
        reasons: the columns that make it rare, first what makes it rarest; none where no single one does.
    """

    row: int
    log_prob: float
    quantile: float | None
    held_out: bool
    reasons: tuple[Reason, ...]


def nats(scores: Mapping[str, Array]) -> tuple[Nats, ...]:
    """Of scores by name, those of the same rows; the first is the model's.

    Example:
        >>> found = nats({"model": np.array([1.0, 3.0]), "plain": np.array([0.0, 2.0])})
        >>> [(each.name, each.mean, each.gain) for each in found]
        [('model', 2.0, 0.0), ('plain', 1.0, 1.0)]
    """
    model, found = next(iter(scores.values())), []
    for name, rows in scores.items():
        both = np.isfinite(rows) & np.isfinite(model)
        gain = mean_and_error(model[both] - rows[both])
        found.append(
            Nats(name, *mean_and_error(rows[np.isfinite(rows)]), *gain, int((~np.isfinite(rows)).sum()))
        )
    return tuple(found)


def gap(train: Array, held_out: Array) -> Gap:
    """Of the scores of both kinds of rows."""
    (a, a_error), (b, b_error) = (mean_and_error(rows[np.isfinite(rows)]) for rows in (train, held_out))
    return Gap(a, b, a - b, float(np.hypot(a_error, b_error)))


def calibration(name: str, pits: Array) -> Calibration:
    """Of PITs in [0, 1].

    Example:
        >>> found = calibration("x", np.array([0.1, 0.4, 0.7, 0.8]))
        >>> round(found.distance, 6), found.shares[2]
        (0.2, 0.25)
    """
    n, ordered = len(pits), np.sort(pits)
    steps = np.arange(n + 1) / n
    distance = max(float(np.abs(ordered - steps[:-1]).max()), float(np.abs(ordered - steps[1:]).max()))
    shares = np.histogram(pits, BARS, (0, 1))[0] / n
    return Calibration(name, tuple(shares.tolist()), distance, 1.358 / n**0.5)


def ranks(scores: Array, drawn: Array) -> Calibration:
    """Of rows' scores among those of draws: whether rows are as likely as the model's own."""
    below = (np.searchsorted(np.sort(drawn), scores, side=side) / len(drawn) for side in ("left", "right"))
    low, high = below
    found = calibration("all columns together", (low + high) / 2)
    chance = found.chance * (1 + len(scores) / len(drawn)) ** 0.5
    return Calibration(found.name, found.shares, kolmogorov_smirnov(scores, drawn), chance)


def rarest(
    score: Callable[[Table], Array],
    table: Table,
    scores: Scores,
    held_out: NDArray[np.bool_],
    numbers: NDArray[np.int64],
    seed: int,
    most: int = 10,
) -> tuple[RareRow, ...]:
    """The rows with the lowest scores, and the columns that make them rare.

    Args:
        score: gives the log-likelihood of rows.
        table, scores: rows, and what they score.
        held_out: which of them were.
        numbers: of the rows, from 0.
        seed: of the rows whose values take the place of the rare ones.
        most: how many to find.
    """
    order = np.argsort(scores.log_prob, kind="stable")[:most]
    others = table.rows(np.random.default_rng(seed).integers(len(table), size=_OTHERS))
    gains = _gains(score, table.rows(order), scores.log_prob[order], others)
    found = []
    for row, i in enumerate(order.tolist()):
        ranked = sorted(gains, key=lambda name: -gains[name][row])[:_REASONS]
        why = [(name, float(gains[name][row])) for name in ranked if gains[name][row] > _TELLING]
        at = None if scores.quantile is None else float(scores.quantile[i])
        reasons = tuple(Reason(name, shown(table, name, i), gain) for name, gain in why)
        found.append(RareRow(int(numbers[i]) + 1, float(scores.log_prob[i]), at, bool(held_out[i]), reasons))
    return tuple(found)


def _gains(score: Callable[[Table], Array], rows: Table, own: Array, others: Table) -> dict[str, Array]:
    """For each column, by how many nats each row is likelier with the values of other rows in its place."""
    here, there = np.divmod(np.arange(len(rows) * len(others)), len(others))
    base, gains = rows.rows(here), {}
    for name in rows.names:
        swapped = others.select([name]).rows(there).column(name)
        changed = Table({each: swapped if each == name else base.column(each) for each in base.names})
        likelier = np.logaddexp.reduce(score(changed).reshape(len(rows), len(others)), 1)
        with np.errstate(invalid="ignore"):  # a row that is impossible either way
            gains[name] = np.nan_to_num(likelier - np.log(len(others)) - own, nan=0.0, posinf=np.inf)
    return gains


def calibrations(columns: ColumnPits, rows: Table, seed: int) -> tuple[Calibration, ...]:
    """Of each column of held-out rows, the worst first."""
    pits = columns.pits(rows, seed).T
    found = [calibration(name, pit) for name, pit in zip(columns.names, pits, strict=True)]
    return tuple(sorted(found, key=lambda each: -each.distance))


def shown(table: Table, name: str, row: int) -> str:
    """An entry as text."""
    entry = table.column(name)[row]
    value = entry.item() if isinstance(entry, np.generic) else entry.as_py()
    return "missing" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def mean_and_error(x: Array) -> tuple[float, float]:
    """A mean and its standard error; zeros of no rows."""
    if not len(x):
        return 0.0, 0.0
    return float(x.mean()), float(x.std(ddof=1) / len(x) ** 0.5) if len(x) > 1 else 0.0
