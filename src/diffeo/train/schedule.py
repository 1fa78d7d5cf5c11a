"""How long a run is and how its learning rate goes: both fixed once, then functions of the step.

A time budget becomes a plan once. After some timed steps the number of steps and the spacing of evaluations
are fixed and stored in the checkpoint, so the schedule is a function of the step. A run that then takes a
quarter longer than planned stops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WARMUP = 100
"""Steps over which the learning rate rises."""
EVALUATIONS = 60
"""How often a run is measured on its validation rows, at most."""
_UNTIMED, _TIMED = 4, 40
"""Steps of a time-limited run that go untimed, and that are timed, before its length is fixed."""


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

    def enough_timed(self, timings: Sequence[float]) -> bool:
        """Whether the steps timed so far tell how long one takes."""
        assert self.seconds is not None
        spent = sum(timings)
        if len(timings) <= _UNTIMED:
            return spent > 0.3 * self.seconds
        return len(timings) >= _UNTIMED + _TIMED or spent > 0.05 * self.seconds

    def plan(self, left: float, timings: Sequence[float], evaluation: float, limit: int) -> Plan:
        """The length of a time-limited run with ``left`` seconds to go, from what its steps took."""
        done = len(timings)
        timed = sorted(timings[_UNTIMED:] or timings[-1:])
        usual = [t for t in timed if t <= 10 * timed[len(timed) // 2]]  # without hiccups of the machine
        per_step = sum(usual) / len(usual)  # their mean: an objective may do more work at every fourth step
        per_step = max(per_step, 1e-9)  # a clock may stand still
        evaluations = min(EVALUATIONS, max(5, int(0.1 * left / max(evaluation, 1e-9))))
        steps = done + int(max(0.0, left - evaluations * evaluation) / per_step)
        steps = min(limit, max(done, steps))
        return Plan(steps, max(1, steps // evaluations))


@dataclass(frozen=True)
class Plan:
    """How many steps a run has, and after how many it is measured each time."""

    steps: int
    every: int

    @classmethod
    def of(cls, steps: int) -> Plan:
        """A run of known length."""
        return cls(steps, max(1, steps // EVALUATIONS))


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a cosine to zero over ``steps`` (Loshchilov and Hutter 2017, eq. 5)."""

    learning_rate: float
    steps: int | None = None

    def __call__(self, step: int) -> float:
        warmup = min(1.0, (step + 1) / WARMUP)
        if self.steps is None:
            return self.learning_rate * warmup
        return self.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
