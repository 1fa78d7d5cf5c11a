"""The options that every fit takes, written down once."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from diffeo.errors import ConfigError
from diffeo.train.checkpoint import Checkpoint
from diffeo.train.optimizer import OptimizerSettings
from diffeo.train.report import Callback


class TrainingOptions(TypedDict, total=False):
    """The keyword arguments that every fit takes: how long and how it trains, who is told, where it is kept.

    The shortest limit holds. A time budget covers all that a fit does. It becomes a number of steps after a
    few timed ones, and another where the machine turns out slower or faster.

    Attributes:
        max_seconds: time budget.
        max_steps: optimizer steps.
        max_epochs: passes over the training rows.
        batch_size: rows a step; by default from the number of rows.
        seed: of split, weights, batches and noise. One seed, one machine, one number of steps: the same bits.
        callbacks: objects with ``on_progress(progress)``; one may raise to stop the run.
        checkpoint: a file to resume from if it exists, and to save to as the run goes. It stays: the same
            call then gives the same result at once. Delete it when what came of it is saved.
        optimizer: its settings; by default those of ``OptimizerSettings`` with the preset's learning rate.
        progress: whether to draw a progress bar; by default where a terminal or a notebook shows it.
        clock: what tells the seconds; ``time.process_time`` budgets processor time on a shared machine.
        began: when the time began to count, by the clock; by default when the fit is called.
    """

    max_seconds: float | None
    max_steps: int | None
    max_epochs: float | None
    batch_size: int | None
    seed: int
    callbacks: Sequence[Callback]
    checkpoint: str | Path | Checkpoint | None
    optimizer: OptimizerSettings | None
    progress: bool | None
    clock: Callable[[], float]
    began: float | None


@dataclass(frozen=True)
class Options:
    """The same, checked, with their defaults: what a fit makes of its keyword arguments before anything else.

    Numbers of any make become Python's, so that a run is the same run however its limits were written.

    Raises:
        ConfigError: for a limit or a batch size that is not positive, and a checkpoint in no folder.
        TypeError: for an option that there is not, and for what is not a number.
    """

    max_seconds: float | None = None
    max_steps: int | None = None
    max_epochs: float | None = None
    batch_size: int | None = None
    seed: int = 0
    callbacks: Sequence[Callback] = ()
    checkpoint: str | Path | Checkpoint | None = None
    optimizer: OptimizerSettings | None = None
    progress: bool | None = None
    clock: Callable[[], float] = time.monotonic
    began: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_seconds", "max_epochs", "max_steps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} must be positive and finite, not {value}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, not {self.batch_size}.")
        for name in ("max_seconds", "max_epochs"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else float(value))
        for name in ("max_steps", "batch_size", "seed"):
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        if self.began is None:
            object.__setattr__(self, "began", self.clock())
        if isinstance(self.checkpoint, str | Path):
            object.__setattr__(self, "checkpoint", Checkpoint(self.checkpoint))

    @property
    def keeper(self) -> Checkpoint | None:
        """The checkpoint, as the object it has become."""
        assert not isinstance(self.checkpoint, str | Path)
        return self.checkpoint

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block that has the checkpoint, if there is one, for itself."""
        if self.keeper is None:
            yield
            return
        with self.keeper.held():
            yield

    def spent(self) -> float:
        """Seconds since the time began to count."""
        assert self.began is not None
        return self.clock() - self.began

    @property
    def unlimited(self) -> bool:
        """Whether no limit is set."""
        return self.max_seconds is None and self.max_steps is None and self.max_epochs is None


def _whole(name: str, value: Any) -> int | None:
    """A whole number of any make as Python's; 1e3 is one."""
    if value is None:
        return None
    number = value.item() if isinstance(value, np.generic) else value
    try:
        return operator.index(number)
    except TypeError:
        if isinstance(number, float) and number.is_integer():
            return int(number)
        raise ConfigError(f"{name} must be a whole number, not {value!r}.") from None
