"""Weighted draws of the columns that a question restricts to intervals and sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from diffeo.bases.cells import CellDensity
from diffeo.errors import DataError
from diffeo.flow import Flow, in_parts
from diffeo.tables.conditions import Condition
from diffeo.tables.known import BATCH, asking

LEAST = 30.0
"""Effective draws below which a question is refused."""
MOST = 65_536
"""Most draws made before it is."""


@dataclass(frozen=True)
class Particles:
    """Rows of which some columns are known, with the logs of their weights; one row where nothing is drawn.

    Args:
        codes: ``(rows, D, 4)``.
        log_weights: ``(rows,)``; their mean is the share of what the conditions allow.
        constant: whether the weights do not vary.
    """

    codes: Tensor
    log_weights: Tensor
    constant: bool

    @property
    def ess(self) -> float:
        """How many equally weighted draws would tell as much: ``(sum w)^2 / sum w^2``."""
        if self.constant:
            return float(len(self.codes))
        w = self.weights
        return float(w.sum().square() / w.square().sum())

    @property
    def weights(self) -> Tensor:
        """The weights over their largest, float64."""
        log = self.log_weights.double()
        return (log - log.max()).exp()

    def spread(self, rows: int) -> Particles:
        """So many rows; the one row of particles of which nothing is drawn stands for all."""
        if len(self.codes) > 1 or rows == 1:
            return self
        return Particles(self.codes.expand(rows, -1, -1), self.log_weights.expand(rows), True)

    def resampled(self, n: int, generator: Generator) -> Tensor:
        """Codes of n rows with equal weights, by systematic resampling."""
        if self.constant:
            return self.spread(n).codes[:n]
        edges = self.weights.cumsum(0)
        u = torch.rand(1, generator=generator, dtype=torch.float64, device=edges.device)
        at = (torch.arange(n, device=edges.device) + u) / n * edges[-1]
        index = torch.searchsorted(edges, at).clamp(max=len(edges) - 1)
        return self.codes[index]


def particles(
    flow: Flow,
    base: CellDensity,
    known: Tensor,
    conditions: Mapping[int, Condition],
    wanted: int,
    generator: Generator,
) -> Particles:
    """Draws of the columns with conditions, one after another, each within its own, weighted by their shares.

    Sequential importance sampling. The column whose condition is rarest comes first: the first share is the
    same for all rows, so the conditions that come later, and vary, are those that most rows satisfy. With one
    condition the weights do not vary at all. More rows are drawn until half as many as are wanted tell
    something, ``MOST`` at most.

    Args:
        flow, base: what is asked.
        known: the codes of one row ``(1, D, 4)``, in which these columns are not known.
        conditions: intervals and sets, by column.
        wanted: rows.
        generator: of the draws.

    Raises:
        DataError: when fewer than ``LEAST`` of the draws tell something, or none can be.
    """
    if not conditions:
        return Particles(known, known.new_zeros(1), True)
    with asking(flow):
        shares = {j: float(base.conditional(known, j).share(c.part)) for j, c in conditions.items()}
    order = sorted(conditions, key=shares.__getitem__)
    text = " and ".join(conditions[j].text for j in order)
    rows = wanted
    while True:
        found = _drawn(flow, base, known, [conditions[j] for j in order], rows, generator)
        if float(found.log_weights.max()) == -torch.inf:
            raise DataError(f"{text}: the model knows no such row; ask for less, or for wider intervals.")
        if found.ess >= max(LEAST, wanted / 2) or rows >= MOST:
            break
        rows = min(4 * rows, MOST)
    if found.ess < min(LEAST, wanted):
        raise DataError(
            f"{text}: of {rows:,} draws only {found.ess:.1f} tell something (the effective sample size; "
            f"at least {LEAST:.0f} are needed), so an answer would be a guess; ask for wider intervals, more "
            "values, or fewer conditions at once."
        )
    return found


def _drawn(
    flow: Flow,
    base: CellDensity,
    known: Tensor,
    conditions: Sequence[Condition],
    rows: int,
    generator: Generator,
) -> Particles:
    def draw(index: Tensor) -> tuple[Tensor, Tensor]:
        return extended(base, known.repeat(len(index), 1, 1), conditions, generator)

    index = torch.arange(rows, device=known.device)
    return Particles(*in_parts(flow, draw, index, batch_size=BATCH), constant=len(conditions) == 1)


def extended(
    base: CellDensity, codes: Tensor, conditions: Sequence[Condition], generator: Generator
) -> tuple[Tensor, Tensor]:
    """Rows with these columns drawn too, each within its condition, and the log of the product of shares."""
    codes = codes.clone()
    log_weights = codes.new_zeros(len(codes))
    for condition in conditions:
        drawn, share = base.conditional(codes, condition.column).restricted(condition.part, generator)
        codes[:, condition.column] = condition.region.drawn(drawn, generator)
        log_weights = log_weights + share
    return codes, log_weights
