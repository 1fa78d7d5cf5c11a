"""``fit_target``: from an unnormalized log-density to a flow, its evidence, and a verdict."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.distributions import constraints
from typing_extensions import Unpack

from diffeo.bases import Normal
from diffeo.bijections import Standardize
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.functional.domains import describe, same_interval
from diffeo.functional.seeding import seeded
from diffeo.inference.annealing import Annealing
from diffeo.inference.arviz import datatree, save_netcdf
from diffeo.inference.columns import columns
from diffeo.inference.coverage import Coverage, coverage
from diffeo.inference.importance import Importance, as_evaluator, importance, working_copy
from diffeo.inference.objectives.base import OfTarget
from diffeo.inference.objectives.replay import ReplayLikelihood
from diffeo.inference.sources import Population
from diffeo.inference.transitions import Hamiltonian, RandomWalk, Transition, fastest
from diffeo.objectives import Objective
from diffeo.targets import Evaluator, Target
from diffeo.train.loop import fit_rows
from diffeo.train.options import Options, TrainingOptions
from diffeo.train.progress import shown
from diffeo.train.report import Callback, FitReport, Progress
from diffeo.train.rows import rows_for

BATCH = 512
"""Rows a step, unless told otherwise."""
STEPS = 3000
"""Optimizer steps where no limit is set."""
CHAINS, TURN, EVERY = 2048, 512, 4
"""Chains of a survey, how many of them move at a time where the target is cheap, and every so many steps."""
_FEWEST = 64
"""The least chains, however slow the target."""
_SURVEY = {Hamiltonian: 300, RandomWalk: 150}
"""Evaluations a chain that a survey takes, about: to fit it into a time."""
FAR = 5.0
"""Nats by which the flow must fall short of the target for a point to count as missed."""


@dataclass(frozen=True)
class TargetReport:
    """What a fit to a density found, and whether to trust it.

    Args:
        draws: of the fitted flow, with their weights: evidence, effective size, Pareto k, resampling.
        coverage: the flow at the points of chains that walk the target, in place of exact draws; it sees what
            the flow's own draws cannot.
        target: what was fitted to; it names and constrains the draws.
        evaluations: rows of the target evaluated, all in all.
        gradients: how many of them with a gradient.
        nans: rows whose density was NaN and counted as zero.
        seconds: wall-clock time of each part: survey, fit, draws.
        training: how the training went.

    Example:
        >>> import diffeo
        >>> from diffeo.targets import FromTorch
        >>> flow = diffeo.presets.MAF(features=2, layers=2, hidden=(16,)).build()
        >>> report = diffeo.fit_target(flow, FromTorch(lambda x: -0.5 * x.square().sum(-1)), max_steps=100)
        >>> abs(report.log_z - math.log(2 * math.pi)) < 0.05, report.trusted
        (True, True)
    """

    draws: Importance
    coverage: Coverage
    target: Target = field(repr=False)
    evaluations: int
    gradients: int
    nans: int
    seconds: dict[str, float]
    training: FitReport = field(repr=False)

    @property
    def log_z(self) -> float:
        """The log evidence: log of the integral of the target."""
        return self.draws.log_z

    @property
    def log_z_error(self) -> float:
        """Its standard error."""
        return self.draws.log_z_error

    @property
    def ess(self) -> float:
        """Effective fraction of the flow's draws."""
        return self.draws.ess

    @property
    def pareto_k(self) -> float:
        """Shape of the weights' tail; above 0.7 they cannot be trusted."""
        return self.draws.pareto_k

    @property
    def missed(self) -> float:
        """Part of the chains' points where the flow has less than e^-5 of the target's density."""
        log_w = self.coverage.log_target - self.coverage.log_flow
        return float((log_w - self.log_z > FAR).double().mean())

    @property
    def doubts(self) -> tuple[str, ...]:
        """Reasons not to trust this fit, a sentence each."""
        found = list(self.draws.doubts)
        if self.missed > 0.005:
            found.append(
                f"{self.missed:.1%} of the points that chains found lie where the flow has hardly any "
                f"density: it has dropped a part of the target, or the target has no finite mass."
            )
        if self.nans > 0.01 * self.evaluations:
            found.append(f"The target was NaN at {self.nans:,} of {self.evaluations:,} points.")
        return tuple(found)

    @property
    def trusted(self) -> bool:
        """Whether there are no doubts."""
        return not self.doubts

    def moments(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of each parameter under the target, as ``columns`` names them.

        Empty where no draw of the flow has positive density.
        """
        if self.ess == 0:
            return {}
        counts = self.draws.normalized > 0  # a row without weight may be beyond what a constraint takes
        share = self.draws.normalized[counts].cpu().numpy()
        found = {}
        for name, values in columns(self.target, self.draws.x[counts]).items():
            mean = float(share @ values)
            found[name] = mean, math.sqrt(max(0.0, float(share @ (values - mean) ** 2)))
        return found

    def notes(self) -> dict[str, Any]:
        """What the model's file says of the run that made it."""
        figures = {
            "log Z": self.log_z,
            "error": self.log_z_error,
            "ESS": self.ess,
            "Pareto k": self.pareto_k,
        }
        return {
            **self.training.notes(),
            "seconds": round(sum(self.seconds.values()), 1),
            "evaluations": self.evaluations,
            "found": {name: round(v, 4) for name, v in figures.items() if math.isfinite(v)},
            "doubts": " ".join(self.doubts) or "none",
        }

    def datatree(self) -> Any:
        """The draws as an ArviZ ``DataTree``, named and on the target's own scale.

        Group ``posterior`` has as many as there are, resampled by weight; group ``proposal`` the flow's own
        with their weights.
        """
        return datatree(self.target, self.draws)

    def save(self, path: str | os.PathLike[str]) -> None:
        """``datatree()`` as a NetCDF file."""
        save_netcdf(self.datatree(), path)


def fit_target(
    flow: Flow,
    target: Target,
    *,
    start: float | Flow = 2.0,
    objective: Objective | None = None,
    draws: int = 10_000,
    **training: Unpack[TrainingOptions],
) -> TargetReport:
    """Train ``flow`` in place to be a density that can only be evaluated, up to a constant.

    First a survey: chains that are carried from a broad normal to the target (``Annealing``) find where its
    mass is. Then the flow learns from these chains, which go on walking the target, by steps of their own and
    by jumps that the flow proposes (``Population``). At the end draws of the flow are weighted; they give the
    evidence and tell how good the flow is. Targets without gradients are walked at random.

    Args:
        flow: of vectors, without context or encoding. ``presets.Tabular`` starts at the survey's moments.
        target: ``log_prob`` of rows ``(rows, D)``; see ``diffeo.targets``.
        start: where to look: the standard deviation of a normal around 0, wide enough to reach all of the
            target's mass, or a flow.
        objective: what is minimized instead, such as ``ReverseKL(target)``; the survey still sets where the
            flow starts.
        draws: of the flow, for the report.
        training: as ``TrainingOptions`` says; ``max_seconds`` covers everything, and slow targets then get
            fewer chains. Without any limit a run has 3,000 steps; by default a step has 512 rows.

    Raises:
        ConfigError: for a flow that a target cannot be fitted with, and for a time too short for the target.
        DataError: where the survey does not find the target's mass.

    Example:
        >>> import diffeo
        >>> from diffeo.targets import FromNumPy
        >>> flow = diffeo.presets.Tabular(features=2, layers=2, hidden=16).build()
        >>> ring = FromNumPy(lambda x: -8 * ((x**2).sum(-1) ** 0.5 - 2) ** 2)  # no gradients
        >>> report = diffeo.fit_target(flow, ring, max_steps=200)
        >>> report.gradients, abs(report.log_z - 2.064) < 0.1
        (0, True)
    """
    options = Options(**training)
    began = options.clock()
    if flow.encoding is not None:
        raise ConfigError("a flow with an encoding is for data; build it without one to fit a target.")
    working_copy(flow)  # refuses what is not a flow of vectors
    dtype = next((p.dtype for p in flow.parameters()), None)
    if dtype is None:
        raise ConfigError("this flow has no parameter to train.")
    if flow.bijection.domain is not None and not same_interval(flow.bijection.domain, constraints.real):
        raise ConfigError(
            f"this flow lives on {describe(flow.bijection.domain)}, but a target on the whole space; leave "
            f"that to targets.Constrained."
        )
    if draws < 2:
        raise ConfigError(f"draws must be at least 2, not {draws}.")
    evaluator = as_evaluator(target)
    seconds: dict[str, float] = {}
    with seeded(options.seed), shown(options.progress, options.callbacks) as callbacks:
        origin = _origin(flow.event_shape[0], start)
        transition = fastest(evaluator, origin.sample(1).double())
        chains, turn, draws = _sizes(evaluator, transition, origin, options, draws)
        tell = _teller(callbacks, began, options.clock)
        survey = Annealing(transition, keep=0.9).run(origin, evaluator, chains, on_stage=tell)
        seconds["survey"] = options.clock() - began
        x = survey.resample(chains)
        population = Population(evaluator, x, turn, transition)
        own = ReplayLikelihood(
            population, every=EVERY, capacity=4 * chains, start=Importance(x, x.new_zeros(chains))
        )
        limit = options.max_seconds
        how = replace(
            options,
            max_seconds=None if limit is None else max(1.0, 0.95 * limit - seconds["survey"]),
            max_steps=STEPS if options.unlimited else options.max_steps,
            batch_size=min(options.batch_size or BATCH, chains),
            callbacks=callbacks,
            progress=False,
        )
        report = fit_rows(flow, rows_for(flow, x.to(dtype), None, None), None, objective or own, how)
        seconds["fit"] = options.clock() - began - seconds["survey"]
        weighted = importance(flow, evaluator, draws)
        seen = coverage(flow, evaluator, population.points.x)
        seconds["draws"] = options.clock() - began - sum(seconds.values())
    own_evaluator = objective.evaluator if isinstance(objective, OfTarget) else None
    used = {id(e): e for e in (evaluator, own_evaluator) if e is not None}
    found = TargetReport(
        weighted,
        seen,
        evaluator.target,
        sum(e.evaluations for e in used.values()),
        sum(e.gradients for e in used.values()),
        sum(e.nans for e in used.values()),
        seconds,
        report,
    )
    flow.notes = found.notes()
    return found


def _origin(features: int, start: float | Flow) -> Flow:
    """Where the survey begins: a normal density of this standard deviation, or the flow given."""
    if isinstance(start, Flow):
        working_copy(start)
        if start.event_shape != (features,):
            raise ConfigError(f"start is a flow of shape {tuple(start.event_shape)}, not ({features},).")
        return start
    if not 0 < start < math.inf:
        raise ConfigError(f"start must be a positive standard deviation or a flow, not {start}.")
    flow = Flow(Standardize((features,)), Normal((features,))).double()
    flow.initialize(start * torch.tensor([[-1.0], [1.0]]).expand(2, features).double())
    return flow


def _sizes(
    evaluator: Evaluator, transition: Transition, origin: Flow, options: Options, draws: int
) -> tuple[int, int, int]:
    """Chains, how many move at a time, and final draws, so that a slow target stays within the time."""
    max_seconds = options.max_seconds
    if max_seconds is None:
        return CHAINS, TURN, draws
    each = _seconds_a_row(evaluator, transition, origin, options.clock)
    effort = _SURVEY.get(type(transition), max(_SURVEY.values())) * each
    least = _FEWEST * effort
    if 2 * least > max_seconds:
        raise ConfigError(
            f"the target takes {each:.2g} s a row, and to find its mass takes some {least / each:,.0f} rows: "
            f"max_seconds must be at least {2 * least:.0f}; or make the target faster."
        )
    chains = max(_FEWEST, min(CHAINS, int(0.3 * max_seconds / effort)))
    turn = max(16, min(TURN, int(EVERY * 0.005 / (7 * each))))  # as long as the steps between, about
    return chains, min(turn, chains), min(draws, max(1000, int(0.1 * max_seconds / each)))


def _seconds_a_row(
    evaluator: Evaluator, transition: Transition, origin: Flow, clock: Callable[[], float]
) -> float:
    """What an evaluation takes, from batches that grow until one of them can be timed."""
    rows = 8
    while True:
        x = origin.sample(rows).double()
        tick = clock()
        evaluator.value_and_grad(x) if transition.gradients else evaluator(x)
        taken = clock() - tick
        if taken > 0.02 or rows >= CHAINS:
            return taken / rows
        rows *= 4


def _teller(callbacks: Sequence[Callback], began: float, clock: Callable[[], float]) -> Any:
    def tell(done: float) -> None:
        progress = Progress(int(1000 * done), 1000, clock() - began, math.nan, math.nan, stage="survey")
        for callback in callbacks:
            callback.on_progress(progress)

    return tell
