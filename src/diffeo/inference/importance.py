"""Importance sampling with a flow as the proposal: weights, evidence, and what they say about the fit."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from diffeo.errors import ConfigError, DataError, ShapeError
from diffeo.flow import Flow, device_of, in_parts
from diffeo.inference.resampling import systematic
from diffeo.targets import Evaluator, Target

FEWEST = 25
"""Positive weights below which a Pareto tail is not fitted: it would rest on fewer than five of them."""
TRUSTED_K = 0.7
"""Pareto k above which importance sampling does not converge in any practical number of rows."""
HORIZON = 1000
"""How many times the draws there are a tail is followed beyond them."""
LIGHT = 0.003
"""Part of the weights beyond the draws that is left to the error, whatever the tail's shape."""
EQUAL = 1e-8
"""Nats within which log-weights count as equal: the rounding of an exact fit."""


def psis() -> Any:
    """ArviZ' statistics of arrays, loaded when they are needed."""
    from arviz_stats.base.array import array_stats

    return array_stats


@dataclass(frozen=True)
class Importance:
    """Rows with importance weights: draws of a target, by way of something that could be sampled.

    Formula: ``log w = log target(x) - log flow(x)``, x from the flow. Weighted averages are averages under
    the target; the mean weight is its normalizing constant Z. Everything is computed from logarithms in
    float64, so that their common size (1e5 nats, say) does not matter.

    Args:
        x: rows, ``(rows, D)``.
        log_weights: not normalized, ``(rows,)``; -inf is a weight of zero.
        most_beyond: what ``beyond`` is at most, where that is known from elsewhere.

    Raises:
        ShapeError: unless there is one weight a row, and at least one row.
        DataError: for a log-weight of NaN or +inf, with its row; from what needs a positive weight, if none
            is.

    References: Vehtari, Simpson, Gelman, Yao and Gabry 2024, "Pareto smoothed importance sampling", JMLR 25.

    Example:
        >>> import torch
        >>> weighted = Importance(torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, 3.0]).log())
        >>> weighted.normalized.tolist(), weighted.mean().tolist()
        ([0.0, 1.0], [1.0])
        >>> round(weighted.log_z, 4), round(weighted.ess, 4)  # log of 3 / 2; one row of two counts
        (0.4055, 0.5)
    """

    x: Tensor
    log_weights: Tensor
    most_beyond: float = math.inf

    def __post_init__(self) -> None:
        if self.x.dim() != 2 or self.log_weights.shape != self.x.shape[:1] or not len(self.x):
            raise ShapeError(
                f"importance weights need rows (rows, D) and one log-weight a row, but x has shape "
                f"{tuple(self.x.shape)} and log_weights {tuple(self.log_weights.shape)}."
            )
        bad = self.log_weights.isnan() | (self.log_weights == math.inf)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise DataError(
                f"log-weight {row} is {float(self.log_weights[row])}; each must be a number or -inf, so look "
                f"where the target or the flow gives no finite density."
            )
        object.__setattr__(self, "log_weights", self.log_weights.detach().double())

    def __len__(self) -> int:
        return len(self.x)

    @cached_property
    def log_z(self) -> float:
        """Log of the mean weight: the target's log normalizing constant, its log evidence.

        The mean is unbiased, its logarithm low by about half of ``log_z_error`` squared.
        """
        return float(self.log_weights.logsumexp(0)) - math.log(len(self))

    @cached_property
    def ess(self) -> float:
        """Effective fraction of the rows, ``1 / (N sum w^2)`` for normalized w: 1 / N to 1; 0 for no weight.

        It cannot see what the flow never draws: a mode that was dropped leaves it near 1. ``forward_check``
        can.
        """
        if self.log_z == -math.inf:
            return 0.0
        log_ess = 2 * self.log_weights.logsumexp(0) - (2 * self.log_weights).logsumexp(0)
        return min(1.0, float(log_ess.exp()) / len(self))

    @cached_property
    def log_z_error(self) -> float:
        """Standard error of ``log_z``: the mean weight's over the mean, with what is ``beyond`` its tail.

        Formula: ``sqrt((1 / ess - 1) / (N - 1) + beyond^2)``. The first part is that of the rows at hand,
        which hold none of a heavy tail's largest weights; with these alone a tail of k = 0.7 is off by 1.6
        errors on average, one of 0.9 by 5. Trust it only where ``doubts`` is empty. Infinite for one row, or
        no weight.
        """
        if len(self) < 2 or self.ess == 0:
            return math.inf
        return math.sqrt(max(0.0, 1 / self.ess - 1) / (len(self) - 1) + self.beyond**2)

    @cached_property
    def beyond(self) -> float:
        """The part of the sum of weights expected above the largest weight that N draws should have.

        Formula: with the fitted tail's quantile function q of the probability p to exceed, the integral of
        ``q(p) - q(M / N)`` from ``1 / (1000 N)`` to ``1 / N`` over the mean weight, for M draws in the tail.
        An end is set since above k = 1 there is none; draws so rare do not come. 0 where k is NaN, infinite
        where it is. Above k = 0.7, where the integral is mostly far from any draw, ``most_beyond`` bounds it.
        """
        tail, k = self._tail, self.pareto_k
        if not math.isfinite(k):
            return self.most_beyond if k == math.inf else 0.0
        k = k if abs(k) > 1e-3 else 1e-3
        excess = (tail - self.log_z).exp() - (tail[0] - self.log_z).exp()
        scale = float(excess.median()) * k / math.expm1(k * math.log(2.0))
        far = (HORIZON ** (k - 1) - 1) / (k - 1) if abs(k - 1) > 1e-3 else math.log(HORIZON)
        area = len(tail) ** k * far - (1 - 1 / HORIZON)
        found = max(0.0, scale / k * area) / len(self)
        return min(found, self.most_beyond) if k > TRUSTED_K else found

    @property
    def pareto_k(self) -> float:
        """Shape of the generalized Pareto tail of the weights: below 0.7 they can be trusted.

        Above 1 the mean weight itself need not exist. 0 where the largest weights are all equal; infinite
        where they are hundreds of nats apart; NaN where it cannot be told, as with fewer than 25 positive
        weights.
        """
        return self._pareto[1]

    def beside(self, log_weights: Tensor) -> Importance:
        """The same rows, with what the weights of draws of the target itself say of the tail.

        A draw of the target has a weight above all these as often as there is mass ``beyond`` them. Of n such
        draws, c above, that is at most ``(c + 3) / n`` about (95%).

        Args:
            log_weights: of the draws of the target, ``(rows,)``.
        """
        above = int((log_weights > self.log_weights.max()).sum())
        return Importance(self.x, self.log_weights, (above + 3) / max(len(log_weights), 1))

    def smoothed(self) -> Importance:
        """The same rows with the largest weights replaced by the quantiles of the fitted Pareto tail.

        Less variance for a little bias. Unchanged where no tail can be fitted.
        """
        return Importance(self.x, self._pareto[0])

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """Reasons not to trust these weights, a sentence each; empty when they show none."""
        rows, found = len(self), []
        if self.ess == 0:
            return ("No draw of the flow has positive density under the target.",)
        limit = min(TRUSTED_K, 1 - 1 / math.log10(max(rows, 11)))
        if math.isnan(self.pareto_k):
            found.append("Pareto k cannot be estimated: too few draws with different positive weights.")
        elif self.pareto_k > limit and not self.beyond < LIGHT:
            found.append(
                f"Pareto k is {self.pareto_k:.2f}, above {limit:.2f}: a few draws carry the weight, and "
                f"neither log Z nor its error can be trusted."
            )
        if rows * self.ess < 100:
            found.append(f"Only {rows * self.ess:.1f} of {rows} draws are effective.")
        return tuple(found)

    @property
    def normalized(self) -> Tensor:
        """The weights, with sum 1; ``(rows,)``, float64."""
        self._check_mass()
        return self.log_weights.softmax(0)

    def mean(self) -> Tensor:
        """Each column's mean under the target, ``(D,)``."""
        return self.normalized @ self.x.double()

    def std(self) -> Tensor:
        """Each column's standard deviation under the target, ``(D,)``."""
        return (self.normalized @ (self.x.double() - self.mean()).square()).sqrt()

    def resample(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Rows of equal weight, drawn with replacement, in random order: ``(num_draws, D)``.

        Systematic resampling: a row of weight w comes ``num_draws w`` times, rounded down or up. Unbiased as
        independent draws are, with less noise; at equal weights as many draws as rows give each once.

        Args:
            num_draws: how many, at least 0.
            generator: of the random numbers.
        """
        if num_draws < 0:
            raise ConfigError(f"num_draws must be at least 0, not {num_draws}.")
        self._check_mass()
        index = systematic(self.log_weights, num_draws, generator)
        return self.x[index[torch.randperm(num_draws, generator=generator, device=index.device)]]

    def _check_mass(self) -> None:
        if self.ess == 0:
            raise DataError(
                "every weight is zero: no draw has positive density under the target; fit the flow longer, "
                "or start it where the target has mass."
            )

    @cached_property
    def _tail(self) -> Tensor:
        """The largest log-weights, in order, to which a Pareto tail is fitted; none where rows are few."""
        raw = self.log_weights[self.log_weights.isfinite()]
        if len(raw) < FEWEST:
            return raw[:0]
        return raw.sort().values[-min(len(raw) // 5, math.floor(3 * math.sqrt(len(raw)))) :]

    @cached_property
    def _pareto(self) -> tuple[Tensor, float]:
        """Smoothed log-weights, on the scale of the raw ones, and k."""
        positive = self.log_weights.isfinite()
        raw = self.log_weights[positive]
        if len(raw) < FEWEST:
            return self.log_weights, math.nan
        tail = self._tail
        if tail[-1] - tail[0] < EQUAL:
            return self.log_weights, 0.0
        ordered = raw.sort().values
        with np.errstate(all="ignore"):
            # ArviZ takes log-likelihoods left out, whose negatives are the log-weights
            values, k = psis().psislw(-(raw - ordered[-1]).cpu().numpy())
        smooth = torch.from_numpy(np.asarray(values)).to(raw)
        if not math.isfinite(k) or not smooth.isfinite().all():
            far = float(ordered[-1] - tail[len(tail) // 4]) > 300  # where weights underflow in the fit
            return self.log_weights, math.inf if far else math.nan
        middle = int(raw.argsort()[len(raw) // 2])  # not of the tail: ties the two scales
        answer = self.log_weights.clone()
        answer[positive] = smooth - smooth[middle] + raw[middle]
        return answer, float(k)


def importance(
    flow: Flow,
    target: Target,
    num_draws: int,
    *,
    generator: Generator | None = None,
    batch_size: int = 4096,
) -> Importance:
    """Draws of the flow, weighted to be draws of the target.

    Each comes with its density from the sampling pass itself. A float64 copy of the flow does the work, in
    evaluation mode: log-densities of a hundred columns lose digits in float32 that weights still need.

    Cost: one sampling pass and one evaluation of the target a row, without gradients.

    Args:
        flow: of vectors, without context.
        target: or an ``Evaluator`` of one, which then counts.
        num_draws: how many, at least 1.
        generator: of the random numbers.
        batch_size: draws at a time.

    Raises:
        ConfigError: for a flow of other things than vectors, or a number below 1.

    Example:
        >>> import torch, diffeo
        >>> class Normal:  # twice the density of a standard normal
        ...     def log_prob(self, x):
        ...         return -0.5 * x.square().sum(-1) - math.log(2 * math.pi) + math.log(2)
        >>> flow = diffeo.presets.MAF(features=2).build()  # untrained: standard normal
        >>> weighted = importance(flow, Normal(), 1000, generator=torch.Generator().manual_seed(0))
        >>> round(weighted.log_z, 6) == round(math.log(2), 6), round(weighted.ess, 6)
        (True, 1.0)
    """
    x, log_target, log_flow = propose(flow, as_evaluator(target), num_draws, generator, batch_size)
    return Importance(x, log_target - log_flow)


def propose(
    flow: Flow, evaluate: Evaluator, num_draws: int, generator: Generator | None, batch_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws of the flow, with the target's and the flow's log-densities, in float64."""
    if num_draws < 1:
        raise ConfigError(f"num_draws must be at least 1, not {num_draws}.")
    flow = working_copy(flow)

    def part(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, log_flow = flow.sample_and_log_prob(len(index), generator=generator)
        return x, evaluate(x), log_flow

    index = torch.arange(num_draws, device=device_of(flow))
    x, log_target, log_flow = in_parts(flow, part, index, batch_size=batch_size)
    return x, log_target, log_flow


def as_evaluator(target: Target) -> Evaluator:
    """What everything here evaluates through: the target itself if it is one."""
    return target if isinstance(target, Evaluator) else Evaluator(target)


def working_copy(flow: Flow) -> Flow:
    """The flow in float64 and evaluation mode; a copy, so that the user's is left as it is."""
    if len(flow.event_shape) != 1 or flow.context_shape is not None:
        raise ConfigError(
            f"a flow is fitted to a density of vectors, without context; this one has event shape "
            f"{tuple(flow.event_shape)} and context shape {flow.context_shape and tuple(flow.context_shape)}."
        )
    return copy.deepcopy(flow).double().eval()
