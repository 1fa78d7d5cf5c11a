"""Callbacks that show what a flow of images has learned so far: pictures in a folder, TensorBoard."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffeo.encodings import bits_per_dim
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.images.pictures import grid, save_image
from diffeo.images.samples import sample_images
from diffeo.train.report import Progress

_SHARE = 20
"""Drawing takes at most one part in so many of the time."""


class Preview(ABC):
    """Draws the same latents through the flow now and then, right after it was measured.

    Args:
        context: one for each sample, as the flow takes it, or None.
        n: samples, where there is no context.
        every_seconds: least time from one drawing to the next; it is longer where drawing is slow.
        seed: of the latents.
        clock: what tells the seconds.
    """

    def __init__(
        self,
        context: Tensor | None,
        n: int,
        every_seconds: float,
        seed: int,
        clock: Callable[[], float],
    ):
        self.context, self.n, self.every_seconds = context, n, every_seconds
        self.seed, self.clock = seed, clock
        self._next = -math.inf

    def on_progress(self, progress: Progress) -> None:
        """Draw, if there is something new to see and it is time."""
        now = self.clock()
        if progress.flow is None or (now < self._next and progress.step != progress.steps):
            return
        self.show(grid(self._draw(progress.flow)), progress.step)
        done = self.clock()
        self._next = done + max(self.every_seconds, _SHARE * (done - now))

    @abstractmethod
    def show(self, picture: Tensor, step: int) -> None:
        """Put the samples, one ``(C, H, W)`` of bytes, where they can be seen."""

    def _draw(self, flow: Flow) -> Tensor:
        # its random numbers are its own: a run that is watched takes the same steps as one that is not
        n = self.n if self.context is None else len(self.context)
        return sample_images(flow, n, given=self.context, seed=self.seed)


class SampleGrids(Preview):
    """Writes grids of samples, ``step-000500.png``, as training goes.

    Args:
        folder: where to; made if it is not there.
        context: one for each sample, as the flow takes it, or None.
        n: samples, where there is no context.
        every_seconds: least time from one picture to the next; it is longer where drawing is slow.
        seed: of the latents; they are the same in every picture.
        clock: what tells the seconds.

    Raises:
        ConfigError: for a folder that cannot be.
    """

    def __init__(
        self,
        folder: str | Path,
        context: Tensor | None = None,
        n: int = 16,
        every_seconds: float = 30.0,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ):
        super().__init__(context, n, every_seconds, seed, clock)
        self.folder = _made(folder)

    def show(self, picture: Tensor, step: int) -> None:
        save_image(picture, self.folder / f"step-{step:06d}.png")


class TensorBoard(Preview):
    """Writes bits per dimension and grids of samples for TensorBoard: ``tensorboard --logdir FOLDER``.

    Args:
        folder: where to; made if it is not there.
        event_shape: ``(C, H, W)`` of the images; None where what is minimized is not their likelihood, to
            see it as it is.
        context: one for each sample, as the flow takes it, or None.
        n: samples, where there is no context.
        every_seconds: least time from one picture to the next; it is longer where drawing is slow.
        seed: of the latents; they are the same in every picture.
        clock: what tells the seconds.

    Raises:
        ConfigError: where TensorBoard is not installed, and for a folder that cannot be.
    """

    def __init__(
        self,
        folder: str | Path,
        event_shape: tuple[int, int, int] | None,
        context: Tensor | None = None,
        n: int = 16,
        every_seconds: float = 30.0,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ):
        super().__init__(context, n, every_seconds, seed, clock)
        self._make = check_tensorboard()
        self.folder, self.event_shape = _made(folder), event_shape
        self._writer: Any = None

    def on_progress(self, progress: Progress) -> None:
        """Add the curves' newest points, and now and then a picture."""
        if self._writer is None:  # what a killed run wrote beyond its checkpoint is dropped
            self._writer = self._make(str(self.folder), purge_step=progress.step)
        for name, nats in (("train", progress.train), ("valid", progress.valid)):
            if not math.isfinite(nats) or (name == "train" and not progress.step):
                continue
            if self.event_shape is None:
                self._writer.add_scalar(f"objective/{name}", nats, progress.step)
            else:
                bits = float(bits_per_dim(torch.tensor(nats), self.event_shape))
                self._writer.add_scalar(f"bits_per_dim/{name}", bits, progress.step)
        super().on_progress(progress)
        if progress.flow is not None:
            self._writer.flush()

    def show(self, picture: Tensor, step: int) -> None:
        self._writer.add_image("samples", picture, step)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()


def check_folder(folder: str | Path) -> Path:
    """Refuse a folder that cannot be made."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder.")
    if not folder.parent.is_dir():
        raise ConfigError(f"the folder {folder.parent} does not exist; create it first.")
    return folder


def _made(folder: str | Path) -> Path:
    check_folder(folder).mkdir(exist_ok=True)
    return Path(folder)


def check_tensorboard() -> Any:
    """What writes for TensorBoard; a ``ConfigError`` where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError("TensorBoard is not installed: pip install 'diffeo[images]'") from None
    return SummaryWriter
