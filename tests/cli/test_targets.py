"""``diffeo target``: what it takes for a target, prints, writes and refuses."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from typer.testing import CliRunner

import diffeo
import diffeo.io
from diffeo.cli import targets as command
from diffeo.cli.app import app
from diffeo.errors import ConfigError
from diffeo.inference import fit as training
from diffeo.inference import survey
from diffeo.presets import MAF
from diffeo.tables.table import Table

MODULE = """
import math
import numpy as np
import torch
from diffeo.targets import Constrained, Positive


def in_torch(x):
    return 2 - 0.5 * ((x - 3) / 0.5).square().sum(-1)


def in_numpy(x):
    assert isinstance(x, np.ndarray)
    return 2 - 0.5 * (((x - 3) / 0.5) ** 2).sum(-1)


class Known:
    features = 2

    def log_prob(self, x):
        return in_torch(x)


class Needs(Known):
    def __init__(self, rows):
        self.rows = rows


class Gamma:
    def log_prob(self, x):
        return (2 * x.log() - x).sum(-1)


known = Known()
rate = Constrained(Gamma(), {"rate": Positive()})
number = 3


def half(x):
    return torch.where(x[:, 0] > 3, math.nan, in_torch(x))


def nowhere(x):
    return torch.full_like(x[:, 0], -math.inf)


def point(x):
    return -0.5 * (x[0] ** 2 + x[1] ** 2)


def column(x):
    return in_torch(x)[:, None]


def fails(x):
    raise ValueError("sigma must be positive")


def breaks(x):
    return {}["beta"]
"""

Result = Any
Run = Callable[..., Result]
NAME = "targets_of_a_test"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """The command, in a folder with a module of targets; fits are short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(training, "STEPS", 60)
    monkeypatch.setattr(survey, "CHAINS", 400)
    (tmp_path / f"{NAME}.py").write_text(MODULE)
    importlib.invalidate_caches()

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, ["target", *map(str, arguments)])

    yield call
    for name in [n for n in sys.modules if n.startswith(NAME)]:
        del sys.modules[name]


SMALL = ("--preset", "MAF", "--set", "layers=2", "--set", "hidden=8")


def fit(run: Run, name: str, *options: object, dim: int | None = 2) -> Result:
    columns = () if dim is None else ("--dim", dim)
    return run("fit", f"{NAME}:{name}", "-o", "m.safetensors", *SMALL, *columns, *options)


def one_line(result: Result, says: str) -> None:
    assert result.exit_code == 2, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("diffeo: error: ")
    assert says in lines[0]
    assert not Path("m.safetensors").exists()


def log_z(result: Result) -> float:
    line = next(line for line in result.stdout.splitlines() if line.startswith("log Z"))
    return float(line.split()[2])


EXACT = 2 + np.log(2 * np.pi * 0.25)


# -- fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [("in_torch", ()), ("in_numpy", ("--numpy",)), ("known.log_prob", ())],
)
def test_a_function_is_fitted(run: Run, name: str, options: tuple[str, ...]):
    result = fit(run, name, *options)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{NAME}:{name}: 2 columns to fit"
    assert lines[1].startswith("trained 60 steps; survey ")
    gradients = int(lines[2].split(", ")[1].split()[0].replace(",", ""))
    assert (gradients < 2) == (name == "in_numpy")
    assert lines[3].split() == ["parameter", "mean", "sd"]
    for column, line in enumerate(lines[4:6]):
        label, mean, sd = line.split()
        assert label == f"x[{column + 1}]"
        assert abs(float(mean) - 3) < 0.1
        assert abs(float(sd) - 0.5) < 0.05
    assert abs(log_z(result) - EXACT) < 0.1
    assert lines[-1] == "wrote m.safetensors"
    assert diffeo.load("m.safetensors").event_shape == (2,)


@pytest.mark.parametrize("name", ["known", "Known"])
def test_an_object_or_its_class_knows_its_columns(run: Run, name: str):
    result = fit(run, name, dim=None)
    assert result.exit_code == 0, result.output
    assert "2 columns to fit" in result.stdout
    assert fit(run, name, dim=2).exit_code == 0
    Path("m.safetensors").unlink()
    one_line(fit(run, name, dim=3), "takes 2 columns, not 3")


def test_a_fit_is_written_with_its_notes(run: Run):
    result = fit(run, "in_torch", "--draws-file", "d.nc", "--seed", 1, dim=1)
    assert result.exit_code == 0, result.output
    assert "1 column to fit" in result.stdout
    assert result.stdout.splitlines()[-1] == "wrote m.safetensors and d.nc"
    with xarray.open_datatree("d.nc") as tree:
        assert np.asarray(tree["posterior"]["x"]).size == 10_000
    notes = diffeo.io.inspect("m.safetensors").notes
    assert notes["target"] == f"{NAME}:in_torch"
    assert notes["found"]["log Z"] == pytest.approx(log_z(result), abs=1e-3)
    assert notes["found"].keys() <= {"log Z", "error", "ESS", "Pareto k"}
    assert isinstance(notes["evaluations"], int)
    told = CliRunner().invoke(app, ["info", "m.safetensors"])
    assert told.exit_code == 0, told.output
    for text in (f"{NAME}:in_torch", "log Z", "preset      MAF", "doubts", str(notes["evaluations"])):
        assert text in told.stdout


def test_one_seed_is_one_model(run: Run):
    found = []
    for seed in (1, 1, 2):
        assert fit(run, "in_torch", "--seed", seed).exit_code == 0
        flow = diffeo.load("m.safetensors")
        found.append(torch.cat([p.detach().flatten() for p in flow.parameters()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_doubts_are_told(run: Run):
    result = fit(run, "half")
    assert result.exit_code == 0, result.output
    doubts = [line for line in result.stdout.splitlines() if line.startswith("DO NOT TRUST THIS FIT: ")]
    assert any("The target was NaN at" in line for line in doubts)
    assert "Nothing speaks against" not in result.stdout
    assert "NaN" in diffeo.io.inspect("m.safetensors").notes["doubts"]


def test_many_parameters_are_not_all_shown(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "SHOWN", 2)
    result = fit(run, "in_torch", dim=5)
    assert "x[2]" in result.stdout
    assert "x[3]" not in result.stdout
    assert "and 3 more" in result.stdout


def test_a_time_limit(run: Run):
    result = fit(run, "in_torch", "--max-seconds", 1)
    assert result.exit_code == 0, result.output
    assert abs(log_z(result) - EXACT) < 0.5


# -- what is no target ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("in_torch", "write MODULE:FUNCTION"),
        (f"{NAME}.py:in_torch", "write MODULE:FUNCTION"),
        (f"{NAME}:", "write MODULE:FUNCTION"),
        (":in_torch", "write MODULE:FUNCTION"),
        (f".{NAME}:in_torch", "write MODULE:FUNCTION"),
        ("no_such_module:f", "see that no_such_module.py is here"),
        (f"{NAME}:nothing", "has no 'nothing'"),
        (f"{NAME}:known.nothing", "has no 'known.nothing'"),
        (f"{NAME}:number", "neither a function nor an object with log_prob"),
        (f"{NAME}:Needs", "missing a required argument: 'rows'"),
        ("nothere.stan", "nothere.stan"),
    ],
)
def test_what_is_no_target(run: Run, spec: str, says: str):
    one_line(run("fit", spec, "-o", "m.safetensors", "--dim", 2), says)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("in_torch", ("--data", f"{NAME}.py", "--dim", 2), "--data is for a Stan model"),
        ("in_torch", (), "give --dim"),
        ("in_torch", ("--dim", 2, "--start", 0), "start must be a positive standard deviation"),
        ("in_torch", ("--dim", 2, "--start", "nan"), "start must be a positive standard deviation"),
        ("in_torch", ("--dim", 2, "--max-seconds", "inf"), "max_seconds must be positive and finite"),
        ("in_torch", ("--dim", 2, "--draws-file", "d.csv"), "d.csv"),
        ("in_torch", ("--dim", 2, "--draws-file", "-"), "cannot go to standard output"),
        ("in_torch", ("--dim", 2, "--draws-file", "nowhere/d.nc"), "does not exist"),
        ("in_torch", ("--dim", 2, "--preset", "nonsense"), "there is no preset"),
        ("in_torch", ("--dim", 2, "--set", "features=3"), "--set features"),
        ("nowhere", ("--dim", 2), "none of 400 starting points a finite density"),
        ("point", ("--dim", 2), "takes one point at a time"),
        ("column", ("--dim", 2), "one real number a row"),
        ("fails", ("--dim", 2), "fails failed on x of shape (1, 2): sigma must be positive"),
    ],
)
def test_what_does_not_go(run: Run, name: str, options: tuple[object, ...], says: str):
    result = run("fit", f"{NAME}:{name}", "-o", "m.safetensors", *options)
    one_line(result, says)
    assert not Path("d.nc").exists()


def test_netcdf_without_arviz_is_refused_before_the_fit(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    draws = ("--draws-file", "d.nc")
    one_line(run("fit", f"{NAME}:in_torch", "-o", "m.safetensors", "--dim", 1, *draws), "diffeo[inference]")
    assert not Path("m.safetensors").exists()


def test_more_that_does_not_go(run: Run):
    one_line(run("fit", "model.stan", "-o", "m.safetensors", "--numpy"), "--numpy is for MODULE:FUNCTION")
    Path("model.stan").write_text("model {}")
    one_line(
        run("fit", "model.stan", "-o", "m.safetensors", "--data", "m.safetensors"), "name two different files"
    )
    assert run("fit", f"{NAME}:in_torch", "-o", "m.safetensors", "--dim", 0).exit_code == 2
    assert run("fit", f"{NAME}:in_torch", "-o", "m.safetensors", "--max-seconds", 0).exit_code == 2


def test_errors_of_one_s_own_code_come_with_their_traceback(run: Run):
    """A bug in the user's module is shown where it is, not as an error of the command."""
    result = fit(run, "breaks")
    assert isinstance(result.exception, KeyError)
    Path(f"{NAME}_broken.py").write_text("import no_such_library\n")
    result = run("fit", f"{NAME}_broken:f", "-o", "m.safetensors", "--dim", 2)
    assert isinstance(result.exception, ModuleNotFoundError)
    assert result.exception.name == "no_such_library"


def test_what_a_function_imports_when_it_is_called_is_found(run: Run):
    Path(f"{NAME}_late.py").write_text("def late(x):\n    return -x.square().sum(-1)\n")
    Path(f"{NAME}_caller.py").write_text(f"def f(x):\n    from {NAME}_late import late\n    return late(x)\n")
    spec = f"{NAME}_caller:f"
    found, _ = command._target(command._named(spec, None, False), spec, None, False, 2)
    assert found.log_prob(torch.ones(3, 2)).tolist() == [-2.0] * 3


def test_a_module_may_lie_in_a_package(run: Run, tmp_path: Path):
    (tmp_path / f"{NAME}_package").mkdir()
    (tmp_path / f"{NAME}_package" / "inner.py").write_text(MODULE)
    spec = f"{NAME}_package.inner:known"
    found, features = command._target(command._named(spec, None, False), spec, None, False, None)
    assert (type(found).__name__, features) == ("Known", 2)
    with pytest.raises(ConfigError, match="there is no module"):
        command._named(f"{NAME}_package.outer:known", None, False)


# -- sample ---------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A standard normal in two columns."""
    path = tmp_path / "normal.safetensors"
    diffeo.save(MAF(2, layers=2, hidden=(8,)).build(), path)
    return path


def test_draws_of_the_flow_alone(run: Run, model: Path):
    result = run("sample", model, "-o", "-", "-n", 2000, "--seed", 1)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "x[1],x[2]"
    values = np.array([[float(v) for v in line.split(",")] for line in lines[1:]])
    assert values.shape == (2000, 2)
    assert abs(values.mean(0)).max() < 4 / np.sqrt(2000)
    assert run("sample", model, "-o", "-", "-n", 2000, "--seed", 1).stdout == result.stdout
    assert run("sample", model, "-o", "-", "-n", 2000, "--seed", 2).stdout != result.stdout
    free = [run("sample", model, "-o", "-", "-n", 3).stdout for _ in range(2)]
    assert free[0] != free[1]


def test_draws_that_are_weighted(run: Run, model: Path):
    """The flow is a standard normal; with the target its draws are the target's."""
    Path(f"{NAME}_near.py").write_text("def f(x):\n    return -0.5 * ((x - 1) / 0.8).square().sum(-1)\n")
    result = run("sample", model, f"{NAME}_near:f", "-o", "d.csv", "-n", 3000, "--seed", 1)
    assert result.exit_code == 0, result.output
    table = Table.read("d.csv")
    values = np.stack([table.column(name) for name in ("x[1]", "x[2]")], -1)
    assert values.shape == (3000, 2)
    assert abs(values.mean(0) - 1).max() < 0.1
    assert abs(values.std(0) - 0.8).max() < 0.06


def test_draws_by_name_and_constrained(run: Run):
    assert fit(run, "rate", dim=None).exit_code == 0
    for out in ("d.csv", "d.nc"):
        result = run("sample", "m.safetensors", f"{NAME}:rate", "-o", out, "-n", 500, "--seed", 1)
        assert result.exit_code == 0, result.output
    rates = Table.read("d.csv").column("rate")
    assert (rates > 0).all()
    assert abs(rates.mean() - 3) < 4 * np.sqrt(3 / 500)
    with xarray.open_datatree("d.nc") as tree:
        np.testing.assert_allclose(np.asarray(tree["posterior"]["rate"]).ravel(), rates, rtol=1e-6)
    assert run("sample", "m.safetensors", "-o", "own.csv", "-n", 500).exit_code == 0
    assert (Table.read("own.csv").column("x[1]") < 0).any()  # on the line, unnamed


def test_bad_weights_are_warned_of(run: Run, model: Path):
    result = run("sample", model, f"{NAME}:in_torch", "-o", "-", "-n", 5, "--seed", 1)
    assert result.exit_code == 0, result.output
    assert "diffeo: warning: Only" in result.stderr
    assert "warning" not in result.stdout
    assert len(result.stdout.splitlines()) == 6


def test_what_cannot_be_drawn(run: Run, model: Path, tmp_path: Path):
    def refused(says: str, *arguments: Any) -> None:
        result = run("sample", *arguments)
        assert result.exit_code == 2, result.output
        assert says in result.stderr.splitlines()[-1]

    refused("every weight is zero", model, f"{NAME}:nowhere", "-o", "-")
    diffeo.save(MAF(1).build(), tmp_path / "one.safetensors")
    refused("takes 2 columns, not 1", tmp_path / "one.safetensors", f"{NAME}:known", "-o", "-")
    refused("unknown kind of table", model, "-o", "d.safetensors")
    refused("--data is for a Stan model", model, f"{NAME}:known", "-o", "-", "--data", f"{NAME}.py")
    refused("does not exist", "nothere.safetensors", "-o", "-")
    assert run("sample", model, "-o", "-", "-n", 0).exit_code == 2
    table = Table.of({"a": np.arange(60.0), "b": np.arange(60.0) % 7})
    flow, _ = diffeo.fit_table(table, preset=MAF(2, layers=1, hidden=(4,)), max_seconds=0.2)
    diffeo.save(flow, tmp_path / "table.safetensors")
    refused("was fitted to data; use diffeo sample", tmp_path / "table.safetensors", "-o", "-")
    diffeo.save(MAF(2, context=1).build(), tmp_path / "context.safetensors")
    refused("context", tmp_path / "context.safetensors", "-o", "-")


# -- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fit", "sample"])
def test_help_has_an_example(run: Run, name: str):
    result = run(name, "--help")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert f"Example: diffeo target {name} " in text
    assert "MODULE:FUNCTION" in text or "As in" in text


def test_help_says_that_code_is_run(run: Run):
    assert "is code, and it is run" in " ".join(run("--help").output.split())
