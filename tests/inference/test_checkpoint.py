"""Checkpoints of fits to a target: killed runs end like whole ones, and no run takes up another's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import killed
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import diffeo
from diffeo.errors import ConfigError
from diffeo.inference import Annealed, Annealing, Population, ReplayLikelihood, ReverseKL, TargetReport
from diffeo.objectives import Batch
from diffeo.presets import MAF, NSF
from diffeo.targets import Evaluator, FromNumPy, FromTorch
from diffeo.train import Checkpoint

TESTS = Path(__file__).parents[1]

CASES = ("found", "steps", "end", "seconds", "reverse", "fab")


# -- killed for real ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return killed(TESTS / "inference" / "killable.py", tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("name", CASES)
def test_a_killed_fit_ends_with_the_same_bits_as_one_never_killed(folder: Path, name: str):
    whole, resumed = load_file(folder / f"{name}.whole"), load_file(folder / f"{name}.resumed")
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


def test_where_they_were_killed(folder: Path):
    def step(name: str) -> int | None:
        with safe_open(folder / f"{name}.killed", framework="pt") as file:
            run = json.loads(file.metadata()["checkpoint"])["run"]
        return None if run is None else run["step"]

    assert step("found") is None
    assert [step(name) for name in ("steps", "reverse", "fab", "end")] == [39, 39, 39, 47]
    assert 20 < (step("seconds") or 0) < 100


# -- stopped in this process ----------------------------------------------------------------------


class Stop(Exception):
    """Raised by a callback, to leave a run's checkpoint behind."""


class StopAt:
    def __init__(self, step: int):
        self.step = step

    def on_progress(self, progress: diffeo.train.Progress) -> None:
        if progress.stage == "fit" and progress.step >= self.step:
            raise Stop


def standard(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum(-1)


def flow_for(preset: Any = None) -> diffeo.Flow:
    torch.manual_seed(0)
    return (preset or MAF(2, layers=1, hidden=(4,))).build()


def fit(path: Path, flow: Any = None, target: Any = None, stop: int = 99, **options: Any) -> TargetReport:
    options = {"max_steps": 24, "num_draws": 50, "callbacks": [StopAt(stop)]} | options
    keeper = Checkpoint(path, every_seconds=0.0)
    return diffeo.fit_target(flow or flow_for(), target or FromTorch(standard), checkpoint=keeper, **options)


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("target") / "run"
    with pytest.raises(Stop):
        fit(path, stop=20)
    return path.read_bytes()


@pytest.fixture
def stopped(left_behind: bytes, tmp_path: Path) -> Path:
    (tmp_path / "run").write_bytes(left_behind)
    return tmp_path / "run"


def shifted(x: Tensor) -> Tensor:
    return standard(x - 0.001)


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "target": ({"target": FromTorch(shifted)}, "another target"),
    "flow": ({"flow": flow_for(NSF(2, layers=1, hidden=4, blocks=1))}, "other rows, flow, seed"),
    "columns": ({"flow": flow_for(MAF(3, layers=1, hidden=(4,)))}, "another number of columns"),
    "start": ({"start": 2.5}, r"\(another start\)"),
    "a flow to start from": ({"start": flow_for()}, r"\(another start\)"),
    "limit": ({"max_steps": 25}, r"\(another limit\)"),
    "seed and draws": ({"seed": 1, "num_draws": 51}, "another seed and num_draws"),
    "objective": ({"objective": ReverseKL(FromTorch(standard))}, "other rows, flow, seed"),
    "batch size": ({"batch_size": 100}, "other rows, flow, seed"),
}


@pytest.mark.parametrize(("other", "says"), OTHERS.values(), ids=OTHERS.keys())
def test_another_fit_is_refused(stopped: Path, other: dict[str, Any], says: str):
    before = stopped.read_bytes()
    with pytest.raises(ConfigError, match=f"run belongs to another run.*{says}.*delete it"):
        fit(stopped, **other)
    assert stopped.read_bytes() == before


def test_the_file_of_another_job_is_refused(stopped: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="belongs to another run"):
        diffeo.fit(flow_for(), torch.randn(50, 2), max_steps=24, checkpoint=stopped)
    keeper = Checkpoint(tmp_path / "rows", every_seconds=0.0)
    with pytest.raises(Stop):
        diffeo.fit(flow_for(), torch.randn(50, 2), max_steps=24, checkpoint=keeper, callbacks=[StopAt(20)])
    with pytest.raises(ConfigError, match="belongs to another run"):
        fit(tmp_path / "rows")
    keeper = Checkpoint(tmp_path / "noted")
    keeper.note({"asked": ["something else"]})
    with pytest.raises(ConfigError, match="not a fit to a target"):
        fit(tmp_path / "noted")


def test_a_resumed_fit_surveys_nothing_and_counts_on(stopped: Path):
    calls = []

    def counted(x: Tensor) -> Tensor:
        calls.append(len(x))
        return standard(x)

    report = fit(stopped, target=FromTorch(counted))
    whole = fit(stopped.parent / "other")
    assert (report.evaluations, report.gradients) == (whole.evaluations, whole.gradients)
    assert sum(calls) < 0.1 * report.evaluations
    again = fit(stopped)  # it has ended, and what follows the training comes out the same
    assert torch.equal(again.weighted.x, whole.weighted.x)
    assert (again.log_z, again.doubts) == (whole.log_z, whole.doubts)


# -- objects that are kept ------------------------------------------------------------------------


SOURCES: dict[str, Any] = {
    "chains": lambda: Population(Evaluator(FromTorch(standard)), torch.randn(40, 2), moving=10),
    "walks": lambda: Population(FromNumPy(lambda x: -(x**2).sum(-1)), torch.randn(40, 2), moving=10),
    "annealed": lambda: Annealed(FromTorch(standard), num_draws=30, annealing=Annealing(end=2.0)),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
def test_an_objective_goes_on_where_its_state_was_taken(make: Any):
    flow, batch = flow_for().train(), Batch(torch.zeros(16, 2), None, None, torch.arange(16))
    torch.manual_seed(0)
    objective = ReplayLikelihood(make(), every=2, capacity=50)
    for _ in range(5):
        objective(flow, batch)
    state, tensors = objective.state()
    state, tensors = json.loads(json.dumps(state)), {k: v.clone() for k, v in tensors.items()}
    rng = torch.get_rng_state()
    wanted = [objective(flow, batch).item() for _ in range(5)]
    other = ReplayLikelihood(make(), every=2, capacity=50)
    other.restore(state, tensors)
    torch.set_rng_state(rng)
    assert [other(flow, batch).item() for _ in range(5)] == wanted
    assert other.state()[0] == objective.state()[0]
