"""The options that every fit takes: the same everywhere, checked before any work, and each with an effect."""

from __future__ import annotations

import inspect
import time
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from torch import Tensor

import diffeo
from diffeo.errors import ConfigError
from diffeo.objectives import Batch
from diffeo.targets import FromTorch
from diffeo.train import OptimizerSettings, Rows, TensorRows, TrainingOptions, progress
from diffeo.train.options import Options

ROWS = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
PIXELS = (ROWS.repeat_interleave(8, 1).reshape(60, 1, 4, 4) * 40 + 128).clamp(0, 255).to(torch.uint8)


def small() -> diffeo.Flow:
    torch.manual_seed(0)
    return diffeo.presets.NSF(2, layers=1, hidden=8, blocks=1, bins=4).build()


def bell(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum(-1)


GLOW = diffeo.presets.Glow((1, 4, 4), levels=1, layers=1, hidden=4)
FITS: dict[str, Any] = {
    "fit": lambda **options: diffeo.fit(small(), ROWS, **options),
    "fit_table": lambda **options: diffeo.fit_table(ROWS, preset=small().preset, **options)[1].training,
    "fit_images": lambda **options: diffeo.fit_images(PIXELS, preset=GLOW, **options)[1].training,
    "fit_target": lambda **options: diffeo.fit_target(small(), FromTorch(bell), **options).training,
    "distill": lambda **options: diffeo.distill(small().eval(), small(), **options)[1].training,
}
every = pytest.mark.parametrize("name", FITS)


class Told:
    def __init__(self):
        self.stages: set[str] = set()

    def on_progress(self, progress: diffeo.train.Progress) -> None:
        self.stages.add(progress.stage)


def test_the_two_lists_of_options_are_one():
    assert set(TrainingOptions.__annotations__) == {f.name for f in fields(Options)}
    text = inspect.getdoc(TrainingOptions) or ""
    assert all(f"    {name}: " in text for name in TrainingOptions.__annotations__)


@every
def test_every_fit_takes_every_option(name: str, tmp_path):
    told = Told()
    report = FITS[name](
        max_seconds=600.0,
        max_steps=3,
        max_epochs=600.0,
        batch_size=20,
        seed=7,
        callbacks=[told],
        checkpoint=tmp_path / "run",
        optimizer=OptimizerSettings(learning_rate=1e-3, patience=1.0),
        progress=False,
        clock=time.process_time,
    )
    assert (report.steps, report.seed) == (3, 7)
    assert told.stages


@every
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_step": 3}, TypeError),
        ({"max_steps": 0}, ConfigError),
        ({"max_seconds": float("nan")}, ConfigError),
        ({"batch_size": 0}, ConfigError),
        ({"checkpoint": "/nowhere/run"}, ConfigError),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_any_work(
    name: str, options: dict[str, Any], error: Any, monkeypatch
):
    monkeypatch.setattr("diffeo.train.loop.Run.go", None)
    with pytest.raises(error, match=next(iter(options))[:9]):
        FITS[name](**options)


@every
def test_a_fit_says_where_its_options_are_explained(name: str):
    assert "TrainingOptions" in (getattr(diffeo, name).__doc__ or "")


# -- the bar --------------------------------------------------------------------------------------


@every
def test_the_bar_is_drawn_when_asked_for_and_once(name: str, monkeypatch, capsys):
    bars = []

    class Spy(progress._Bar):
        def __init__(self, *args: Any):
            super().__init__(*args)
            bars.append(self)

    monkeypatch.setattr(progress, "_Bar", Spy)
    FITS[name](max_steps=2)
    assert not bars, "nobody sees standard error here"
    FITS[name](max_steps=2, progress=True)
    assert len(bars) == 1
    FITS[name](max_steps=2, progress=False)
    assert len(bars) == 1


def test_the_bar_is_drawn_where_a_terminal_shows_it(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress.shown(None, []) as callbacks:
        assert len(callbacks) == 1
    with progress.shown(False, []) as callbacks:
        assert not callbacks


# -- the clock ------------------------------------------------------------------------------------


def test_a_budget_goes_by_the_clock_that_is_given():
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    report = diffeo.fit(small(), ROWS, max_seconds=200.0, clock=clock)
    assert 100 <= report.steps <= 200
    assert 150 <= report.seconds <= 250


# -- rows from elsewhere --------------------------------------------------------------------------


@dataclass
class Stream:
    """Rows that are made when they are asked for, as a file's would be read."""

    count: int

    def __len__(self) -> int:
        return self.count

    def batch(self, index: Tensor) -> Batch:
        x = torch.stack([(index * 0.37).sin(), (index * 0.61).cos()], -1)
        return Batch(x, None, None, index)

    def sample(self, most: int) -> Batch:
        return self.batch(torch.arange(min(most, self.count)))

    def split(self, fraction: float, seed: int) -> tuple[Rows, Rows | None]:
        held = round(fraction * self.count)
        return Stream(self.count - held), Stream(held)

    def fingerprint(self) -> str:
        return f"sines {self.count}"


def test_a_stream_trains_as_the_same_rows_in_memory():
    stream = Stream(300)
    held = Stream(40)
    memory = [
        TensorRows(b.x, None, None, b.rows) for b in (s.batch(torch.arange(len(s))) for s in (stream, held))
    ]
    stream.asked = 0
    flows = small(), small()
    # the flow is set from rows in another order, of which only means are taken
    settings: Any = {"max_steps": 30, "batch_size": 32}
    one = diffeo.fit(flows[0], stream, validation=held, **settings)
    other = diffeo.fit(flows[1], memory[0], validation=memory[1], **settings)
    assert one.valid == pytest.approx(other.valid, abs=1e-3)


def test_rows_bring_their_own_contexts():
    with pytest.raises(ConfigError, match="of their own"):
        diffeo.fit(small(), Stream(30), weights=torch.ones(30), max_steps=1)
