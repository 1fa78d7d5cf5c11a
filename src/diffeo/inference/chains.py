"""Markov chains, and what tells whether they have mixed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffeo.errors import ShapeError
from diffeo.inference.arviz import to_datatree
from diffeo.inference.importance import psis
from diffeo.targets import Target

MIXED = 1.01
"""R-hat above which chains are not said to agree."""
WANTED = 400
"""Effective draws below which R-hat and the effective number itself are unreliable."""


@dataclass(frozen=True)
class Chains:
    """Draws of several chains side by side.

    Args:
        x: ``(chains, draws, D)``.
        log_prob: the target's log-density at each, ``(chains, draws)``.
        acceptance: mean probability of acceptance of each chain, ``(chains,)``.
        evaluations: rows at which the target was evaluated, warm-up and starts included.
        gradients: those among them that were differentiated.
        seconds: wall clock.
        divergent: ``(chains, draws)``, transitions whose energy ran away; None where there is none.
        step_size: after adaptation; None for chains without steps.
        leaps: leapfrog steps a transition, on average.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(4, 1000, 2, generator=generator)
        >>> chains = Chains(x, -0.5 * x.square().sum(-1), torch.ones(4))
        >>> bool((chains.rhat < 1.01).all()), chains.min_ess > 3000, chains.doubts
        (True, True, ())
    """

    x: Tensor
    log_prob: Tensor
    acceptance: Tensor
    evaluations: int = 0
    gradients: int = 0
    seconds: float = 0.0
    divergent: Tensor | None = None
    step_size: float | None = None
    leaps: float | None = None

    def __post_init__(self) -> None:
        if self.x.dim() != 3 or self.log_prob.shape != self.x.shape[:2]:
            raise ShapeError(
                f"chains are draws (chains, draws, D) with log-densities (chains, draws), but x has shape "
                f"{tuple(self.x.shape)} and log_prob {tuple(self.log_prob.shape)}."
            )

    @cached_property
    def ess(self) -> Tensor:
        """Effective number of draws for each column's bulk, all chains together: ``(D,)``, by ArviZ.

        References: Vehtari, Gelman, Simpson, Carpenter and Bürkner 2021, "Rank-normalization, folding, and
        localization: an improved R-hat", section 4.
        """
        return self._by_column("ess", "bulk")

    @cached_property
    def rhat(self) -> Tensor:
        """Each column's rank-normalized split R-hat, ``(D,)``: near 1 where chains agree."""
        return self._by_column("rhat", "rank")

    @property
    def min_ess(self) -> float:
        """The effective number of draws of the worst column."""
        return float(self.ess.min())

    @property
    def max_rhat(self) -> float:
        """R-hat of the worst column."""
        return float(self.rhat.max())

    @property
    def divergences(self) -> int:
        """How many transitions diverged."""
        return 0 if self.divergent is None else int(self.divergent.sum())

    @property
    def doubts(self) -> tuple[str, ...]:
        """Reasons not to trust these draws, a sentence each; empty when there are none that they can show."""
        found = []
        if not self.max_rhat <= MIXED:
            found.append(f"R-hat is {self.max_rhat:.3f}, above {MIXED}: the chains do not agree.")
        if not self.min_ess >= WANTED:
            found.append(f"The worst column has {self.min_ess:.0f} effective draws; {WANTED} are wanted.")
        if self.divergences:
            found.append(
                f"{self.divergences} of {self.log_prob.numel()} transitions diverged: a region is missed."
            )
        return tuple(found)

    def flat(self) -> Tensor:
        """All draws as rows, ``(chains * draws, D)``."""
        return self.x.flatten(0, 1)

    def to_datatree(self, target: Target) -> Any:
        """The draws by the target's names, as an ArviZ ``DataTree``: see ``inference.to_datatree``."""
        statistics = {} if self.divergent is None else {"diverging": self.divergent}
        return to_datatree(target, self.x, log_prob=self.log_prob, statistics=statistics)

    def _by_column(self, name: str, method: str) -> Tensor:
        if self.x.shape[1] < 4:
            return torch.full(self.x.shape[-1:], math.nan, dtype=torch.float64)
        stats, x = psis(), self.x.detach().double().cpu().numpy()
        function = {"ess": stats.ess, "rhat": stats.rhat}[name]
        with np.errstate(all="ignore"):  # chains that stand still
            columns = [float(function(x[..., d], method=method)) for d in range(x.shape[-1])]
        return torch.tensor(columns, dtype=torch.float64)
