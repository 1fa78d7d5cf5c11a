"""Checkpoints: a killed run ends like one never killed, and no run takes up another's file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import diffeo
from diffeo.contracts import Stateful
from diffeo.errors import ConfigError, FormatError
from diffeo.objectives import Likelihood
from diffeo.tables import Table
from diffeo.train import Checkpoint, OptimizerSettings

SCRIPT = Path(__file__).parent / "killable.py"
FITS = ("steps", "seconds", "table")


# -- killed for real ------------------------------------------------------------------------------


def call(folder: Path, mode: str) -> None:
    paths = [str(Path(diffeo.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    subprocess.run([sys.executable, SCRIPT, folder, mode], env=environment, check=True, timeout=300)


def header(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def entries(path: Path) -> dict[str, Any]:
    return json.loads(header(path)["checkpoint"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each fit's checkpoint as the kill left it, its weights after resuming, and those of a whole run."""
    path = tmp_path_factory.mktemp("runs")
    call(path, "killed")
    call(path, "resumed")
    return path


@pytest.mark.parametrize("name", FITS)
def test_a_killed_run_ends_with_the_same_bits_as_one_never_killed(folder: Path, name: str):
    state = entries(folder / f"{name}.killed")["run"]
    assert 30 < state["step"] < state["plan"]["steps"]
    whole, resumed = load_file(folder / f"{name}.whole"), load_file(folder / f"{name}.resumed")
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


def test_what_was_decided_before_the_kill_is_in_the_file(folder: Path):
    notes = {name: entries(folder / f"{name}.killed")["notes"] for name in FITS}
    assert notes["steps"] is None
    assert notes["table"]["winner"] >= 0
    assert 0 < notes["table"]["seconds"] <= 1


def test_the_checkpoint_stays_and_nothing_else_does(folder: Path):
    left = [p.name for p in folder.iterdir()]  # no half-written file and no lock of what was killed
    assert sorted(left) == sorted(f"{n}{k}" for n in FITS for k in ("", ".killed", ".resumed", ".whole"))


# -- stopped in this process ----------------------------------------------------------------------


class Stop(Exception):
    """Raised by a callback, to leave a run's checkpoint behind."""


class StopAt:
    def __init__(self, step: int):
        self.step = step

    def on_progress(self, progress: diffeo.train.Progress) -> None:
        if progress.stage == "fit" and progress.step >= self.step:
            raise Stop


ROWS = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))


def flow_for(seed: int = 0, **fields: Any) -> diffeo.Flow:
    torch.manual_seed(seed)
    return diffeo.presets.NSF(features=2, layers=1, hidden=8, blocks=1, dropout=0.2, **fields).build()


def train(
    path: Path, flow: diffeo.Flow | None = None, x: Any = ROWS, stop: int | None = None, **options: Any
):
    flow = flow_for() if flow is None else flow
    callbacks = [] if stop is None else [StopAt(stop)]
    options = {"max_steps": 40, "batch_size": 16} | options
    report = diffeo.fit(
        flow, x, callbacks=callbacks, checkpoint=Checkpoint(path, every_seconds=0.0), **options
    )
    return flow, report


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The checkpoint of a run stopped half-way."""
    with pytest.raises(Stop):
        train(tmp_path / "run", stop=20)
    return tmp_path / "run"


def test_a_resumed_run_reports_as_one_never_stopped(stopped: Path):
    _, report = train(stopped)
    _, whole = train(stopped.parent / "other")
    assert [(p.step, p.train, p.valid) for p in report.curves] == [
        (p.step, p.train, p.valid) for p in whole.curves
    ]
    for name in ("steps", "best_step", "train", "valid", "seed", "stopped", "skipped"):
        assert getattr(report, name) == getattr(whole, name)


def test_the_weights_in_the_file_count_not_those_of_the_new_flow(stopped: Path):
    resumed, _ = train(stopped, flow_for(seed=5))
    whole, _ = train(stopped.parent / "other")
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())


class Half:
    """An objective without a repr of its own."""

    def __call__(self, flow: diffeo.Flow, batch: Any) -> torch.Tensor:
        return 0.5 * Likelihood()(flow, batch)


def test_an_objective_without_a_repr_resumes(tmp_path: Path):
    one, other = Half(), Half()
    with pytest.raises(Stop):
        train(tmp_path / "run", stop=20, objective=one)
    assert train(tmp_path / "run", objective=other)[1].steps > 20


class Annealed(Likelihood, Stateful):
    """An objective whose loss hangs on how often it was asked, which a resumed run must not forget."""

    def __init__(self):
        self.calls = 0

    def __call__(self, flow: diffeo.Flow, batch: Any) -> torch.Tensor:
        self.calls += flow.training
        return super().__call__(flow, batch) * (1 + self.calls / 10)

    def state(self) -> Any:
        return {"calls": self.calls}, {"copy": torch.tensor(self.calls)}

    def restore(self, state: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        assert state["calls"] == int(tensors["copy"])
        self.calls = state["calls"]

    def __repr__(self) -> str:
        return "Annealed()"


def test_the_state_of_an_objective_comes_back(tmp_path: Path):
    with pytest.raises(Stop):
        train(tmp_path / "run", stop=20, objective=Annealed())
    resumed, _ = train(tmp_path / "run", objective=Annealed())
    whole, _ = train(tmp_path / "other", objective=Annealed())
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())


def test_notes_are_kept_at_once_and_a_run_without_a_state_begins(tmp_path: Path):
    first = Checkpoint(tmp_path / "run")
    first.note({"winner": 2}, {"points": torch.arange(3.0)})
    again = Checkpoint(tmp_path / "run")
    notes, tensors = again.notes()
    assert notes == {"winner": 2}
    assert torch.equal(tensors["points"], torch.arange(3.0))
    with pytest.raises(Stop):
        # writes its states into a file that had none
        diffeo.fit(flow_for(), ROWS, max_steps=40, checkpoint=again, callbacks=[StopAt(20)])
    with pytest.raises(ConfigError, match="belongs to another run"):
        train(tmp_path / "run")  # knows of no notes


OTHER_RUNS: dict[str, dict[str, Any]] = {
    "rows": {"x": ROWS + 1e-6},
    "order of rows": {"x": ROWS.flip(0)},
    "weights": {"weights": torch.ones(60)},
    "seed": {"seed": 1},
    "steps": {"max_steps": 41},
    "a time limit": {"max_seconds": 100.0},
    "batch size": {"batch_size": 17},
    "settings": {"optimizer": OptimizerSettings(learning_rate=1e-3)},
    "validation": {"validation": 0.2},
    "objective": {"objective": Half()},
    "flow": {"flow": flow_for(bins=5)},
    "the spline's box": {"flow": flow_for(bound=4.0)},
    "dtype": {"flow": flow_for().double()},
}


@pytest.mark.parametrize("other", OTHER_RUNS.values(), ids=OTHER_RUNS.keys())
def test_another_run_is_refused(stopped: Path, other: dict[str, Any]):
    before = stopped.read_bytes()
    with pytest.raises(ConfigError, match=r"run belongs to another run.*delete it"):
        train(stopped, **other)
    assert stopped.read_bytes() == before


def test_a_flow_is_not_touched_by_a_refused_checkpoint(stopped: Path):
    flow = flow_for()
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    with pytest.raises(ConfigError):
        train(stopped, flow, seed=1)
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())


def cut(share: float):
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def forge(path: Path, text: str) -> None:
    save_file(load_file(path), path, {"checkpoint": text})


DAMAGES = {
    "empty": cut(0),
    "a few bytes": cut(0.001),
    "half": cut(0.5),
    "all but the end": cut(0.999),
    "text": lambda path: path.write_text("step,loss\n1,2\n" * 100),
    "a model": lambda path: (path.unlink(), diffeo.save(flow_for(), path)),
    "no JSON": lambda path: forge(path, "{"),
    "other JSON": lambda path: forge(path, "[1, 2]"),
    "entries missing": lambda path: forge(path, "{}"),
    "tensors missing": lambda path: save_file({"run.rng": load_file(path)["run.rng"]}, path, header(path)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_file_gives_one_clear_error(stopped: Path, damage: Any):
    damage(stopped)
    before = stopped.read_bytes()
    with pytest.raises(FormatError, match="is not a checkpoint"):
        train(stopped)
    assert stopped.read_bytes() == before


def test_a_folder_that_is_not_there_is_refused_before_training(tmp_path: Path):
    with pytest.raises(ConfigError, match="is not a folder"):
        train(tmp_path / "missing" / "run")


def test_a_path_will_do(tmp_path: Path):
    assert diffeo.fit(flow_for(), ROWS, max_steps=2, checkpoint=str(tmp_path / "run")).steps == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# -- of a table -----------------------------------------------------------------------------------

PRESET = diffeo.presets.Tabular(features=2, layers=1, hidden=8, blocks=1)
TABLE = Table.of({"a": ROWS[:, 0].exp(), "b": ROWS[:, 1]})


def train_table(path: Path, stop: int | None = None, table: Any = TABLE, **options: Any):
    options = {"preset": PRESET, "max_seconds": 30.0} | options
    callbacks = [] if stop is None else [StopAt(stop)]
    checkpoint = Checkpoint(path, every_seconds=0.0)
    return diffeo.fit_table(table, callbacks=callbacks, checkpoint=checkpoint, **options)


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("table") / "run"
    with pytest.raises(Stop):
        train_table(path, stop=60)
    return path.read_bytes()


@pytest.fixture
def stopped_table(left_behind: bytes, tmp_path: Path) -> Path:
    (tmp_path / "run").write_bytes(left_behind)
    return tmp_path / "run"


OTHER_TABLES: dict[str, dict[str, Any]] = {
    "rows": {"table": TABLE.rows(slice(1, None))},
    "declared columns": {"columns": {"a": "positive"}},
    "seed": {"seed": 1},
    "seconds": {"max_seconds": 31.0},
    "preset": {"preset": diffeo.presets.Tabular(features=2, layers=2, hidden=8, blocks=1)},
    "no preset": {"preset": None},
}


@pytest.mark.parametrize("other", OTHER_TABLES.values(), ids=OTHER_TABLES.keys())
def test_another_table_or_setting_is_refused(stopped_table: Path, other: dict[str, Any]):
    with pytest.raises(ConfigError, match="belongs to another run"):
        train_table(stopped_table, stop=0, **other)


def test_a_damaged_file_of_a_table_gives_one_clear_error(stopped_table: Path):
    cut(0.5)(stopped_table)
    with pytest.raises(FormatError, match="is not a checkpoint"):
        train_table(stopped_table)


def test_resuming_a_table_leaves_the_random_state_alone(stopped_table: Path):
    state = torch.get_rng_state()
    with pytest.raises(Stop):
        train_table(stopped_table, stop=61)
    assert torch.equal(torch.get_rng_state(), state)


SPELLINGS: list[dict[str, Any]] = [
    {"max_seconds": 30},
    {"max_seconds": np.float32(30)},
    {"seed": np.int64(0)},
    {"max_steps": 1e9},
    {"optimizer": OptimizerSettings(clip=np.float64(5))},
    {"preset": diffeo.presets.Tabular(np.int64(2), layers=np.int32(1), hidden=8, blocks=1)},
]


@pytest.mark.parametrize("other", SPELLINGS, ids=str)
def test_a_run_is_the_same_however_its_numbers_are_written(tmp_path: Path, other: dict[str, Any]):
    """Stopped as it is written here, and taken up as it is by others, and the other way round."""
    plain = {"max_seconds": 30.0, "max_steps": 10**9, "optimizer": OptimizerSettings()}
    for i, (one, two) in enumerate([(plain, plain | other), (plain | other, plain)]):
        with pytest.raises(Stop):
            train_table(tmp_path / str(i), stop=60, **one)
        with pytest.raises(Stop):
            train_table(tmp_path / str(i), stop=61, **two)
