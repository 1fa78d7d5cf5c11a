"""``fit_target``: from an unnormalized log-density to a flow, its evidence, and a verdict."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints
from typing_extensions import Unpack

from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.functional.domains import describe, same_interval
from diffeo.functional.seeding import seeded
from diffeo.inference.annealing import spread
from diffeo.inference.arviz import save_netcdf, to_datatree
from diffeo.inference.counting import CountsEvaluations
from diffeo.inference.forward import ForwardCheck, forward_check
from diffeo.inference.importance import Importance, as_evaluator, importance, psis, working_copy
from diffeo.inference.objectives.replay import ReplayLikelihood
from diffeo.inference.parameters import columns
from diffeo.inference.peaks import Search, Trail, dark_mass
from diffeo.inference.sources import Population
from diffeo.inference.survey import EVERY, Survey, noted_survey, start_of, survey
from diffeo.objectives import Objective
from diffeo.targets import Evaluator, Target
from diffeo.train.loop import fit_rows
from diffeo.train.options import Options, TrainingOptions
from diffeo.train.progress import shown
from diffeo.train.report import FitReport
from diffeo.train.rows import rows_for

BATCH = 512
"""Rows a step, unless told otherwise."""
STEPS = 3000
"""Optimizer steps where no limit is set."""
FAR = 5.0
"""Nats by which the flow must fall short of the target for a point to count as missed."""
LITTLE = 0.005
"""Part of the points, or of the mass, that may be missed without a doubt."""


@dataclass(frozen=True)
class TargetReport:
    """What a fit to a density found, and whether to trust it.

    Args:
        weighted: draws of the fitted flow with their weights: evidence, effective size, Pareto k, resampling.
        at_chains: the flow at the points of chains that walk the target, in place of exact draws; it sees
            what the flow's own draws cannot.
        dark: part of the mass found at peaks where the flow has less than e^-5 of the target's density, by
            ascents from the highest points that chains came by, whether they stayed or not.
        target: what was fitted to; it names and constrains the draws.
        evaluations: rows of the target evaluated, all in all.
        gradients: how many of them with a gradient.
        nans: rows whose density was NaN and counted as zero.
        failed: rows at which the target raised an error, which counted as zero.
        failure: the first such error.
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

    weighted: Importance
    at_chains: ForwardCheck
    dark: float
    target: Target = field(repr=False)
    evaluations: int
    gradients: int
    nans: int
    failed: int
    failure: str
    seconds: dict[str, float]
    training: FitReport = field(repr=False)

    @property
    def log_z(self) -> float:
        """The log evidence: log of the integral of the target."""
        return self.weighted.log_z

    @property
    def log_z_error(self) -> float:
        """Its standard error."""
        return self.weighted.log_z_error

    @property
    def ess(self) -> float:
        """Effective fraction of the flow's draws."""
        return self.weighted.ess

    @property
    def pareto_k(self) -> float:
        """Shape of the weights' tail; above 0.7 they cannot be trusted."""
        return self.weighted.pareto_k

    @property
    def missed(self) -> float:
        """Part of the chains' points where the flow has less than e^-5 of the target's density."""
        log_w = self.at_chains.log_target - self.at_chains.log_flow
        return float((log_w - self.log_z > FAR).double().mean())

    @property
    def doubts(self) -> tuple[str, ...]:
        """Reasons not to trust this fit, a sentence each."""
        found = list(self.weighted.doubts)
        if self.missed > LITTLE:
            found.append(
                f"{self.missed:.1%} of the points that chains found lie where the flow has hardly any "
                f"density: it has dropped a part of the target, or the target has no finite mass."
            )
        if self.dark > LITTLE:
            found.append(
                f"{self.dark:.1%} of the mass is at peaks where the flow has hardly any density: chains came "
                f"by them and could not stay."
            )
        if self.nans > 0.01 * self.evaluations:
            found.append(f"The target was NaN at {self.nans:,} of {self.evaluations:,} points.")
        if self.failed > 0.01 * self.evaluations:
            found.append(
                f"The target failed at {self.failed:,} of {self.evaluations:,} points, first so: "
                f"{self.failure}"
            )
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
        counts = self.weighted.normalized > 0  # a row without weight may be beyond what a constraint takes
        share = self.weighted.normalized[counts].cpu().numpy()
        found = {}
        for name, values in columns(self.target, self.weighted.x[counts]).items():
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
            **({"failed": f"{self.failed} points: {self.failure}"} if self.failed else {}),
            "doubts": " ".join(self.doubts) or "none",
        }

    def to_datatree(self) -> Any:
        """The draws as an ArviZ ``DataTree``, named and on the target's own scale.

        Group ``posterior`` has as many as there are, resampled by weight; group ``proposal`` the flow's own
        with their weights.
        """
        return to_datatree(self.target, self.weighted)

    def save_netcdf(self, path: str | os.PathLike[str]) -> None:
        """``to_datatree()`` as a NetCDF file."""
        save_netcdf(self.to_datatree(), path)


def fit_target(
    flow: Flow,
    target: Target,
    *,
    start: float | Flow = 2.0,
    objective: Objective | None = None,
    num_draws: int = 10_000,
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
        num_draws: of the flow, for the report.
        training: as ``TrainingOptions`` says; ``max_seconds`` covers everything, and slow targets then get
            fewer chains. Without any limit a run has 3,000 steps; by default a step has 512 rows. A
            ``checkpoint`` keeps the survey, the chains and the training.

    Raises:
        ConfigError: for a flow that a target cannot be fitted with, a time too short for the target, and a
            checkpoint of another run.
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
    dtype = _dtype_of(flow)
    if num_draws < 2:
        raise ConfigError(f"num_draws must be at least 2, not {num_draws}.")
    evaluator, features = as_evaluator(target), flow.event_shape[0]
    asked = {
        "start": start_of(start),
        "number of columns": features,
        "limit": [options.max_seconds, options.max_steps, options.max_epochs],
        "seed": options.seed,
        "num_draws": num_draws,
    }
    psis()  # its import takes seconds, which the training should know of
    with options.held(), seeded(options.seed), shown(options.progress, options.callbacks) as callbacks:
        told = replace(options, callbacks=callbacks, progress=False)

        def take() -> Survey:
            return survey(evaluator, features, start, num_draws, told)

        known = noted_survey(options.keeper, asked, evaluator, take)
        chains = Population(evaluator, known.x, known.moving, known.transition)
        first = Importance(known.x, known.x.new_zeros(len(known.x)))
        own = ReplayLikelihood(chains, every=EVERY, capacity=4 * len(known.x), start=first)
        rows = rows_for(flow, known.x.to(dtype), None, None)
        reserve = 0.05 * (options.max_seconds or 0.0)
        report = fit_rows(flow, rows, None, objective or own, _behind(known, told), reserve)
        tick = options.clock()
        weighted = importance(flow, evaluator, known.num_draws)
        at_chains = forward_check(flow, evaluator, chains.points.x)
        weighted = weighted.beside(at_chains.log_target - at_chains.log_flow)
        dark = _dark(flow, chains, weighted.log_z, known.num_draws)
    found = TargetReport(
        weighted=weighted,
        at_chains=at_chains,
        dark=dark,
        target=evaluator.target,
        **_counts(evaluator, objective),
        seconds={"survey": known.seconds, "fit": report.seconds, "draws": options.clock() - tick},
        training=report,
    )
    flow.notes = found.notes()
    return found


def _dtype_of(flow: Flow) -> torch.dtype:
    """The dtype of a flow that can be fitted to a target; an error for one that cannot."""
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
    return dtype


def _behind(known: Survey, options: Options) -> Options:
    """The options of the training behind a survey: what it has taken, and the defaults of targets."""
    return replace(
        options,
        began=options.clock() - known.seconds,
        max_steps=STEPS if options.unlimited else options.max_steps,
        batch_size=min(options.batch_size or BATCH, len(known.x)),
    )


def _dark(flow: Flow, chains: Population, log_z: float, num_draws: int) -> float:
    """The part of all mass that lies at peaks above the highest points of chains, and not in the flow."""
    if log_z == -math.inf:
        return 1.0
    flow = working_copy(flow)

    def lit(x: Tensor) -> Tensor:
        with torch.no_grad():
            return flow.log_prob(x) + log_z + FAR

    x, log_prob = chains.highest
    trail = Trail()
    trail.add(*(part[log_prob > lit(x)] for part in (x, log_prob)))
    unit = spread(chains.points.x, torch.zeros(len(chains.points.x)).double())
    peaks = Search(chains.target, chains.transition.gradients, climbers=len(x), most=4).run(trail, unit)
    if not len(peaks):
        return 0.0
    excess = dark_mass(peaks, chains.target, lit, max(100, num_draws // 10)) - log_z
    return 1 / (1 + math.exp(-excess)) if excess > -700 else 0.0


def _counts(evaluator: Evaluator, objective: Objective | None) -> dict[str, Any]:
    """Evaluations, gradients, NaNs and failures, those of an objective of one's own included."""
    own = objective.evaluator if isinstance(objective, CountsEvaluations) else None
    used = {id(e): e for e in (evaluator, own) if e is not None}.values()
    names = ("evaluations", "gradients", "nans", "failed")
    counts = {name: sum(getattr(e, name) for e in used) for name in names}
    return {**counts, "failure": next((e.failure for e in used if e.failure), "")}
