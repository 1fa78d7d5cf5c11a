"""The survey of a target before a flow learns it: where its mass is, and how much the time allows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffeo.bases import Normal
from diffeo.bijections import Standardize
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.inference.annealing import Annealing, spread
from diffeo.inference.importance import Importance, working_copy
from diffeo.inference.peaks import Peaks, Search, Trail, beside
from diffeo.inference.transitions import Hamiltonian, RandomWalk, Transition, fastest
from diffeo.targets import Evaluator
from diffeo.train.checkpoint import Checkpoint
from diffeo.train.options import Options
from diffeo.train.report import Progress

CHAINS, MOVING, EVERY = 2048, 512, 4
"""Chains of a survey, how many of them move at a time where the target is cheap, and every so many steps."""
FEWEST = 64
"""The least chains, however slow the target."""
SHARE = 0.3
"""Of the time, for the survey."""
PROBES, BATCH = 6, 4096
"""Points a survey throws at random for each that it walked to, so many at a time; without gradients."""
LITTLE, MORE = 0.02, 1.25
"""Mass of peaks, in that of the draws, below which they are not worth another run; of a peak alone."""
EFFORT = {Hamiltonian: 300, RandomWalk: 150}
"""Evaluations a chain that a survey takes, about: to fit it into a time."""
KNOWN_BY = 8
"""Rows whose log-densities tell one target from another."""


@dataclass(frozen=True)
class Survey:
    """What a survey found, and what it decided.

    Args:
        x: draws of the target, ``(chains, D)``, float64: where the chains begin.
        transition: how the chains move.
        moving: how many of them move at a time.
        num_draws: of the flow, for the report.
        seconds: that it took.
    """

    x: Tensor
    transition: Transition
    moving: int
    num_draws: int
    seconds: float


def survey(
    evaluator: Evaluator, features: int, start: float | Flow, num_draws: int, options: Options
) -> Survey:
    """Chains from ``start`` to the target, as many as the time allows."""
    origin = _origin(features, start)
    transition = fastest(evaluator, origin.sample(1).double())
    sizes = _sizes(evaluator, transition, origin, options, num_draws)
    tell = _teller(options)
    taken = _Runs(evaluator, transition, sizes, options.clock)
    if sizes.seconds < math.inf:  # how many stages it takes depends on the target: a few chains tell
        taken.anneal(origin, FEWEST)
    if more := taken.affordable(2 / 3):
        taken.anneal(origin, more, lambda done: tell(0.8 * done))
    found, chains = taken.pooled(), taken.chains
    peaks = taken.peaks(origin, found)
    if len(peaks):
        taken.anneal(beside(origin, peaks), max(FEWEST, taken.affordable(1)))
        found = taken.pooled(chains)
    tell(1.0)
    x = found.resample(chains)
    return Survey(x, transition, sizes.moving, sizes.num_draws, options.spent())


class _Runs:
    """Annealing, several times over, and what one run tells the next."""

    def __init__(
        self, evaluator: Evaluator, transition: Transition, sizes: _Sizes, clock: Callable[[], float]
    ):
        self._evaluator, self._sizes, self._clock = evaluator, sizes, clock
        self._transition, self._annealing = transition, Annealing(transition, keep=0.9)
        self._found: list[Importance] = []
        self._trail = Trail()
        self._began, self._evaluated, self._a_chain = clock(), evaluator.evaluations, 0.0

    @property
    def chains(self) -> int:
        """All that were carried to the target."""
        return sum(len(found) for found in self._found)

    def affordable(self, share: float) -> int:
        """Chains that this share of the time still allows, at what the last ones took."""
        if self._sizes.seconds == math.inf:
            return CHAINS
        return min(CHAINS, int(self._rows_left(share) / self._a_chain))

    def _rows_left(self, share: float) -> float:
        """Evaluations that this share of the time still allows."""
        left = share * self._sizes.seconds - (self._clock() - self._began)
        return max(0.0, left / self._sizes.seconds_a_row)

    def anneal(self, start: Flow, chains: int, on_stage: Callable[[float], None] | None = None) -> None:
        before, run, add = self._evaluator.evaluations, self._annealing.run, self._trail.add
        self._found.append(run(start, self._evaluator, chains, on_stage=on_stage, on_rows=add))
        self._a_chain = max(1.0, (self._evaluator.evaluations - before) / chains)

    def pooled(self, first: int | None = None) -> Importance:
        """The draws of all runs, by their weights: as much the first so many chains as those behind them.

        The mean weight of each run is an unbiased estimate of the same evidence, and one that lacks a part
        of the target falls short of it. So weights are left as they are.
        """
        x, log_weights = (torch.cat([getattr(f, n) for f in self._found]) for n in ("x", "log_weights"))
        if first is not None:
            log_weights[first:] += math.log(first / (len(x) - first))
        return Importance(x, log_weights)

    def peaks(self, origin: Flow, found: Importance) -> Peaks:
        """Those of the target that may hold what the draws found lack; none where they cannot."""
        rows = PROBES * (self._evaluator.evaluations - self._evaluated)
        if self._sizes.seconds < math.inf:
            rows = min(rows, int(0.5 * self._rows_left(1)))
        scale_tril, mean = spread(found.x, found.log_weights), found.mean()
        for batch in range(rows // BATCH):  # by turns where chains began, and where they ended
            x = origin.sample(BATCH).double()
            if batch % 2:
                x = mean + torch.randn_like(x) @ scale_tril.T
            self._trail.add(x, self._evaluator(x))
        climbers, most = max(8, self.chains // 8), max(2, self.chains // 64)
        search = Search(self._evaluator, self._transition.gradients, climbers, most)
        peaks = search.run(self._trail, scale_tril)
        share = math.exp(min(50.0, float(peaks.log_mass.logsumexp(0)) - found.log_z))
        if share < LITTLE or (len(peaks) == 1 and share < MORE):
            return Peaks.none(len(scale_tril))
        return peaks


def noted_survey(
    keeper: Checkpoint | None, asked: dict[str, Any], evaluator: Evaluator, take: Callable[[], Survey]
) -> Survey:
    """The survey that a checkpoint keeps, with evaluations and random state as they were behind it; or a new
    one, which the checkpoint then keeps.

    Args:
        keeper: the checkpoint, if any.
        asked: what the survey depends on, plain JSON by name.
        evaluator: of the target.
        take: the survey, taken.

    Raises:
        ConfigError: where the checkpoint's survey was asked for otherwise, or of another target.
    """
    if keeper is None:
        return take()
    noted = keeper.notes()
    if noted is None:
        found = take()
        sizes = {"moving": found.moving, "num_draws": found.num_draws, "seconds": found.seconds}
        keeper.note(
            {"asked": asked, "counts": evaluator.state()[0], **sizes},
            {"x": found.x, "known": _known(evaluator, found.x), "rng": torch.get_rng_state()},
        )
        return found
    notes, tensors = noted
    theirs = notes.get("asked")
    if not isinstance(theirs, dict) or theirs.keys() != asked.keys():
        raise keeper.of_another_run("not a fit to a target")
    if other := [name for name, value in asked.items() if theirs[name] != value]:
        raise keeper.of_another_run(f"another {' and '.join(other)}")
    x = tensors["x"]
    if not torch.allclose(_known(evaluator, x), tensors["known"], rtol=1e-5, atol=1e-5):
        raise keeper.of_another_run("another target: its log-density is not what it was")
    evaluator.restore(notes["counts"], {})
    torch.set_rng_state(tensors["rng"])
    return Survey(x, fastest(evaluator, x), notes["moving"], notes["num_draws"], notes["seconds"])


def start_of(start: float | Flow) -> float | str:
    """A start as plain JSON: the number, or a digest of the flow."""
    if not isinstance(start, Flow):
        return start
    digest = hashlib.sha256(repr(start).encode())
    for name, tensor in start.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _known(evaluator: Evaluator, x: Tensor) -> Tensor:
    """Log-densities at the first rows; not counted, so that a run that is kept counts as any other."""
    counts, _ = evaluator.state()
    found = evaluator(x[:KNOWN_BY])
    evaluator.restore(counts, {})
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


@dataclass(frozen=True)
class _Sizes:
    """What the time allows: seconds of the survey, those of a row, how many chains move, final draws."""

    seconds: float
    seconds_a_row: float
    moving: int
    num_draws: int


def _sizes(
    evaluator: Evaluator, transition: Transition, origin: Flow, options: Options, num_draws: int
) -> _Sizes:
    """Sizes by which a slow target stays within the time."""
    max_seconds = options.max_seconds
    if max_seconds is None:
        return _Sizes(math.inf, 0.0, MOVING, num_draws)
    each = _seconds_a_row(evaluator, transition, origin, options.clock)
    least = FEWEST * EFFORT.get(type(transition), max(EFFORT.values()))
    if 2 * least * each > max_seconds:
        raise ConfigError(
            f"the target takes {each:.2g} s a row, and to find its mass takes some {least:,.0f} rows: "
            f"max_seconds must be at least {2 * least * each:.0f}; or make the target faster."
        )
    moving = max(16, min(MOVING, int(EVERY * 0.005 / (7 * each))))  # as long as the steps between, about
    return _Sizes(SHARE * max_seconds, each, moving, min(num_draws, max(1000, int(0.1 * max_seconds / each))))


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
            return max(taken, 1e-9) / rows  # by a clock that did not move
        rows *= 4


def _teller(options: Options) -> Callable[[float], None]:
    def tell(done: float) -> None:
        progress = Progress(int(1000 * done), 1000, options.spent(), math.nan, math.nan, stage="survey")
        for callback in options.callbacks:
            callback.on_progress(progress)

    return tell
