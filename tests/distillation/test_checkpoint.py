"""Checkpoints of distillations: killed runs end like whole ones, and no run takes up another's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from killing import killed
from safetensors.torch import load_file

import diffeo
from diffeo.errors import ConfigError
from diffeo.presets import IAF, MAF
from diffeo.train import Checkpoint

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return killed(TESTS / "distillation" / "killable.py", tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("name", ["layers", "seconds", "both"])
def test_a_killed_distillation_ends_with_the_same_bits_as_one_never_killed(folder: Path, name: str):
    whole, resumed = load_file(folder / f"{name}.whole"), load_file(folder / f"{name}.resumed")
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


class Stop(Exception):
    """Raised by a callback, to leave a run's checkpoint behind."""


class Stops:
    def on_progress(self, progress: diffeo.train.Progress) -> None:
        if progress.step >= 20:
            raise Stop


def teacher(seed: int = 0, **fields: Any) -> diffeo.Flow:
    torch.manual_seed(seed)
    flow = MAF(2, **{"layers": 1, "hidden": (4,), **fields}).build()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return flow


OTHERS: dict[str, dict[str, Any]] = {
    "teacher": {"teacher": teacher(1)},
    "student": {"student": IAF(2, layers=1, hidden=(5,))},
    "seed": {"seed": 1},
    "steps": {"max_steps": 41},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_another_distillation_is_refused(tmp_path: Path, other: dict[str, Any]):
    keeper = Checkpoint(tmp_path / "run", every_seconds=0.0)
    with pytest.raises(Stop):
        diffeo.distill(teacher(), max_steps=40, checkpoint=keeper, callbacks=[Stops()])
    before = keeper.path.read_bytes()
    with pytest.raises(ConfigError, match=r"run belongs to another run.*delete it"):
        diffeo.distill(**{"teacher": teacher(), "max_steps": 40, "checkpoint": keeper.path, **other})
    assert keeper.path.read_bytes() == before
