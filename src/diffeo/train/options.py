"""The options that every fit takes, written down once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import TypedDict

from diffeo.errors import ConfigError
from diffeo.train.checkpoint import Checkpoint
from diffeo.train.optimizer import OptimizerSettings
from diffeo.train.report import Callback


class TrainingOptions(TypedDict, total=False):
    """The keyword arguments that every fit takes: how long and how it trains, who is told, where it is kept.

    The shortest limit holds. A time budget becomes a number of steps once, after a few timed steps, so that
    the schedule depends on the step alone.

    Attributes:
        max_seconds: time budget.
        max_steps: optimizer steps.
        max_epochs: passes over the training rows.
        batch_size: rows a step; by default from the number of rows.
        seed: of split, weights, batches and noise. One seed, one machine, one length: the same bits.
        callbacks: objects with ``on_progress(progress)``; one may raise to stop the run.
        checkpoint: a file to resume from if it exists, and to save to as the run goes; removed at its end.
        optimizer: its settings; by default those of ``OptimizerSettings`` with the preset's learning rate.
        progress: whether to draw a progress bar; by default where a terminal or a notebook shows it.
        clock: what tells the seconds; ``time.process_time`` budgets processor time on a shared machine.
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


@dataclass(frozen=True)
class Options:
    """The same, checked, with their defaults: what a fit makes of its keyword arguments before anything else.

    Raises:
        ConfigError: for a limit or a batch size that is not positive, and a checkpoint in no folder.
        TypeError: for an option that there is not.
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

    def __post_init__(self) -> None:
        for name in ("max_seconds", "max_epochs", "max_steps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} must be positive and finite, not {value}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, not {self.batch_size}.")
        if isinstance(self.checkpoint, str | Path):
            object.__setattr__(self, "checkpoint", Checkpoint(self.checkpoint))

    @property
    def keeper(self) -> Checkpoint | None:
        """The checkpoint, as the object it has become."""
        assert not isinstance(self.checkpoint, str | Path)
        return self.checkpoint

    @property
    def unlimited(self) -> bool:
        """Whether no limit is set."""
        return self.max_seconds is None and self.max_steps is None and self.max_epochs is None
