"""Time budgets: kept by machines that become slower or faster, and by the plan a checkpoint has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import diffeo
from diffeo.objectives import Batch, Likelihood
from diffeo.presets import NSF
from diffeo.train import Checkpoint, OptimizerSettings, Progress, Rows
from diffeo.train.optimizer import FlatAdamW
from diffeo.train.rows import rows_for

FOREVER = OptimizerSettings(patience=1.0)


def small() -> diffeo.Flow:
    torch.manual_seed(0)
    return NSF(2, layers=1, hidden=8, blocks=1, bins=4).build()


def normal(rows: int) -> Tensor:
    return torch.randn(rows, 2, generator=torch.Generator().manual_seed(rows))


def rows_of(count: int) -> Rows:
    return rows_for(small(), normal(count), None, None)


class Machine:
    """A clock by which a step takes a second, and from some step on so many times longer."""

    def __init__(self, slower: float = 1.0, since: int = 2**31):
        self.slower, self.since, self.now, self.steps = slower, since, 0.0, 0

    def __call__(self) -> float:
        return self.now

    def on_step(self) -> None:
        self.steps += 1
        self.now += self.slower if self.steps > self.since else 1.0


class Timed(Likelihood):
    """An objective that takes a machine's time, a tenth of a step's for a row to be checked."""

    def __init__(self, machine: Machine):
        self.machine = machine

    def __call__(self, flow: diffeo.Flow, batch: Batch) -> Tensor:
        if flow.training:
            self.machine.on_step()
        else:
            self.machine.now += 0.1 * len(batch.rows)
        return super().__call__(flow, batch)


@pytest.mark.parametrize("since", [60, 500, 900])
@pytest.mark.parametrize("slower", [0.2, 1.0, 3.0])
def test_a_budget_is_kept_by_a_machine_that_changes(slower: float, since: int):
    machine, rates = Machine(slower, since), []
    step = FlatAdamW.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            FlatAdamW, "step", lambda self, rate, decay: (rates.append(rate), step(self, rate, decay))
        )
        report = diffeo.fit(
            small(),
            normal(200),
            validation=rows_of(1000),
            objective=Timed(machine),
            optimizer=FOREVER,
            max_seconds=1000.0,
            clock=machine,
        )
    assert 950 < machine.now < 1060
    checking = machine.now - sum(slower if i >= since else 1.0 for i in range(report.steps))
    assert checking < 0.2 * machine.now
    assert 64 <= report.checked < 1000
    rates = np.array(rates)
    assert rates[-1] < 0.02 * rates.max()  # it came down, and nowhere by a leap
    assert np.abs(np.diff(rates[100:])).max() < 0.05 * rates.max()


class Enough(Exception):
    """Raised by a callback, to leave a run's checkpoint behind."""


class Stops:
    def __init__(self, told: list[Progress]):
        self.told = told

    def on_progress(self, progress: Progress) -> None:
        self.told.append(progress)
        if progress.step >= 200:
            raise Enough


def test_a_resumed_run_follows_the_plan_it_has(tmp_path: Path):
    """A machine ten times slower later on: still the steps that were planned when it was stopped."""
    told: list[Progress] = []
    options: Any = {"optimizer": FOREVER, "max_seconds": 400.0, "validation": rows_of(100)}
    machine = Machine()
    keeper = Checkpoint(tmp_path / "run", every_seconds=0.0)
    with pytest.raises(Enough):
        diffeo.fit(
            small(), normal(40), objective=Timed(machine), clock=machine, checkpoint=keeper,
            callbacks=[Stops(told)], **options,
        )  # fmt: skip
    planned = told[-1].steps
    slow = Machine(slower=10.0, since=0)
    report = diffeo.fit(
        small(), normal(40), objective=Timed(slow), clock=slow, checkpoint=tmp_path / "run", **options
    )
    assert report.steps == planned
