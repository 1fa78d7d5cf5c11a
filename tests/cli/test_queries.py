"""The commands that ask and fill: what they print, write and refuse."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import diffeo
from diffeo.cli.app import app
from diffeo.encodings import Cells
from diffeo.encodings.cell_kinds import Levels, Numbers
from diffeo.encodings.kinds import Continuous
from diffeo.presets import NSF, Mixed
from diffeo.tables import Table


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    scale = ((0.0, 100.0), (-3.0, 3.0))
    columns = [
        Levels("sex", "string", False, ("F", "M")),
        Numbers("age", "int64", False, Continuous(), (), scale, 1.0, 0.0, 0.0, 99.0),
        Numbers("income", "double", True, Continuous(), (0.0,), scale),
        Numbers("born", "date32[day]", False, Continuous(), (), ((0.0, 1e4), (-3.0, 3.0)), 1.0),
        Levels("state", "string", True, tuple(f"S{i}" for i in range(12))),
    ]
    path = tmp_path_factory.mktemp("models") / "m.safetensors"
    diffeo.save(Mixed(5, hidden=16, blocks=1).build(Cells(columns)), path)
    return path


def test_query_prints_figures(model: Path):
    code, out, err = run("query", model, "--given", "sex=F", "--given", "age=30..40", "--seed", 1)
    assert (code, err) == (0, "")
    head, *lines = out.splitlines()
    assert re.fullmatch(r"given sex=F and age=30\.\.40: 1,000 draws, worth [\d,]+ independent ones", head)
    words = [line.split() for line in lines]
    assert words[0] == ["column", "value", "error"]
    assert next(w for w in words if w[0] == "age")[1] == "mean"
    assert ["quantile", "0.5"] in [w[:2] for w in words]
    assert any(re.search(r"quantile 0.95 +\d{4}-\d\d-\d\d", line) for line in lines)  # of the dates
    assert any("5 others" in line for line in lines)  # of twelve levels and a gap
    assert "sex" not in [w[0] for w in words]
    assert out == run("query", model, "--given", "sex=F", "--given", "age=30..40", "--seed", 1)[1]


def test_query_prints_a_probability(model: Path):
    code, out, _ = run("query", model, "--probability", "sex=F", "--probability", "state!=missing")
    assert code == 0
    row = out.splitlines()[-1]
    assert row.startswith("sex=F and state!=missing")
    assert abs(float(row.split()[-2]) - 0.5 * 12 / 13) < 1e-3


def test_query_prints_quantiles_and_writes_draws(model: Path, tmp_path: Path):
    out = tmp_path / "draws.parquet"
    code, printed, err = run(
        *("query", model, "--of", "income", "--of", "sex", "--quantiles", "0.25, 0.75"),
        *("-n", 50, "-o", out, "--seed", 3),
    )
    assert code == 0
    assert "quantile 0.25" in printed
    assert "quantile 0.5 " not in printed
    assert f"wrote {out}: 50 rows" in err
    assert Table.read(out).names == ("income", "sex")
    code, printed, _ = run("query", model, "--of", "sex", "-n", 3, "-o", "-")
    assert printed.splitlines()[0] == "sex"
    assert len(printed.splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--given", "agee=3"], "no column 'agee'; near to it are 'age'"),
        (["--given", "sex=X"], "column 'sex' has no level 'X'; there are 'F', 'M'"),
        (["--given", "age"], "'age' is not a condition; write for example age=30..40"),
        (["--given", "age=50..40"], "give the lower end first"),
        (["--probability", "born=soon"], "write one as 2026-01-31"),
        (["--of", "incom"], "near to it are 'income'"),
        (["--quantiles", "2"], "--quantiles 2: write shares from 0 to 1"),
        (["--quantiles", "x"], "write shares from 0 to 1"),
        (["-o", "x.pdf"], "x.pdf"),
    ],
)
def test_query_refuses_in_one_line(model: Path, arguments: list[str], error: str):
    code, out, err = run("query", model, *arguments)
    assert (code, out) == (2, "")
    assert error in err
    assert len(err.splitlines()) == 1


def test_another_model_answers_no_question(tmp_path: Path):
    from diffeo.encodings.columns import Column, Columns

    path = tmp_path / "m.safetensors"
    diffeo.save(NSF(1, layers=1, hidden=8).build(Columns([Column("a", Continuous())])), path)
    table = tmp_path / "t.csv"
    table.write_text("a\n1\n")
    for arguments in (["query", path], ["impute", path, table, "-o", "-"]):
        code, _, err = run(*arguments)
        assert code == 2
        assert "fit again with preset=Mixed(...), --preset Mixed" in " ".join(err.split())


def test_impute_fills(model: Path, tmp_path: Path):
    table, out = tmp_path / "gaps.csv", tmp_path / "filled.csv"
    table.write_text("id,sex,age,income,born,state\nr1,F,,1.25,2001-02-03,S1\nr2,,40,,,\n")
    code, printed, err = run("impute", model, table, "-o", out, "--seed", 1)
    assert (code, printed) == (0, "")
    assert f"wrote {out}: 2 rows" in err
    lines = list(csv.reader(out.read_text().splitlines()))
    assert [lines[1][i] for i in (0, 1, 3, 4, 5)] == ["r1", "F", "1.25", "2001-02-03", "S1"]
    assert lines[2][2] == "40"
    assert all(all(line) for line in lines)
    assert run("impute", model, table, "-o", "-", "--seed", 1)[1] == out.read_text()


def test_several_draws_stand_below_each_other(model: Path, tmp_path: Path):
    table, out = tmp_path / "gaps.csv", tmp_path / "filled.parquet"
    table.write_text("sex,state\nF,\n,S1\n")
    assert run("impute", model, table, "-o", out, "--draws", 3, "--seed", 1)[0] == 0
    found = Table.read(out)
    assert found.names == ("draw", "sex", "state")
    assert found.column("draw").tolist() == [1, 1, 2, 2, 3, 3]
    assert found.column("sex").to_pylist()[::2] == ["F"] * 3
    table.write_text("draw,sex\n1,\n")
    code, _, err = run("impute", model, table, "-o", out, "--draws", 2)
    assert code == 2
    assert "the table has a column 'draw' already; rename it." in err


@pytest.mark.parametrize("command", ["query", "impute"])
def test_help_has_examples(command: str):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"diffeo {command} people.safetensors" in " ".join(out.split())
