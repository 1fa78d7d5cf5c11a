"""What a run reports, while it goes and when it has ended."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from typing import Any, Protocol

import numpy
import torch

from diffeo._version import __version__
from diffeo.flow import Flow


@dataclass(frozen=True)
class Progress:
    """Where a run stands. ``train`` and ``valid`` are mean nats a row; NaN until first measured.

    ``flow`` is what was just measured, the running mean of the weights in evaluation mode, to look at and not
    to keep or change; None between measurements.
    """

    step: int
    steps: int | None
    seconds: float
    train: float
    valid: float
    stage: str = "fit"
    flow: Flow | None = field(default=None, repr=False, compare=False)


class Callback(Protocol):
    """Told of progress; it may raise to stop the run."""

    def on_progress(self, progress: Progress) -> None: ...


@dataclass(frozen=True)
class _Relabelled:
    callback: Callback
    stage: str

    def on_progress(self, progress: Progress) -> None:
        self.callback.on_progress(replace(progress, stage=self.stage))


def relabelled(callbacks: Sequence[Callback], stage: str) -> list[Callback]:
    """The callbacks, told of the progress of a job's part under its own name."""
    return [_Relabelled(callback, stage) for callback in callbacks]


@dataclass(frozen=True)
class Point:
    """One measured point of the curves."""

    step: int
    seconds: float
    train: float
    valid: float


def versions() -> dict[str, str]:
    """The versions a result depends on."""
    return {
        "diffeo": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


@dataclass(frozen=True)
class FitReport:
    """How a run of the training loop went; the reports of jobs have one as ``training``.

    Args:
        curves: train and validation nats by step and seconds.
        seconds: of the run by its clock, resumed parts included.
        steps: optimizer steps taken.
        best_step: the step whose weights were kept.
        train: mean nats a row over the last training batches.
        valid: mean nats a row on the validation rows, at the kept weights; NaN without any.
        checked: how many of the validation rows that is a mean over: a fixed sample, where there are many.
        seed: the seed.
        stopped: why the run ended.
        skipped: steps skipped because loss or gradient was not finite.
        versions: of what the result depends on.
    """

    curves: tuple[Point, ...] = field(repr=False)
    seconds: float
    steps: int
    best_step: int
    train: float
    valid: float
    seed: int
    stopped: str
    skipped: int = 0
    checked: int = 0
    versions: dict[str, str] = field(default_factory=versions, repr=False)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return asdict(self)

    def notes(self) -> dict[str, Any]:
        """What a model file says of the run that made it."""
        return {
            "date": date.today().isoformat(),
            "seed": self.seed,
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "stopped": self.stopped,
            "versions": self.versions,
        }
