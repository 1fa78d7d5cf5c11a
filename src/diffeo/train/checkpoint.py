"""Checkpoints: a run's whole state in one safetensors file, written atomically."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffeo._files import replacing
from diffeo.errors import ConfigError, FormatError
from diffeo.train.report import Point
from diffeo.train.schedule import Plan

if TYPE_CHECKING:
    from diffeo.train.loop import Run

_COUNTERS = ("step", "skipped", "bad_in_a_row", "recent", "best_valid")
_ENTRIES = {*_COUNTERS, "plan", "elapsed", "best_step", "curves", "fingerprint", "notes"}


class Checkpoint:
    """A file that holds a run's state: weights, their mean, optimizer, random state, curves.

    A run killed at any moment resumes from it to the same weights, bit for bit, as one never killed.

    Args:
        path: the file.
        every_seconds: least time between two writes; the first comes as soon as the run's length is fixed.
    """

    def __init__(self, path: str | Path, every_seconds: float = 30.0):
        self.path, self.every_seconds = Path(path), every_seconds
        if not self.path.parent.is_dir():
            raise ConfigError(f"{self.path.parent} is no folder; make it first or choose another checkpoint.")
        self._last = -math.inf
        self._notes: dict[str, Any] | None = None

    def note(self, notes: dict[str, Any]) -> None:
        """Keep plain JSON beside the run's state: what was decided before the run began."""
        self._notes = notes

    def notes(self) -> dict[str, Any] | None:
        """What an earlier process noted, or None without a file."""
        if self._notes is None and self.path.exists():
            self._notes = self._read()[0]["notes"]
        return self._notes

    def save_if_due(self, run: Run, elapsed: float) -> None:
        """Write the run's state if the last write is long enough ago."""
        if time.monotonic() - self._last < self.every_seconds:
            return
        tensors = {"rng": torch.get_rng_state()}
        groups = {"flow": run.flow.state_dict(), "ema": run.ema.state_dict(), "best": run.best}
        groups["optimizer"] = run.optimizer.state
        for group, state in groups.items():
            tensors |= {f"{group}.{k}": v for k, v in state.items()}
        state = {
            **{name: getattr(run, name) for name in _COUNTERS},
            "plan": None if run.plan is None else asdict(run.plan),
            "elapsed": elapsed,
            "best_step": run.report.best_step,
            "curves": [asdict(p) for p in run.report.curves],
            "fingerprint": _fingerprint(run),
            "notes": self._notes,
        }
        data = save(
            {k: v.detach().clone().contiguous() for k, v in tensors.items()}, {"run": json.dumps(state)}
        )
        with replacing(self.path) as file:
            file.write(data)
        self._last = time.monotonic()

    def restore_if_there(self, run: Run) -> float | None:
        """Bring ``run`` to the state in the file; the seconds it had taken, or None without a file."""
        if not self.path.exists():
            return None
        state, tensors = self._read()
        if state["fingerprint"] != _fingerprint(run):
            raise ConfigError(
                f"{self.path} belongs to another run (other rows, flow, seed, limits or settings); "
                f"delete it to start anew, or name another checkpoint."
            )
        try:
            self._restore(run, state, tensors)
        except (KeyError, TypeError, RuntimeError) as error:
            raise self._damaged(error) from None
        return float(state["elapsed"])

    def _restore(self, run: Run, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        run.flow.load_state_dict(_group(tensors, "flow"))
        run.ema.load_state_dict(_group(tensors, "ema"))
        run.best = _group(tensors, "best")
        run.optimizer.load_state(_group(tensors, "optimizer"))
        for name in _COUNTERS:
            setattr(run, name, state[name])
        run.plan = Plan(**state["plan"])
        run.report.best_step = state["best_step"]
        run.report.curves = [Point(**p) for p in state["curves"]]
        torch.set_rng_state(tensors["rng"])

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        try:
            with safe_open(self.path, framework="pt") as file:
                state = json.loads((file.metadata() or {})["run"])
                if not isinstance(state, dict) or set(state) != _ENTRIES:
                    raise ValueError("its entries are not those of a run")
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise self._damaged(error) from None
        return state, tensors

    def _damaged(self, error: Exception) -> FormatError:
        what = " ".join(str(error).split())[:200]
        return FormatError(f"{self.path} is no checkpoint ({what}); delete it to start anew.")

    def remove(self) -> None:
        """Delete the file, at the end of a run."""
        self.path.unlink(missing_ok=True)


def _group(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(name + ".")}


def _fingerprint(run: Run) -> str:
    """What makes a run this run."""
    if run.fingerprint is None:
        encoding = run.flow.encoding
        parts = [
            run.rows.fingerprint(),
            "" if run.valid is None else run.valid.fingerprint(),
            repr((run.flow, run.flow.preset, None if encoding is None else encoding.to_json())),
            repr((run.objective, run.budget, run.recipe, run.epochs.batch_size, run.report.seed)),
        ]
        # the address of an object without a repr of its own is another one in each process
        text = re.sub(r" at 0x[0-9a-f]+", "", "\n".join(parts))
        run.fingerprint = hashlib.sha256(text.encode()).hexdigest()
    return run.fingerprint
