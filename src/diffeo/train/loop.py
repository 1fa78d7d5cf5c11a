"""The one training loop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from diffeo.contracts import Projectable
from diffeo.errors import ConfigError, TrainingError
from diffeo.flow import Flow
from diffeo.functional.matmul_precision import matmul_dtype
from diffeo.objectives import Batch, Likelihood, Objective
from diffeo.presets import Preset
from diffeo.train.checkpoint import Checkpoint
from diffeo.train.data import Epochs, Rows, rows_for
from diffeo.train.optimizer import FlatAdamW
from diffeo.train.report import Callback, FitReport, Point, Progress
from diffeo.train.schedule import WARMUP, Budget, Plan, Schedule

DEFAULT_STEPS = 10_000
BAD_STEPS = 20
"""So many steps in a row without a finite gradient end the run."""


@dataclass(frozen=True)
class Recipe:
    """How the optimizer goes; the defaults suit standardized tables of any size.

    Args:
        learning_rate: peak of the schedule.
        weight_decay: decoupled, as in AdamW.
        clip: largest gradient norm.
        ema: decay of the weights' running mean, which is what is measured and kept.
        patience: a run ends early when so large a part of its length passes without a better
            validation score; 1 turns early stopping off.
        products: dtype of the nets' matrix products while training; None for the flow's own.
            ``torch.bfloat16`` is faster for wide nets (hidden 512 and more) on processors that have it;
            weights, splines and every evaluation stay as they are. Compare held-out scores.
    """

    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    clip: float = 5.0
    ema: float = 0.999
    patience: float = 0.25
    products: torch.dtype | None = None


def fit(
    flow: Flow,
    x: ArrayLike,
    context: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    *,
    objective: Objective | None = None,
    validation: float | Rows = 0.1,
    max_seconds: float | None = None,
    max_epochs: float | None = None,
    max_steps: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | Path | Checkpoint | None = None,
    recipe: Recipe | None = None,
) -> FitReport:
    """Train ``flow`` in place on rows ``x`` and leave it in evaluation mode with its best weights.

    AdamW with warm-up and cosine decay, gradient clipping and a running mean of the weights. A part of
    the rows is held out: it sees neither the gradient nor the standardization, picks the weights kept
    and ends a run that no longer improves. A time budget becomes a number of steps once, after a few
    timed steps, so that the schedule depends on the step alone.

    Args:
        flow: what to train.
        x: rows, ``(rows, *event_shape)``; tensor or array.
        context: one per row, where the flow takes one.
        weights: non-negative, one per row.
        objective: the loss; by default what the flow's preset says, else maximum likelihood.
        validation: fraction of rows held out, in [0, 1); 0 for none.
        max_seconds: time budget.
        max_epochs: passes over the training rows.
        max_steps: optimizer steps; without any limit, 10,000.
        batch_size: rows a step; by default from the number of rows.
        seed: of split, batches and noise. One seed, one machine, one length: the same bits.
        callbacks: objects with ``on_progress(progress)``.
        checkpoint: a file to resume from if it exists and to save to as the run goes; removed at its end.
        recipe: optimizer settings; by default those above with the preset's learning rate.

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
    started = time.monotonic()
    if not 0 <= (validation if isinstance(validation, int | float) else 0) < 1:
        raise ConfigError(f"validation must be in [0, 1), not {validation}.")
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, not {batch_size}.")
    rows = rows_for(flow, x, context, weights)
    train, valid = rows.split(validation, seed)
    size = batch_size or default_batch_size(len(train))
    budget = Budget(max_seconds, max_epochs, max_steps)
    if isinstance(checkpoint, str | Path):
        checkpoint = Checkpoint(Path(checkpoint))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loss, settings = objective or objective_of(flow), recipe or recipe_of(flow)
        run = Run(flow, loss, train, valid, size, budget, seed, settings, callbacks)
        try:
            return run.go(started, checkpoint)
        finally:
            run.optimizer.release()


def objective_of(flow: Flow) -> Objective:
    """What the preset that built a flow minimizes; maximum likelihood for a flow built by hand."""
    return flow.preset.objective() if isinstance(flow.preset, Preset) else Likelihood()


def recipe_of(flow: Flow) -> Recipe:
    """The defaults, with the learning rate of the preset that built a flow."""
    return Recipe(learning_rate=flow.preset.learning_rate) if isinstance(flow.preset, Preset) else Recipe()


def default_batch_size(rows: int) -> int:
    """About 20 steps an epoch on small tables, never above 512 rows nor below 32."""
    return int(min(512, max(32, 2 ** round(math.log2(max(1, rows / 20))))))


def _at_a_time(rows: int, flow: Flow) -> int:
    """So many rows of a table; of images as many as have so many pixels, but no fewer than 64."""
    return max(min(64, rows), rows // flow.event_shape[1:].numel())


class Run:
    """One run of the loop: its state, and the verbs that move it."""

    def __init__(
        self,
        flow: Flow,
        objective: Objective,
        train: Rows,
        valid: Rows | None,
        batch_size: int,
        budget: Budget,
        seed: int,
        recipe: Recipe,
        callbacks: Sequence[Callback],
    ):
        self.flow, self.objective, self.valid = flow, objective, valid
        self.rows, self.recipe, self.budget, self.callbacks = train, recipe, budget, callbacks
        self.epochs = Epochs(train, batch_size, seed)
        self.params: list[Tensor] = [p for p in flow.parameters() if p.requires_grad]
        if not self.params:
            raise ConfigError("this flow has no parameter to train.")
        if len(kinds := {f"{p.dtype} on {p.device}" for p in self.params}) > 1:
            raise ConfigError(
                f"the parameters are {' and '.join(sorted(kinds))}; give the flow one dtype: .float()."
            )
        self.ema: Flow = copy.deepcopy(flow).eval()
        followers = [p for p in self.ema.parameters() if p.requires_grad]
        self.optimizer = FlatAdamW(self.params, followers, recipe.weight_decay, recipe.clip)
        self.limit = budget.step_limit(self.epochs.per_epoch, DEFAULT_STEPS)
        self.plan = Plan.of(self.limit) if budget.seconds is None else None
        self.step = self.skipped = self.bad_in_a_row = 0
        self.report = FitReport(seed=seed)
        self.best: dict[str, Tensor] = {}
        self.best_valid = -math.inf
        self.recent = 0.0
        self.fingerprint: str | None = None

    # -- the loop -----------------------------------------------------------------------------

    def go(self, started: float, checkpoint: Checkpoint | None) -> FitReport:
        """Train to the end; the flow has its best weights afterwards."""
        flow, report = self.flow, self.report
        flow.train()
        before = None if checkpoint is None else checkpoint.restore_if_there(self)
        if before is None:
            sample = self.rows.sample(_at_a_time(100_000, flow))
            flow.initialize(sample.x, sample.context)
            self.ema.load_state_dict(flow.state_dict())
            before = 0.0
        projected = [m for m in flow.modules() if isinstance(m, Projectable)]
        if self.step == 0:
            self._measure(time.monotonic() - started)
        timings: list[float] = []
        while self.plan is None or self.step < self.plan.steps:
            tick = time.monotonic()
            loss = self._train_step(self.epochs[self.step])
            with torch.no_grad():
                for module in projected:
                    module.project_()
            self.step += 1
            if loss is not None:
                self.recent += max(0.02, 1 / self.step) * (-loss - self.recent)
            now = time.monotonic()
            elapsed = before + now - started
            if self.plan is None:
                timings.append(now - tick)
                self._plan(elapsed, timings)
            if self.plan is not None and self._due(self.plan):
                self._measure(elapsed)
                report.stopped = self._stop_reason(elapsed, self.plan.steps)
                if report.stopped:
                    break
            elif self.step % 20 == 0:
                self._tell(elapsed, math.nan)
            if checkpoint is not None and self.plan is not None:
                checkpoint.save_if_due(self, elapsed)
        report.stopped = report.stopped or f"all {self.step} steps done"
        report.seconds = before + time.monotonic() - started
        self._finish()
        if checkpoint is not None:
            checkpoint.remove()
        return report

    def _train_step(self, batch: Batch) -> float | None:
        optimizer, recipe = self.optimizer, self.recipe
        optimizer.zero_grad()
        with matmul_dtype(recipe.products):
            loss = self.objective(self.flow, batch)
        loss.backward()
        value = loss.item()
        if not (math.isfinite(value) and math.isfinite(optimizer.gather())):
            self._skip(batch, value)
            return None
        self.bad_in_a_row = 0
        schedule = Schedule(recipe.learning_rate, self.plan.steps if self.plan else None)
        optimizer.step(schedule(self.step), min(recipe.ema, (1 + self.step) / (10 + self.step)))
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

    # -- its length ---------------------------------------------------------------------------

    def _plan(self, elapsed: float, timings: list[float]) -> None:
        if self.step >= self.limit:
            self.plan = Plan.of(self.step)
        elif self.budget.seconds is not None and self.budget.enough_timed(timings):
            tick = time.monotonic()
            if self.valid is not None:
                self._validate()
            evaluation = time.monotonic() - tick
            left = self.budget.seconds - elapsed - evaluation
            self.plan = self.budget.plan(left, timings, evaluation, self.limit)

    def _due(self, plan: Plan) -> bool:
        return self.step >= plan.steps or self.step % plan.every == 0

    def _stop_reason(self, elapsed: float, steps: int) -> str:
        if self.budget.seconds is not None and elapsed > 1.25 * self.budget.seconds and self.step < steps:
            return f"time: {elapsed:.0f} s, the machine became slower than when the run was planned"
        waited = self.step - max(self.report.best_step, steps // 10, WARMUP)
        if self.valid is not None and waited > self.recipe.patience * steps:
            best = self.report.best_step
            return f"no better validation score {f'since step {best}' if best else 'than at the start'}"
        return ""

    # -- measuring ----------------------------------------------------------------------------

    def _validate(self) -> float:
        assert self.valid is not None
        total = weight = 0.0
        with torch.no_grad():
            for batch in self.valid.batches(_at_a_time(4096, self.flow)):
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

    def _measure(self, elapsed: float) -> None:
        self._settle_ema()
        valid = math.nan if self.valid is None else self._validate()
        self.report.curves.append(Point(self.step, elapsed, self.recent, valid))
        # as long as no score was finite the newest weights are as good as any
        if not math.isfinite(self.best_valid) or valid > self.best_valid:
            self.best_valid = valid
            self.report.best_step = self.step
            self.best = {k: v.detach().clone() for k, v in self.ema.state_dict().items()}
        self._tell(elapsed, valid, self.ema)

    def _tell(self, elapsed: float, valid: float, flow: Flow | None = None) -> None:
        steps = self.plan.steps if self.plan else None
        progress = Progress(self.step, steps, elapsed, self.recent, valid, flow=flow)
        for callback in self.callbacks:
            callback.on_progress(progress)

    def _finish(self) -> None:
        if self.best:
            self.flow.load_state_dict(self.best)
        self.flow.eval()
        report = self.report
        report.steps, report.skipped, report.train = self.step, self.skipped, self.recent
        report.valid = self.best_valid if self.valid is not None else math.nan
