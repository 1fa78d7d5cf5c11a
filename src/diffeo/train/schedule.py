"""How long a run is and how its learning rate goes: functions of the step, by a plan that a checkpoint keeps.

A time budget becomes a plan after some timed steps: a number of steps, and how often they are checked. Where
the machine turns out slower or faster the plan is made anew, and the learning rate goes on from where it is,
to end with the run. A resumed run follows the plan in its checkpoint, whatever the time, and so ends with the
same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WARMUP = 100
"""Steps over which the learning rate rises."""
EVALUATIONS = 60
"""How often a run is measured on its validation rows, at most."""
CHECKING = 0.1
"""Part of a run's time that these measurements may take together."""
_FEWEST = 5
"""Measurements of a whole run, however long they take."""
_UNTIMED, _TIMED = 4, 40
"""Steps of a time-limited run that go untimed, and that are timed, before its length is fixed."""
_MARKS = 50
"""How often a time-limited run is held against its plan; one that is off by less than a mark stays."""
_OVERTIME = 1.06
"""Part of its time after which a run that was held up ends, wherever its learning rate is."""


@dataclass(frozen=True)
class Budget:
    """The limits a user set; whichever is shortest holds. None of them: ``default_steps``.

    Args:
        seconds: wall-clock time.
        epochs: passes over the training rows.
        steps: optimizer steps.
    """

    seconds: float | None = None
    epochs: float | None = None
    steps: int | None = None

    def step_limit(self, per_epoch: int, default_steps: int) -> int:
        """The number of steps before time is considered."""
        limits = [self.steps, None if self.epochs is None else math.ceil(self.epochs * per_epoch)]
        known = [limit for limit in limits if limit is not None]
        if known:
            return max(1, min(known))
        return default_steps if self.seconds is None else 2**31


@dataclass(frozen=True)
class Plan:
    """How many steps a run has, and after how many it is measured each time.

    Args:
        steps: of the whole run.
        every: steps from one measurement to the next.
        since: the step at which this became the plan.
        done: how far the schedule was by then, from 0 to 1.
    """

    steps: int
    every: int
    since: int = 0
    done: float = 0.0

    @classmethod
    def of(cls, steps: int) -> Plan:
        """A run of known length."""
        return cls(steps, max(1, steps // EVALUATIONS))

    def due(self, step: int) -> bool:
        """Whether the run is measured behind this step."""
        return step >= self.steps or (step - self.since) % self.every == 0

    def progress(self, step: int) -> float:
        """How far the schedule is, from 0 to 1 at the last step."""
        if step >= self.steps:
            return 1.0
        return self.done + (1 - self.done) * (step - self.since) / (self.steps - self.since)


class Pace:
    """Keeps a run to its time: what its steps take makes a plan, and another where they come to take longer.

    Args:
        seconds: of the run.
        limit: the most steps.
    """

    def __init__(self, seconds: float, limit: int):
        self.seconds, self.limit = seconds, limit
        self.a_check = 0.0
        """Seconds of the last measurement."""
        self._timings: list[float] = []
        self._a_step = self._mark = 0.0

    def stepped(self, seconds: float) -> None:
        """A step took so long."""
        self._timings.append(seconds)

    def plan(self, step: int, elapsed: float, plan: Plan | None) -> Plan | None:
        """The plan from here on: the one there is while it fits; None while too little is known."""
        if plan is None and step >= self.limit:
            return Plan.of(step)
        if elapsed < self._mark if plan is not None else not self._enough():
            return plan
        self._measure(plan is None)
        self._mark = elapsed + self.seconds / _MARKS
        left = self.seconds - elapsed
        if plan is not None:
            needed = (plan.steps - step) * (self._a_step + self.a_check / plan.every)
            early = needed < left and plan.steps == self.limit
            if early or abs(needed - left) <= self.seconds / _MARKS:
                return plan
        # held up at the last moment, a run still gets what lets its learning rate come down
        left = max(left, min(self.seconds / _MARKS, _OVERTIME * self.seconds - elapsed), 0.0)
        share = min(1.0, left / self.seconds)
        checks = min(EVALUATIONS * share, CHECKING * left / max(self.a_check, 1e-9))
        checks = max(checks, _FEWEST * share, 1.0)
        more = int(max(0.0, left - checks * self.a_check) / self._a_step)
        steps = min(self.limit, step + more)
        every = max(1, int((steps - step) / checks))
        if plan is None:
            return Plan(steps, max(1, int(steps / checks)))
        return Plan(steps, every, step, plan.progress(step))

    def _enough(self) -> bool:
        """Whether the steps timed so far tell how long one takes."""
        spent = sum(self._timings)
        if len(self._timings) <= _UNTIMED:
            return spent > 0.3 * self.seconds
        return len(self._timings) >= _UNTIMED + _TIMED or spent > 0.05 * self.seconds

    def _measure(self, first: bool) -> None:
        """What a step takes, by the steps since the last mark."""
        if first:
            timed = sorted(self._timings[_UNTIMED:] or self._timings[-1:])
            timed = [t for t in timed if t <= 10 * timed[len(timed) // 2]]  # without hiccups of the machine
        else:
            timed = self._timings
        if timed:
            now = sum(timed) / len(timed)  # their mean: an objective may do more work at every fourth step
            self._a_step = max(now if first else (now + self._a_step) / 2, 1e-9)  # a clock may stand still
        self._timings.clear()


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a cosine to zero over the plan (Loshchilov and Hutter 2017, eq. 5)."""

    learning_rate: float
    plan: Plan | None = None

    def __call__(self, step: int) -> float:
        rate = self.learning_rate * min(1.0, (step + 1) / WARMUP)
        if self.plan is None:
            return rate
        return rate * 0.5 * (1 + math.cos(math.pi * self.plan.progress(step)))
