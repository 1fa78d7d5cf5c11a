"""Checkpoints: a run's whole state in one safetensors file, written atomically."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffeo._files import alone, replacing
from diffeo.contracts import State, Stateful
from diffeo.errors import ConfigError, FormatError

_ENTRIES = {"notes", "fingerprint", "run"}
_LOGGER = logging.getLogger("diffeo")


class Checkpoint:
    """A file that holds a run's state: weights, their mean, optimizer, random state, curves.

    A run killed at any moment resumes from it to the same weights, bit for bit, as one never killed. No run
    removes its file: that of a run that has ended brings the same result back at once. Whoever has what came
    of it in another file may call ``remove``.

    A write that fails on the way, on a full disk say, is logged and does not end the run; the last whole file
    stays.

    Args:
        path: the file.
        every_seconds: least time between two writes, by the run's clock; the first comes as soon as the run's
            length is fixed.

    Raises:
        ConfigError: for a path in no folder, or in one that cannot be written to.
    """

    def __init__(self, path: str | Path, every_seconds: float = 30.0):
        self.path, self.every_seconds = Path(path), every_seconds
        if not self.path.parent.is_dir():
            raise ConfigError(
                f"{self.path.parent} is not a folder; make it first or choose another checkpoint."
            )
        if not os.access(self.path.parent, os.W_OK | os.X_OK):
            raise ConfigError(f"{self.path.parent} cannot be written to; choose another checkpoint.")
        self._written = -math.inf
        self._notes: dict[str, Any] | None = None
        self._kept: dict[str, Tensor] = {}
        self._lock, self._holders = ExitStack(), 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block in which no other run may use the file; blocks of one object nest.

        Raises:
            ConfigError: where another run is using it.
        """
        if not self._holders and not self._lock.enter_context(alone(self.path)):
            self._lock.close()
            raise ConfigError(
                f"{self.path} is in use by another run; wait for its end, or name another checkpoint."
            )
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                self._lock.close()

    # -- what a job decided before its run ----------------------------------------------------

    def note(self, notes: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> None:
        """Write down what was decided or found before the run began: plain JSON, and tensors by name."""
        self._notes, self._kept = json.loads(json.dumps(notes)), dict(tensors or {})
        self._write(None, ({}, {}))

    def notes(self) -> State | None:
        """What an earlier process noted, or None without a file.

        Raises:
            ConfigError: for the file of a run before which nothing was noted: another job's.
            FormatError: for a file that is not a whole checkpoint.
        """
        if self._notes is None and self.path.exists():
            entries, tensors = self._read()
            if entries["notes"] is None:
                raise self.of_another_run()
            self._notes, self._kept = entries["notes"], _group(tensors, "notes")
        return None if self._notes is None else (self._notes, self._kept)

    # -- the run ------------------------------------------------------------------------------

    def save_if_due(self, run: Stateful, fingerprint: str, now: float) -> None:
        """Write the run's state if the last write is long enough before ``now``."""
        if now - self._written >= self.every_seconds:
            self._written = now
            self.save(run, fingerprint)

    def save(self, run: Stateful, fingerprint: str) -> None:
        """Write the run's state."""
        try:
            self._write(fingerprint, run.state())
        except OSError as error:
            _LOGGER.warning("the checkpoint is not up to date, the run goes on: %s", error)

    def restore(self, run: Stateful, fingerprint: str) -> bool:
        """Bring ``run`` to the state in the file; False where there is none.

        Raises:
            ConfigError: where the file belongs to another run.
            FormatError: for a file that is not a whole checkpoint.
        """
        if not self.path.exists():
            return False
        entries, tensors = self._read()
        if entries["notes"] != self._notes:
            raise self.of_another_run()
        if entries["run"] is None:  # killed between its job's notes and the first state of the run
            return False
        if entries["fingerprint"] != fingerprint:
            raise self.of_another_run()
        try:
            run.restore(entries["run"], _group(tensors, "run"))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise self._damaged(error) from None
        return True

    def remove(self) -> None:
        """Delete the file: what came of the run is safe elsewhere."""
        self.path.unlink(missing_ok=True)

    def of_another_run(self, other: str = "other rows, flow, seed, limits or settings") -> ConfigError:
        """The error for a file that belongs to another run, and what may tell the two apart."""
        return ConfigError(
            f"{self.path} belongs to another run ({other}); delete it to start anew, or name another "
            f"checkpoint."
        )

    # -- the file -----------------------------------------------------------------------------

    def _write(self, fingerprint: str | None, state: State) -> None:
        run, found = state
        tensors = {f"run.{k}": v for k, v in found.items()} | {f"notes.{k}": v for k, v in self._kept.items()}
        entries = {
            "notes": self._notes,
            "fingerprint": fingerprint,
            "run": None if fingerprint is None else run,
        }
        data = save(
            {k: v.detach().clone().contiguous() for k, v in tensors.items()},
            {"checkpoint": json.dumps(entries)},
        )
        with replacing(self.path) as file:
            file.write(data)

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        try:
            with safe_open(self.path, framework="pt") as file:
                entries = json.loads((file.metadata() or {})["checkpoint"])
                if not isinstance(entries, dict) or set(entries) != _ENTRIES:
                    raise ValueError("its entries are not those of a run")
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise self._damaged(error) from None
        return entries, tensors

    def _damaged(self, error: Exception) -> FormatError:
        what = " ".join(str(error).split())[:200]
        return FormatError(f"{self.path} is not a checkpoint ({what}); delete it to start anew.")


def _group(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(name + ".")}
