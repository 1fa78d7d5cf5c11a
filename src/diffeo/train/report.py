"""What a run reports, while it goes and when it has ended."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
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


@dataclass
class FitReport:
    """How a run went.

    Args:
        curves: train and validation nats by step and seconds.
        seconds: wall-clock time of the run, resumed parts included.
        steps: optimizer steps taken.
        best_step: the step whose weights were kept.
        train: mean nats a row over the last training batches.
        valid: mean nats a row on the validation rows, at the kept weights; NaN without any.
        held_out: how many rows ``fit_table`` held out.
        seed: the seed.
        stopped: why the run ended.
        skipped: steps skipped because loss or gradient was not finite.
        versions: of what the result depends on.
        baselines: held-out nats a row of this flow and of plain densities on the same rows.
        bits_per_dim: of images, lower is better: of this flow in training (``train``) and on held-out images
            (``valid``), and of plain models on the latter.
    """

    curves: list[Point] = field(default_factory=list, repr=False)
    seconds: float = 0.0
    steps: int = 0
    best_step: int = 0
    train: float = float("nan")
    valid: float = float("nan")
    held_out: int = 0
    seed: int = 0
    stopped: str = ""
    skipped: int = 0
    versions: dict[str, str] = field(default_factory=versions)
    baselines: dict[str, float] = field(default_factory=dict)
    bits_per_dim: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return asdict(self)
