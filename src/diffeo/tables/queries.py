"""Questions to a table's model: any columns given any others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffeo.bases.cells import CellDensity
from diffeo.encodings.cell_kinds import Level, Levels
from diffeo.encodings.cells import Cells
from diffeo.errors import ConfigError, ContextError, DataError
from diffeo.flow import Flow, device_of, in_parts
from diffeo.functional.seeding import generator
from diffeo.tables.conditions import Condition, Given, column_number, conditions
from diffeo.tables.densities import row_log_density
from diffeo.tables.known import BATCH, asking, mixed, points
from diffeo.tables.particles import Particles, extended, particles
from diffeo.tables.regions import Region, SomeLevels
from diffeo.tables.table import Table, listed
from diffeo.tables.tensors import to_rows, to_table

_POOL = 1_000
"""Draws behind an answer at least, whatever is asked for."""


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

    Columns given by one value are conditioned on directly. Those given by an interval or a set are drawn one
    after another within it, the rarest first, which leaves the rows with weights; then they are resampled to
    equal weights. All other columns are drawn given these. With one such column at most the weights do not
    vary, and nothing is approximate but the model.

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
        >>> answer.rows, answer.probability("sex=F")
        (Table(10 rows: sex string), Estimate(value=0.5, standard_error=0.0))
    """
    encoding, base = mixed(flow)
    if n < 1:
        raise ConfigError(f"n={n} rows cannot be drawn; ask for at least 1.")
    known = conditions(encoding, given)
    wanted = [j for j in range(len(encoding.columns)) if j not in known or known[j].point is None]
    wanted = [column_number(encoding, name) for name in listed(of)] if of is not None else wanted
    if len(set(wanted)) < len(wanted):
        raise ConfigError("a column is asked for twice; name it once.")
    for j in (encoding.names.index(name) for name in encoding.given):
        if j not in known or known[j].point is None:
            name = encoding.names[j]
            raise ContextError(f"this model is conditioned on {name!r}; give one value of it, {name}=VALUE.")
    seed = generator(None).initial_seed() % 2**31 if seed is None else seed
    return Answer(flow, encoding, base, known, wanted, n, seed)


class Answer:
    """What a model says to a question; ``query`` makes one.

    Its draws are ``rows``, of equal weight, and means and quantiles are theirs. Probabilities and shares of
    levels are averages over the law of the last column, not counts; where no column is given by an interval
    or a set they are exact. Standard errors are of the drawing alone: that the model is a model is not in
    them.

    Args:
        flow, encoding, base: the model.
        known: conditions by column.
        wanted: numbers of the columns asked for.
        n: draws.
        seed: of all that is drawn.
    """

    def __init__(
        self,
        flow: Flow,
        encoding: Cells,
        base: CellDensity,
        known: dict[int, Condition],
        wanted: Sequence[int],
        n: int,
        seed: int,
    ):
        self._flow, self._encoding, self._base, self._known = flow, encoding, base, known
        self._n, self._seed, self._device = n, seed, device_of(flow)
        self._within = {j: c for j, c in known.items() if c.point is None}
        row = torch.full((1, len(encoding.columns)), math.nan, dtype=torch.float64)
        at = torch.zeros_like(row, dtype=torch.bool)
        for j, condition in known.items():
            if condition.point is not None:
                row[0, j], at[0, j] = condition.point, True
        self._row, self._at = row, at
        random = generator(seed, self._device)
        with asking(flow):
            self._one = points(encoding, base, row.to(self._device), at.to(self._device))[0]
            self._particles = self._pool(self._within)
            z = self._particles.resampled(n, random)
            drawn = in_parts(flow, lambda z: base.complete(z, generator=random), z, batch_size=BATCH)
        values = encoding.decode(drawn).cpu()
        values = torch.where(at, row, values)
        for j, condition in self._within.items():
            values[:, j] = torch.from_numpy(condition.region.nearest(values[:, j].numpy()))
        self._values = values.numpy()
        self.rows = to_table(encoding, values).select([encoding.names[j] for j in wanted])
        """The draws: a table of the columns asked for."""
        effective = self._particles.ess
        self.ess = float(n) if self._particles.constant else 1 / (1 / n + 1 / effective)
        """How many independent draws the rows are worth: their effective sample size."""

    def __repr__(self) -> str:
        given = ", ".join(c.text for c in self._known.values())
        return f"Answer({self.rows!r}, given {given or 'nothing'}, ess {self.ess:.0f})"

    # -- figures ------------------------------------------------------------------------------

    @property
    def share(self) -> Estimate:
        """The probability of the given intervals and sets, given the values: 1 where there are none."""
        w = self._particles.log_weights.double().exp().cpu().numpy()
        return Estimate(float(w.mean()), 0.0 if self._particles.constant else _error(w))

    def mean(self, column: str) -> Estimate:
        """The mean of a column of numbers, over the draws that are not missing."""
        x = self._numbers(column)
        return Estimate(float(x.mean()), float(x.std() / math.sqrt(self._worth(x))))

    def quantiles(self, column: str, q: float | Sequence[float]) -> list[Estimate]:
        """Quantiles of a column of numbers, over the draws that are not missing.

        The standard error is half the distance between the order statistics one standard deviation of the
        count to either side.
        """
        x = self._numbers(column)
        levels = np.atleast_1d(np.asarray(q, np.float64))
        if not ((levels >= 0) & (levels <= 1)).all():
            raise ConfigError(f"quantiles are shares from 0 to 1, not {q}.")
        off = np.sqrt(levels * (1 - levels) / self._worth(x))
        value, low, high = (
            np.quantile(x, (levels + sign * off).clip(0, 1), method="inverted_cdf") for sign in (0, -1, 1)
        )
        return [Estimate(float(v), float(e)) for v, e in zip(value, (high - low) / 2, strict=True)]

    def shares(self, column: str) -> dict[Level | None, Estimate]:
        """The probability of each level of a category; of None, what is missing, where there may be gaps."""
        j = column_number(self._encoding, column)
        kind = self._encoding.columns[j]
        if not isinstance(kind, Levels):
            raise ConfigError(
                f"column {kind.name!r} holds numbers, not levels; ask for its mean, its quantiles or the "
                f"probability of an interval."
            )
        regions = {level: SomeLevels(kind, frozenset({i})) for i, level in enumerate(kind.levels)}
        every: dict[Level | None, SomeLevels] = {**regions}
        if kind.gaps:
            every[None] = SomeLevels(kind, frozenset(), True)
        if (known := self._known.get(j)) is not None and known.point is not None:
            code = known.point
            return {
                level: Estimate(float(i == code or (level is None and code != code)), 0.0)
                for i, level in enumerate(every)
            }
        return dict(zip(every, self._ratios(j, list(every.values())), strict=True))

    def probability(self, of: Given) -> Estimate:
        """The probability that all of some conditions hold, each as ``query`` takes it.

        One condition, where nothing is given by intervals or sets: exact, from the law of its column.
        Several: by a chain of such laws over draws of all columns but the last.
        """
        asked = conditions(self._encoding, of)
        for j, condition in list(asked.items()):
            known = self._known.get(j)
            if known is not None and known.point is not None:
                if not condition.holds(known.point):
                    return Estimate(0.0, 0.0)
                del asked[j]
        if not asked:
            return Estimate(1.0, 0.0)
        *first, last = asked
        if not first:
            return self._ratios(last, [asked[last].region])[0]
        return self._chain([asked[j] for j in asked])

    def log_prob(self, table: Any) -> np.ndarray:
        """The log-density of rows of the columns asked for, given what is given: ``log_density``'s measure.

        Raises:
            ConfigError: where columns are given by intervals or sets.
        """
        if self._within:
            text = " and ".join(c.text for c in self._within.values())
            raise ConfigError(f"{text}: a density is given values, not intervals or sets; use log_density.")
        of = [j for j in map(self._encoding.names.index, self.rows.names) if not self._at[0, j]]
        rows = self._row.repeat(len(table := Table.of(table)), 1)
        rows[:, of] = to_rows(Cells([self._encoding.columns[j] for j in of]), table)
        asked = torch.zeros_like(self._at[0])
        asked[of] = True
        return row_log_density(self._flow, rows, asked, self._at[0])

    # -- inside -------------------------------------------------------------------------------

    def _pool(self, within: dict[int, Condition]) -> Particles:
        """Draws of these columns, always the same."""
        random = generator(self._seed, self._device)
        return particles(self._flow, self._base, self._one, within, max(self._n, _POOL), random)

    def _ratios(self, j: int, regions: Sequence[Region]) -> list[Estimate]:
        """The probability of each region of one column."""
        own = self._within.get(j)
        others = {i: c for i, c in self._within.items() if i != j}
        pool = self._particles if own is None else self._pool(others)
        parts = [r.part() if own is None else own.region.meet(r).part() for r in regions]

        def shares(z: Tensor) -> Tensor:
            head = self._base.conditional(z, j)
            whole = z.new_zeros(len(z)) if own is None else head.share(own.part)
            none = whole.new_full((len(z),), -math.inf)
            return torch.stack([whole, *(none if part is None else head.share(part) for part in parts)], -1)

        found = in_parts(self._flow, shares, pool.codes, batch_size=BATCH).double()
        return _quotients(pool.weights, found[:, 1:], found[:, 0])

    def _chain(self, asked: Sequence[Condition]) -> Estimate:
        """The probability of conditions on several columns."""
        columns = {c.column for c in asked}
        own = [c for j, c in self._within.items() if j in columns]
        others = {j: c for j, c in self._within.items() if j not in columns}
        pool = self._pool(others) if own else self._particles
        both = [self._within[c.column].meet(c) if c.column in self._within else c for c in asked]
        random = generator(self._seed + 1, self._device)

        def shares(z: Tensor) -> tuple[Tensor, Tensor]:
            return self._product(z, both, random), self._product(z, own, random)

        z = pool.spread(max(self._n, _POOL))
        over, under = in_parts(self._flow, shares, z.codes, batch_size=BATCH)
        return _quotients(z.weights, over.double()[:, None], under.double())[0]

    def _product(self, z: Tensor, chain: Sequence[Condition], random: torch.Generator) -> Tensor:
        """The log of a product of shares, every column but the last drawn on the way."""
        if not chain:
            return z.new_zeros(len(z))
        *first, last = chain
        z, log = extended(self._base, z, first, random)
        return log + self._base.conditional(z, last.column).share(last.part)

    def _numbers(self, column: str) -> np.ndarray:
        """The draws of a column of numbers, without those that are missing."""
        j = column_number(self._encoding, column)
        kind, x = self._encoding.columns[j], self._values[:, j]
        if isinstance(kind, Levels):
            if any(isinstance(level, str) for level in kind.levels):
                raise ConfigError(f"column {kind.name!r} holds text; ask for its shares.")
            x = np.where(np.isnan(x), np.nan, np.array(kind.levels, np.float64)[np.nan_to_num(x).astype(int)])
        x = x[~np.isnan(x)]
        if not len(x):
            raise DataError(f"column {kind.name!r} is missing in all {self._n:,} draws.")
        return x

    def _worth(self, x: np.ndarray) -> float:
        """How many independent draws these are worth."""
        return max(1.0, self.ess * len(x) / self._n)


def _quotients(weights: Tensor, over: Tensor, under: Tensor) -> list[Estimate]:
    """Ratios of weighted means of exponentials ``(rows, ratios)`` and ``(rows,)``, by the delta method."""
    top = under.max()
    over, under = (over - top).exp() * weights[:, None], (under - top).exp() * weights
    total = under.sum()
    ratios = over.sum(0) / total
    rows = len(weights)
    errors = torch.zeros_like(ratios)
    if rows > 1:
        off = over - ratios * under[:, None]
        errors = (off.square().sum(0) * rows / (rows - 1)).sqrt() / total
    pairs = zip(ratios.tolist(), errors.tolist(), strict=True)
    return [Estimate(min(1.0, value), error) for value, error in pairs]


def _error(x: np.ndarray) -> float:
    return float(x.std() / math.sqrt(max(1, len(x) - 1)))
