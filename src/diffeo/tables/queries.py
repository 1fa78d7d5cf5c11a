"""Questions to a table's model: any columns given any others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from diffeo.bases.cells import Part
from diffeo.encodings.cell_kinds import Level, Levels
from diffeo.encodings.cells import Cells
from diffeo.errors import ConfigError, ContextError, DataError
from diffeo.flow import Flow, device_of
from diffeo.functional.seeding import generator
from diffeo.tables.conditions import Condition, Given, column_number, conditions
from diffeo.tables.densities import row_log_density
from diffeo.tables.known import mixed, points
from diffeo.tables.particles import Particles, particles
from diffeo.tables.regions import SomeLevels
from diffeo.tables.table import Table, listed
from diffeo.tables.tensors import to_rows, to_table

_FEWEST = 500
"""Rows asked for, as far as the draws behind an answer go."""


@dataclass(frozen=True)
class Estimate:
    """A number, and how far off it may be for having been drawn: its Monte-Carlo standard error, or 0."""

    value: float
    standard_error: float


def query(
    flow: Flow,
    of: str | Iterable[str] | None = None,
    given: Given = None,
    n: int = 1_000,
    seed: int | None = None,
) -> Answer:
    """Ask a model of mixed rows about some columns, given what others hold.

    The answer is that of the model's joint density. Rows are drawn from its laws given what is known:
    columns with an interval or a set one after another within it, the rarest first, then all others. A row's
    weight is its joint density over that of its draw, and rows are resampled to equal weights. How far the
    weights vary is how far these laws are from the joint density, and shows in ``ess`` and in the errors.

    Args:
        flow: fitted to a table, with ``Mixed``.
        of: columns asked for; None for all that are not given by one value.
        given: what is known, by column: a value, a pair ``(low, high)`` for an interval with its ends, None
            for an open one, a set or list of values, None for what is missing. Or text:
            ``["age=30..40", "sex=F", "state={CA,NY}"]``.
        n: draws, at least 1.
        seed: makes the answer repeatable; None draws anew each time.

    Raises:
        DataError: for columns and values that the model does not know, for what cannot be, and where too few
            draws satisfy all conditions at once for an answer to be more than a guess.
        ConfigError: for a flow of another kind.

    References: Kong, Liu and Wong 1994, "Sequential imputations", for the weights and their effective size.

    Example:
        >>> from diffeo.encodings import Cells, Levels
        >>> from diffeo.presets import Mixed
        >>> columns = Cells([Levels("sex", "string", False, ("F", "M"))])
        >>> answer = query(Mixed(1, hidden=8).build(columns), n=10, seed=0)
        >>> answer.rows, round(answer.probability("sex=F").value, 4)
        (Table(10 rows: sex string), 0.5)
    """
    encoding, _ = mixed(flow)
    if n < 1:
        raise ConfigError(f"n={n} rows cannot be drawn; ask for at least 1.")
    known = conditions(encoding, given)
    computed = [decided.name for decided in encoding.decided]
    names = None
    if of is not None:
        names = [n if n in computed else encoding.names[column_number(encoding, n)] for n in listed(of)]
        if len(set(names)) < len(names):
            raise ConfigError("a column is asked for twice; name it once.")
    for j in (encoding.names.index(name) for name in encoding.given):
        if j not in known or known[j].point is None:
            name = encoding.names[j]
            raise ContextError(f"this model is conditioned on {name!r}; give one value of it, {name}=VALUE.")
    seed = generator(None).initial_seed() % 2**31 if seed is None else seed
    return Answer(flow, known, names, n, seed)


class Answer:
    """What a model says to a question; ``query`` makes one.

    ``rows`` are its draws, of equal weight. The other figures are of all weighted draws behind them, half as
    many again. Standard errors are of the drawing alone: that the model is a model is not in them.

    Args:
        flow: the model.
        known: conditions by column.
        names: of the columns asked for; None for all that are not given by one value.
        n: draws.
        seed: of all that is drawn.
    """

    def __init__(
        self, flow: Flow, known: dict[int, Condition], names: Sequence[str] | None, n: int, seed: int
    ):
        self._flow, self._known, self._n, self._seed = flow, known, n, seed
        self._encoding, base = mixed(flow)
        self._within = {j: c for j, c in known.items() if c.point is None}
        self._row = torch.full((1, len(self._encoding.columns)), math.nan, dtype=torch.float64)
        self._at = torch.zeros_like(self._row, dtype=torch.bool)
        for j, condition in known.items():
            if condition.point is not None:
                self._row[0, j], self._at[0, j] = condition.point, True
        device = device_of(flow)
        self._one = points(self._encoding, base, self._row.to(device), self._at.to(device))[0]
        self._drawn = self._particles(self._within)
        codes = self._drawn.resampled(n, generator(seed, device))
        given = [n for n, known in zip(self._encoding.names, self._at[0].tolist(), strict=True) if known]
        rows = to_table(self._encoding, self._values(codes))
        self.rows = rows.drop(given) if names is None else rows.select(names)
        """The draws: a table of the columns asked for."""
        self.ess = min(float(n), self._drawn.ess)
        """How many independent draws the rows are worth: their effective sample size."""

    def __repr__(self) -> str:
        given = ", ".join(c.text for c in self._known.values())
        return f"Answer({self.rows!r}, given {given or 'nothing'}, ess {self.ess:.0f})"

    # -- figures ------------------------------------------------------------------------------

    @property
    def share(self) -> Estimate:
        """The probability of the given intervals and sets, given the values; 1 where there are none."""
        return self._ratio(self._drawn, self._particles({})) if self._within else Estimate(1.0, 0.0)

    def mean(self, column: str) -> Estimate:
        """The mean of a column of numbers, over the draws that are not missing."""
        x, w = self._numbers(column)
        mean = float(np.average(x, weights=w))
        return Estimate(mean, float(np.sqrt(np.square(w * (x - mean)).sum()) / w.sum()))

    def quantiles(self, column: str, q: float | Sequence[float]) -> list[Estimate]:
        """Quantiles of a column of numbers, over the draws that are not missing.

        The standard error is half the distance between the quantiles one standard deviation of the count
        below it to either side.
        """
        x, w = self._numbers(column)
        levels = np.atleast_1d(np.asarray(q, np.float64))
        if not ((levels >= 0) & (levels <= 1)).all():
            raise ConfigError(f"quantiles are shares from 0 to 1, not {q}.")
        order = np.argsort(x, kind="stable")
        upto = w[order].cumsum() / w.sum()
        off = np.sqrt(levels * (1 - levels) * np.square(w).sum()) / w.sum()
        value, low, high = (
            x[order][np.searchsorted(upto, (levels + sign * off).clip(0, 1)).clip(max=len(x) - 1)]
            for sign in (0, -1, 1)
        )
        return [Estimate(float(v), float(e)) for v, e in zip(value, (high - low) / 2, strict=True)]

    def has_levels(self, column: str) -> bool:
        """Whether a column is a category, which has shares; else it has a mean and quantiles."""
        names = self._encoding.names
        return column in names and isinstance(self._encoding.columns[names.index(column)], Levels)

    def shares(self, column: str) -> dict[Level | None, Estimate]:
        """The probability of each level of a category, and of None, what is missing, where there may be gaps.

        Not a count of draws: the weighted mean of the column's own law, which is exact where the weights do
        not vary.
        """
        j = column_number(self._encoding, column)
        kind = self._encoding.columns[j]
        if not isinstance(kind, Levels):
            raise ConfigError(
                f"column {kind.name!r} holds numbers, not levels; ask for its mean, its quantiles or the "
                "probability of an interval."
            )
        regions: dict[Level | None, SomeLevels] = {
            level: SomeLevels(kind, frozenset({i})) for i, level in enumerate(kind.levels)
        }
        if kind.gaps:
            regions[None] = SomeLevels(kind, frozenset(), True)
        if self._at[0, j]:
            point = float(self._row[0, j])
            return {level: Estimate(float(region.holds(point)), 0.0) for level, region in regions.items()}
        every = SomeLevels(kind, frozenset(range(len(kind.levels))), kind.gaps)
        own = self._within.get(j, Condition(j, kind.name, kind.name, every, None))
        parts = [own.region.meet(region).part() for region in regions.values()]
        drawn = self._particles(self._within | {j: own}, parts, last=j)
        w, laws = drawn.weights[:, None], drawn.shares.double()
        at = kind.decode(drawn.codes[:, j]).nan_to_num(nan=len(kind.levels)).long()
        hits = one_hot(at, len(kind.levels) + 1)[:, : len(regions)].double()
        # a count, less what it is above its expectation in the rows as they were drawn
        found = (w * hits - hits + laws).mean(0)
        errors = (w * (hits - found) - hits + laws).std(0) / math.sqrt(len(w))
        pairs = zip(found.clamp(0, 1).tolist(), errors.tolist(), strict=True)
        return {level: Estimate(*pair) for level, pair in zip(regions, pairs, strict=True)}

    def probability(self, of: Given) -> Estimate:
        """The probability that all of some conditions hold, each as ``query`` takes it.

        Not a count of draws: the ratio of what the model says of the conditions with these and without, so
        that rare things have a probability too.
        """
        within = dict(self._within)
        for j, condition in conditions(self._encoding, of).items():
            if self._at[0, j]:
                if not condition.holds(float(self._row[0, j])):
                    return Estimate(0.0, 0.0)
            else:
                _ = condition.part  # refuses one value of a density
                within[j] = condition.within(within.get(j))
                if within[j].region.part() is None:
                    return Estimate(0.0, 0.0)
        return self._ratio(self._particles(within), self._drawn)

    def log_prob(self, table: Any) -> np.ndarray:
        """The log-density of rows of the columns asked for, given what is given: ``log_density``'s measure.

        Raises:
            ConfigError: where columns are given by intervals or sets.
        """
        if self._within:
            text = " and ".join(c.text for c in self._within.values())
            raise ConfigError(f"{text}: a density is given values, not intervals or sets; use log_density.")
        names = self._encoding.names
        of = [names.index(n) for n in self.rows.names if n in names and not self._at[0, names.index(n)]]
        rows = self._row.repeat(len(table := Table.of(table)), 1)
        rows[:, of] = to_rows(Cells([self._encoding.columns[j] for j in of]), table)
        asked = torch.zeros_like(self._at[0])
        asked[of] = True
        return row_log_density(self._flow, rows, asked, self._at[0])

    # -- inside -------------------------------------------------------------------------------

    def _particles(
        self, within: dict[int, Condition], parts: Sequence[Part | None] = (), last: int | None = None
    ) -> Particles:
        """Rows that satisfy these; the same question has the same draws."""
        random = generator(self._seed, self._one.device)
        rows = 3 * max(self._n, _FEWEST) // 2
        return particles(self._flow, self._one, within, rows, random, parts, last)

    @staticmethod
    def _ratio(over: Particles, under: Particles) -> Estimate:
        """The ratio of mean weights."""
        value = math.exp(min(0.0, over.log_evidence - under.log_evidence))
        return Estimate(value, value * math.hypot(over.error, under.error))

    def _values(self, codes: Tensor) -> Tensor:
        """Rows of codes as the flow takes rows; what is given is as it was given, to the bit."""
        values = torch.where(self._at, self._row, self._encoding.decode(codes).cpu())
        for j, condition in self._within.items():
            values[:, j] = torch.from_numpy(condition.region.nearest(values[:, j].numpy()))
        return values

    def _numbers(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """The weighted draws of a column of numbers that are not missing."""
        values = self._values(self._drawn.codes)
        decided = [d for d in self._encoding.decided if d.name == column]
        if decided:
            kind, x = None, decided[0].of(self._encoding.names, values).numpy()
        else:
            j = column_number(self._encoding, column)
            kind, x = self._encoding.columns[j], values[:, j].numpy()
        if isinstance(kind, Levels):
            if any(isinstance(level, str) for level in kind.levels):
                raise ConfigError(f"column {kind.name!r} holds text; ask for its shares.")
            numbers = np.array([*kind.levels, np.nan], np.float64)
            x = numbers[np.nan_to_num(x, nan=len(kind.levels)).astype(int)]
        there = ~np.isnan(x)
        if not there.any():
            raise DataError(f"column {column!r} is missing in all draws.")
        return x[there], self._drawn.weights.cpu().numpy()[there]
