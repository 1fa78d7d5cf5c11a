"""The one training loop.

How long it is and what may change on the way, ``schedule`` says. A run is measured on a fixed sample of its
validation rows, so large that all measurements together take about a tenth of the time.
"""

from __future__ import annotations

import copy
import hashlib
import math
import re
from dataclasses import asdict, replace
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from typing_extensions import Unpack

from diffeo.contracts import Projectable, State, Stateful
from diffeo.errors import ConfigError, TrainingError
from diffeo.flow import Flow
from diffeo.functional.matmul_precision import matmul_dtype
from diffeo.functional.seeding import seeded
from diffeo.objectives import Batch, Likelihood, Objective
from diffeo.presets import Preset
from diffeo.train.checkpoint import Checkpoint
from diffeo.train.optimizer import FlatAdamW, OptimizerSettings
from diffeo.train.options import Options, TrainingOptions
from diffeo.train.progress import shown
from diffeo.train.report import FitReport, Point, Progress
from diffeo.train.rows import Epochs, Rows, default_batch_size, rows_for, sampled
from diffeo.train.schedule import CHECKING, EVALUATIONS, WARMUP, Budget, Pace, Plan, Schedule

DEFAULT_STEPS = 10_000
LEARNING_RATE = 2e-3
"""Of a flow that no preset built."""
BAD_STEPS = 20
"""So many steps in a row without a finite gradient end the run."""
_FEW = 1000
"""Validation rows of which a run of known length is measured on all."""
_FEWEST = 64
"""Validation rows that a run of limited time is measured on, however long they take."""


def fit(
    flow: Flow,
    x: ArrayLike | Rows,
    context: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    *,
    objective: Objective | None = None,
    validation: float | Rows = 0.1,
    **training: Unpack[TrainingOptions],
) -> FitReport:
    """Train ``flow`` in place on rows ``x`` and leave it in evaluation mode with its best weights.

    AdamW with warm-up and cosine decay, gradient clipping and a running mean of the weights. A part of
    the rows is held out: it sees neither the gradient nor the standardization, picks the weights kept
    and ends a run that no longer improves.

    Args:
        flow: what to train.
        x: rows, ``(rows, *event_shape)``, a tensor or an array; or ``Rows``, with contexts and weights of
            their own.
        context: one per row, where the flow takes one.
        weights: non-negative, one per row.
        objective: the loss; by default what the flow's preset says, else maximum likelihood.
        validation: fraction of rows held out, in [0, 1), 0 for none; or the rows to measure on.
        training: ``max_seconds``, ``max_steps``, ``max_epochs``, ``batch_size``, ``seed``, ``callbacks``,
            ``checkpoint``, ``optimizer``, ``progress``, ``clock``: see ``TrainingOptions``. Without any limit
            a run has 10,000 steps.

    Raises:
        DataError: for rows that are not finite, by row and column.
        ShapeError: for shapes the flow does not take.
        TrainingError: when step after step has no finite gradient; it names the rows.

    Example:
        >>> import torch, diffeo
        >>> flow = diffeo.presets.MAF(features=2, layers=2, hidden=(16,)).build()
        >>> report = diffeo.fit(flow, torch.randn(200, 2), max_steps=20)
        >>> report.steps, report.stopped
        (20, 'all 20 steps done')
    """
    options = Options(**training)
    with options.held():
        if isinstance(x, Rows):
            if context is not None or weights is not None:
                raise ConfigError(
                    "these rows have contexts and weights of their own; leave the arguments out."
                )
            rows = x
        else:
            rows = rows_for(flow, x, context, weights)
        if isinstance(validation, Rows):
            return fit_rows(flow, rows, validation, objective, options)
        if not 0 <= validation < 1:
            raise ConfigError(f"validation must be in [0, 1), not {validation}.")
        return fit_rows(flow, *rows.split(validation, options.seed), objective, options)


def fit_rows(
    flow: Flow,
    train: Rows,
    valid: Rows | None,
    objective: Objective | None,
    options: Options,
    reserve: float = 0.0,
) -> FitReport:
    """``fit`` for jobs: on rows that are checked and split, with options that are, too.

    Args:
        flow: what to train.
        train: rows to learn from.
        valid: rows to measure on, or None.
        objective: the loss, or None for the preset's.
        options: how.
        reserve: seconds of the budget that are left for what comes behind.
    """
    settings = _settings_of(flow, options.optimizer or OptimizerSettings())
    with seeded(options.seed), shown(options.progress, options.callbacks) as callbacks:
        told = replace(options, callbacks=callbacks, optimizer=settings)
        run = Run(flow, objective or objective_of(flow), train, valid, told)
        left = None if options.max_seconds is None else options.max_seconds - options.spent() - reserve
        try:
            return run.go(left, options.keeper)
        finally:  # whatever ended the run
            run.optimizer.release()
            flow.eval()


def objective_of(flow: Flow) -> Objective:
    """What the preset that built a flow minimizes; maximum likelihood for a flow built by hand."""
    return flow.preset.objective() if isinstance(flow.preset, Preset) else Likelihood()


def _settings_of(flow: Flow, settings: OptimizerSettings) -> OptimizerSettings:
    """The settings with a learning rate: their own, else the preset's, else the default."""
    rate = flow.preset.learning_rate if isinstance(flow.preset, Preset) else LEARNING_RATE
    return settings if settings.learning_rate is not None else replace(settings, learning_rate=rate)


def _at_a_time(rows: int, flow: Flow) -> int:
    """So many rows of a table; of images as many as have so many pixels, but no fewer than 64."""
    return max(min(64, rows), rows // flow.event_shape[1:].numel())


class Run(Stateful):
    """One run of the loop: its state, and the verbs that move it.

    Args:
        flow: what is trained.
        objective: the loss; one that is ``Stateful`` is kept in checkpoints.
        train: rows to learn from.
        valid: rows to measure on, or None.
        options: how; with optimizer settings that have a learning rate.
    """

    def __init__(self, flow: Flow, objective: Objective, train: Rows, valid: Rows | None, options: Options):
        assert options.optimizer is not None
        self.flow, self.objective, self.rows, self.valid = flow, objective, train, valid
        self.options, self.settings, self.clock = options, options.optimizer, options.clock
        self.budget = Budget(options.max_seconds, options.max_epochs, options.max_steps)
        self.epochs = Epochs(train, options.batch_size or default_batch_size(len(train)), options.seed)
        self.params: list[Tensor] = [p for p in flow.parameters() if p.requires_grad]
        if not self.params:
            raise ConfigError("this flow has no parameter to train.")
        if len(kinds := {f"{p.dtype} on {p.device}" for p in self.params}) > 1:
            raise ConfigError(
                f"the parameters are {' and '.join(sorted(kinds))}; give the flow one dtype: .float()."
            )
        self.ema: Flow = copy.deepcopy(flow).eval()
        followers = [p for p in self.ema.parameters() if p.requires_grad]
        self.optimizer = FlatAdamW(self.params, followers, self.settings.weight_decay, self.settings.clip)
        self.limit = self.budget.step_limit(self.epochs.per_epoch, DEFAULT_STEPS)
        self.plan = Plan.of(self.limit) if self.budget.seconds is None else None
        self.step = self.skipped = self.bad_in_a_row = self.best_step = 0
        self.elapsed = self.recent = 0.0
        self.curves: list[Point] = []
        self.best: dict[str, Tensor] = {}
        self.best_valid = -math.inf
        self.checked = 0
        self._index = torch.empty(0, dtype=torch.long)
        self.stopped = ""

    # -- the loop -----------------------------------------------------------------------------

    def go(self, seconds: float | None, checkpoint: Checkpoint | None) -> FitReport:
        """Train to the end, in so much time if it is limited; the flow has its best weights afterwards."""
        flow = self.flow
        flow.train()
        started = self.clock()
        fingerprint = "" if checkpoint is None else self.fingerprint()
        pace = None  # a resumed run keeps the plan it has
        if checkpoint is not None and checkpoint.restore(self, fingerprint):
            started -= self.elapsed
        else:
            sample = self.rows.sample(_at_a_time(100_000, flow))
            flow.initialize(sample.x, sample.context)
            pace = None if seconds is None else Pace(max(seconds, 1e-9), self.limit)
            self._settle_ema()
            self._choose_checks(pace)
            self.elapsed = self.clock() - started
            self._measure()
        projected = [m for m in flow.modules() if isinstance(m, Projectable)]
        ended, now = bool(self.stopped), self.clock()
        while not self.stopped:
            tick = now
            loss = self._train_step(self.epochs[self.step])
            with torch.no_grad():
                for module in projected:
                    module.project_()
            self.step += 1
            if loss is not None:
                self.recent += max(0.02, 1 / self.step) * (-loss - self.recent)
            now = self.clock()
            self.elapsed = now - started
            if pace is not None:
                pace.stepped(now - tick)
                self.plan = pace.plan(self.step, self.elapsed, self.plan)
            if self.plan is not None and self.plan.due(self.step):
                self._measure()
                self.stopped = self._stop_reason(self.plan.steps)
                tick, now = now, self.clock()
                if pace is not None:
                    pace.a_check = now - tick
            elif self.step % 20 == 0:
                self._tell(math.nan)
            if checkpoint is not None and self.plan is not None and not self.stopped:
                checkpoint.save_if_due(self, fingerprint, now)
        if not ended:
            self.elapsed = self.clock() - started
            if checkpoint is not None:
                checkpoint.save(self, fingerprint)
        return self._finish()

    def _train_step(self, batch: Batch) -> float | None:
        optimizer, settings = self.optimizer, self.settings
        assert settings.learning_rate is not None
        optimizer.zero_grad()
        with matmul_dtype(settings.matmul_dtype):
            loss = self.objective(self.flow, batch)
        loss.backward()
        value = loss.item()
        if not (math.isfinite(value) and math.isfinite(optimizer.gather())):
            self._skip(batch, value)
            return None
        self.bad_in_a_row = 0
        schedule = Schedule(settings.learning_rate, self.plan)
        optimizer.step(schedule(self.step), min(settings.ema, (1 + self.step) / (10 + self.step)))
        return value

    def _skip(self, batch: Batch, value: float) -> None:
        self.skipped += 1
        self.bad_in_a_row += 1
        if self.bad_in_a_row < BAD_STEPS:
            return
        with torch.no_grad():
            log_prob = self.flow(batch.x, batch.context)
        bad = batch.rows[~torch.isfinite(log_prob)].tolist()
        rows = bad or batch.rows.tolist()
        raise TrainingError(
            f"{BAD_STEPS} steps in a row had no finite gradient (loss {value}); at step {self.step} the "
            f"rows {rows[:10]}{' ...' if len(rows) > 10 else ''} "
            f"{'have no finite log-density' if bad else 'made the batch'}. Look at these "
            f"rows, or declare the columns' supports, or lower the learning rate."
        )

    def _stop_reason(self, steps: int) -> str:
        if self.step >= steps:
            return f"all {self.step} steps done"
        waited = self.step - max(self.best_step, steps // 10, WARMUP)
        if self.valid is not None and waited > self.settings.patience * steps:
            best = self.best_step
            return f"no better validation score {f'since step {best}' if best else 'than at the start'}"
        return ""

    # -- measuring ----------------------------------------------------------------------------

    def _choose_checks(self, pace: Pace | None) -> None:
        """How many of the validation rows are measured on: what the time or the steps between allow."""
        rows = 0 if self.valid is None else len(self.valid)
        if self.plan is not None:
            self.checked = min(rows, max(_FEW, self.plan.every * self.epochs.batch_size // 4))
        elif rows and pace is not None:
            self.checked, taken = 0, 0.0
            while self.checked < rows and taken < 0.003 * pace.seconds:
                self.checked, tick = min(rows, 4 * self.checked or _FEWEST), self.clock()
                self._validate()
                taken = self.clock() - tick
            each = max(taken, 1e-9) / self.checked
            most = int(CHECKING * pace.seconds / (EVALUATIONS // 2) / each)
            self.checked = min(rows, max(most, _FEWEST))
            pace.a_check = each * self.checked

    def _validate(self) -> float:
        assert self.valid is not None
        total = weight = 0.0
        if len(self._index) != self.checked:
            self._index = sampled(len(self.valid), self.checked, self.options.seed)
        with torch.no_grad():
            for part in self._index.split(_at_a_time(4096, self.flow)):
                batch = self.valid.batch(part)
                w = float(len(batch.rows)) if batch.weights is None else float(batch.weights.sum())
                if w > 0:
                    total -= float(self.objective(self.ema, batch)) * w
                    weight += w
        return total / weight if weight else math.nan

    @torch.no_grad()
    def _settle_ema(self) -> None:
        """Buffers as they are now, and constraints kept: a mean of projected weights needs projecting."""
        for own, live in zip(self.ema.buffers(), self.flow.buffers(), strict=True):
            own.copy_(live)
        for module in self.ema.modules():
            if isinstance(module, Projectable):
                module.project_()

    def _measure(self) -> None:
        self._settle_ema()
        valid = math.nan if self.valid is None else self._validate()
        self.curves.append(Point(self.step, self.elapsed, self.recent, valid))
        # as long as no score was finite the newest weights are as good as any
        if not math.isfinite(self.best_valid) or valid > self.best_valid:
            self.best_valid = valid
            self.best_step = self.step
            self.best = {k: v.detach().clone() for k, v in self.ema.state_dict().items()}
        self._tell(valid, self.ema)

    def _tell(self, valid: float, flow: Flow | None = None) -> None:
        steps = self.plan.steps if self.plan else None
        progress = Progress(self.step, steps, self.elapsed, self.recent, valid, flow=flow)
        for callback in self.options.callbacks:
            callback.on_progress(progress)

    def _finish(self) -> FitReport:
        if self.best:
            self.flow.load_state_dict(self.best)
        return FitReport(
            curves=tuple(self.curves),
            seconds=self.elapsed,
            steps=self.step,
            best_step=self.best_step,
            train=self.recent,
            valid=self.best_valid if self.valid is not None else math.nan,
            seed=self.options.seed,
            stopped=self.stopped,
            skipped=self.skipped,
            checked=self.checked,
        )

    # -- kept in a checkpoint -----------------------------------------------------------------

    _COUNTERS = (
        *("step", "skipped", "bad_in_a_row", "recent", "elapsed"),
        *("best_step", "best_valid", "checked", "stopped"),
    )

    def state(self) -> State:
        groups = {"flow": self.flow.state_dict(), "ema": self.ema.state_dict(), "best": self.best}
        groups["optimizer"] = self.optimizer.state
        counters = {name: getattr(self, name) for name in self._COUNTERS}
        plan = None if self.plan is None else asdict(self.plan)
        state = {**counters, "plan": plan, "curves": [asdict(p) for p in self.curves]}
        if isinstance(self.objective, Stateful):
            state["objective"], groups["objective"] = self.objective.state()
        tensors = {f"{name}.{k}": v for name, group in groups.items() for k, v in group.items()}
        return state, {**tensors, "rng": torch.get_rng_state()}

    def restore(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        def group(name: str) -> dict[str, Tensor]:
            return {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{name}.")}

        self.flow.load_state_dict(group("flow"))
        self.ema.load_state_dict(group("ema"))
        self.best = group("best")
        self.optimizer.load_state(group("optimizer"))
        for name in self._COUNTERS:
            setattr(self, name, state[name])
        self.plan = None if state["plan"] is None else Plan(**state["plan"])
        self.curves = [Point(**p) for p in state["curves"]]
        if isinstance(self.objective, Stateful):
            self.objective.restore(state["objective"], group("objective"))
        torch.set_rng_state(tensors["rng"])

    def fingerprint(self) -> str:
        """What makes a run this run, as a digest: its rows, flow, objective, limits and settings."""
        encoding = self.flow.encoding
        parts = [
            self.rows.fingerprint(),
            "" if self.valid is None else self.valid.fingerprint(),
            repr((self.flow, self.flow.preset, None if encoding is None else encoding.to_json())),
            repr((self.objective, self.budget, self.settings, self.epochs.batch_size, self.options.seed)),
        ]
        # the address of an object without a repr of its own is another one in each process
        text = re.sub(r" at 0x[0-9a-f]+", "", "\n".join(parts))
        return hashlib.sha256(text.encode()).hexdigest()
