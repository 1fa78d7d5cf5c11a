"""Weighted rows that satisfy a question's conditions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor

from diffeo.bases.cells import Part
from diffeo.errors import DataError
from diffeo.flow import Flow, in_parts
from diffeo.tables.conditions import Condition
from diffeo.tables.known import BATCH, asking, mixed

LEAST = 30.0
"""Effective draws below which a question is refused."""
MOST = 65_536
"""Most draws made before it is."""


@dataclass(frozen=True)
class Particles:
    """Whole rows with weights.

    Args:
        codes: ``(rows, D, 4)``.
        log_weights: ``(rows,)`` float64: the joint density over that of the draw. Their mean weight is the
            density of the values that are given, times the probability of the intervals and sets.
        shares: of the rows' own law of a column the shares of some parts, ``(rows, parts)``, where asked.
    """

    codes: Tensor
    log_weights: Tensor
    shares: Tensor

    @cached_property
    def weights(self) -> Tensor:
        """The weights over their mean."""
        w = (self.log_weights - self.log_weights.max()).exp()
        return w / w.mean()

    @property
    def ess(self) -> float:
        """How many equally weighted draws would tell as much: ``(sum w)^2 / sum w^2``."""
        return len(self.codes) / float(self.weights.square().mean())

    @property
    def log_evidence(self) -> float:
        """The log of the mean weight."""
        return float(self.log_weights.logsumexp(0)) - math.log(len(self.codes))

    @property
    def error(self) -> float:
        """The standard error of the mean weight, over the mean weight."""
        return float(self.weights.std()) / math.sqrt(len(self.codes))

    def resampled(self, n: int, generator: Generator) -> Tensor:
        """Codes of n rows with equal weights, by systematic resampling."""
        edges = self.weights.cumsum(0)
        u = torch.rand(1, generator=generator, dtype=torch.float64, device=edges.device)
        at = (torch.arange(n, device=edges.device) + u) / n * edges[-1]
        return self.codes[torch.searchsorted(edges, at).clamp(max=len(edges) - 1)]


def particles(
    flow: Flow,
    known: Tensor,
    conditions: Mapping[int, Condition],
    rows: int,
    generator: Generator,
    parts: Sequence[Part | None] = (),
    last: int | None = None,
) -> Particles:
    """Rows of the joint density that have some values, and others within intervals and sets.

    Importance sampling. The columns with conditions are drawn one after another from their laws given what is
    known, each cut to its condition, the rarest first; then all others given these. What a row weighs is its
    joint density over that of its draw. The laws given any columns, in the order in which a question has
    them, are thus where draws come from, never what is answered: that is the joint density, in the one order
    in which it was trained most. More rows are drawn until half of those wanted tell something, ``MOST`` at
    most.

    Args:
        flow: what is asked.
        known: the codes of one row ``(1, D, 4)``, in which these columns are not known.
        conditions: intervals and sets, by column.
        rows: wanted.
        generator: of the draws.
        parts: whose shares are kept, of the column ``last``.
        last: the column that is the last of those with conditions to be drawn, if not the least rare.

    Raises:
        DataError: when fewer than ``LEAST`` of the draws tell something, or none can be.
    """
    base, wanted = mixed(flow)[1], rows
    with asking(flow):
        shares = {j: float(base.conditional(known, j).share(c.part)) for j, c in conditions.items()}
    chain = [conditions[j] for j in sorted(conditions, key=lambda j: (j == last, shares[j]))]
    is_known = (known[..., 0] >= 0).expand(1, -1)

    def draw(index: Tensor) -> tuple[Tensor, ...]:
        z, seen = known.repeat(len(index), 1, 1), is_known.repeat(len(index), 1)
        log_drawn, kept = z.new_zeros(len(z)), z.new_zeros(len(z), 0)
        for condition in chain:
            j = condition.column
            head = base.conditional(z, j)
            drawn, share = head.restricted(condition.part, generator)
            z[:, j] = condition.region.drawn(drawn, generator)
            log_drawn = log_drawn + base.column_log_probs(z, seen)[:, j] - share
            seen[:, j] = True
            if j == last:
                nothing = torch.full_like(share, -math.inf)
                every = [nothing if part is None else head.share(part) for part in parts]
                kept = (torch.stack(every, -1) - share[:, None]).exp()
        whole = base.complete(z, generator=generator)
        if not bool(seen.any()):  # drawn from the joint density itself
            return whole, log_drawn.double(), kept
        log_drawn = log_drawn + base.column_log_probs(whole, seen).sum(-1)
        return whole, (base.log_prob(whole) - log_drawn).double(), kept

    while True:
        found = Particles(*in_parts(flow, draw, torch.arange(rows, device=known.device), batch_size=BATCH))
        possible = float(found.log_weights.max()) > -math.inf
        if rows >= MOST or (possible and found.ess >= max(LEAST, wanted / 2)):
            break
        rows = min(4 * rows, MOST)
    if not possible or found.ess < LEAST:
        text = " and ".join(condition.text for condition in chain) or "the given values"
        worth = f"{found.ess:.1f}" if possible else "none"
        raise DataError(
            f"{text}: of {rows:,} draws {worth} tell something (the effective sample size; at least "
            f"{LEAST:.0f} are needed), so an answer would be a guess. Ask for wider intervals, more values "
            "or fewer conditions."
        )
    return found
