"""The progress bar that every fit draws where somebody sees it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from diffeo.train.report import Callback, Progress


@contextmanager
def shown(
    progress: bool | None, callbacks: Sequence[Callback], scale: float = 1.0
) -> Iterator[Sequence[Callback]]:
    """The callbacks, and before them one that draws a bar on standard error while the block runs.

    Args:
        progress: whether to draw it; None where a terminal or a notebook shows it.
        callbacks: whom else to tell.
        scale: what a nat is in what the bar shows, such as bits per dimension.
    """
    if not (_visible() if progress is None else progress):
        yield callbacks
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.fields[stage]:<8}"),
        BarColumn(),
        TextColumn("{task.fields[score]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bars:
        yield [_Bar(bars, scale), *callbacks]


def _visible() -> bool:
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


class _Bar:
    """A callback that moves a bar of rich."""

    def __init__(self, bars: Any, scale: float):
        self.bars, self.scale = bars, scale
        self.task = bars.add_task("", total=None, stage="start", score="")

    def on_progress(self, progress: Progress) -> None:
        self.bars.update(
            self.task,
            completed=progress.step,
            total=progress.steps,
            stage=progress.stage,
            score=f"train {self._figure(progress.train)}  valid {self._figure(progress.valid)}",
        )

    def _figure(self, nats: float) -> str:
        return "     ..." if math.isnan(nats) else f"{self.scale * nats:8.3f}"
