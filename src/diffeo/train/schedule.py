"""How long a run is and how its learning rate goes: both fixed once, then functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffeo.errors import ConfigError

WARMUP = 100
"""Steps over which the learning rate rises."""
TIMED = range(8, 40)
"""Steps of a time-limited run that are timed, after which its length is fixed."""


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

    def __post_init__(self) -> None:
        for name in ("seconds", "epochs", "steps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"max_{name} must be positive and finite, not {value}.")

    def step_limit(self, per_epoch: int, default_steps: int) -> int:
        """The number of steps before time is considered."""
        limits = [self.steps, None if self.epochs is None else math.ceil(self.epochs * per_epoch)]
        known = [limit for limit in limits if limit is not None]
        if known:
            return max(1, min(known))
        return default_steps if self.seconds is None else 2**31

    def steps_in_time(self, elapsed: float, done: int, per_step: float, limit: int) -> int:
        """The length of a time-limited run, from what its first steps took."""
        assert self.seconds is not None
        left = max(0.0, self.seconds - elapsed)
        return max(done, min(limit, done + int(left / per_step)))


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
