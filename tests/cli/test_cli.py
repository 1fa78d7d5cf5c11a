"""The command line: what it prints, writes, refuses, and how it ends."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import diffeo
import diffeo.io
from diffeo.bases import Normal
from diffeo.bijections.base import Bijection
from diffeo.cli import options
from diffeo.cli.app import app
from diffeo.cli.flags import FLAGS, hint
from diffeo.encodings.context import StandardizedContext
from diffeo.errors import ConfigError, ContextError, Cure, DataError
from diffeo.flow import Flow
from diffeo.tables import TableReport
from diffeo.tables.samples import sample_table
from diffeo.tables.schema import Schema
from diffeo.tables.scores import SCORE_QUANTILES, score_quantiles, score_table
from diffeo.tables.table import Table
from diffeo.train import FitReport

COMMAND: Any = typer.main.get_command(app)
COMMANDS = ("fit", "score", "sample", "query", "impute", "report", "info", "demo", "distill")


class Shift(Bijection):
    """The identity, or a shift by the context."""

    def forward(self, x, context=None):
        return (x if context is None else x - context.sum(-1, keepdim=True)), x.new_zeros(x.shape[:-1])

    def inverse(self, y, context=None):
        return (y if context is None else y + context.sum(-1, keepdim=True)), y.new_zeros(y.shape[:-1])


def table(rows: int = 400) -> Table:
    rng = np.random.default_rng(0)
    return Table.of({
        "size": rng.lognormal(2, 1, rows).astype(np.float32),
        "count": rng.poisson(4, rows),
        "same": np.full(rows, 7),
        "age": rng.normal(40, 5, rows),
    })  # fmt: skip


def toy_flow(rows: Table, given: tuple[str, ...] = (), weights: str | None = None, columns=None) -> Flow:
    """What fit_table gives, untrained."""
    apart = [*given, *([weights] if weights else [])]
    schema = columns if isinstance(columns, Schema) else Schema.infer(rows.drop(apart), columns)
    encoding = schema.encoding(rows, given=given, weights=weights)
    n = len(given)
    bijection = Shift(encoding.latent_shape, context_shape=(n,) if n else None)
    flow = Flow(bijection, Normal(encoding.latent_shape), encoding, StandardizedContext(n) if n else None)
    flow.notes[SCORE_QUANTILES] = score_quantiles(score_table(flow, rows).log_prob)
    return flow


_SCORES = {"rows": 3, "values": [-9.0, -3.0, -1.0]}


def result(rows: int) -> TableReport:
    """What fit_table says of a run."""
    training = FitReport((), 1.0, 100, 90, -3.0, -3.25, 0, "out of time")
    return TableReport(training, rows, 1600, {"flow": -3.25, "gaussian": -4.0, "mixture": -3.5}, _SCORES, 1.5)


@dataclass
class Fake:
    """Stands in for training and for model files; remembers what it was asked."""

    flow: Flow | None = None
    asked: dict | None = None

    def fit_table(self, rows, **asked):
        self.asked = asked
        self.flow = toy_flow(rows, tuple(asked["given"]), asked["weights"], asked["columns"])
        found = result(len(rows))
        self.flow.notes = found.notes() | self.flow.notes
        return self.flow, found

    def save(self, flow, path):
        path.write_bytes(bytes(8) + b"{")  # the first bytes of one
        assert flow is self.flow

    def load(self, path):
        path.read_bytes()
        assert self.flow is not None
        return self.flow


@pytest.fixture
def fake(monkeypatch) -> Fake:
    found = Fake()
    for name in ("fit_table", "save", "load"):
        monkeypatch.setattr(diffeo, name, getattr(found, name), raising=False)
    return found


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table().write(tmp_path / "t.parquet")

    def call(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == code, (result.output, result.exception)
        if code == 2:
            assert "Traceback" not in result.output
            assert result.stdout == ""
        return result.output

    return call


def fitted(fake: Fake, run, *arguments: str) -> str:
    return run("fit", "t.parquet", "-o", "m", *arguments)


# -- the main job ---------------------------------------------------------------------------------


def test_fit_prints_the_schema_first_and_the_comparison_last(fake, run):
    text = fitted(fake, run, "--column", "size=positive")
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["400", "rows,", "4", "columns", "to", "model"]
    assert ["size", "positive", "float32"] in [line[:3] for line in lines]
    assert ["count", "integer", "int64"] in [line[:3] for line in lines]
    assert ["same", "constant", "int64"] in [line[:3] for line in lines]
    assert "\nheld-out rows (1,600), nats per row (higher is better):\n" in text
    assert re.search(r"this flow\s+-3.250\n.*a Gaussian\s+-4.000\n.*Gaussians\s+-3.500", text)
    assert "beats the better of the two by 0.250 nats" in text
    assert text.rstrip().endswith("wrote m")
    assert all(line == line.rstrip() for line in text.splitlines())
    assert os.path.exists("m")


def test_fit_passes_its_options_on(fake, run):
    text = (
        "--given age --weights count --max-seconds 3 --seed 5 --preset nSf --set bins=16 --set dropout=0.25"
    )
    fitted(fake, run, *text.split(), "--checkpoint", "c", "--column", "size=positive", "--max-steps", "9")
    asked = dict(fake.asked)
    preset, schema = asked.pop("preset"), asked.pop("columns")
    assert asked.pop("checkpoint").path == Path("c")
    own = table().select(["size", "same", "age"])
    assert schema == Schema.infer(own, {"size": "positive"}, given=["age"])
    assert asked == {
        "given": ["age"],
        "weights": "count",
        "max_seconds": 3.0,
        "max_steps": 9,
        "seed": 5,
        "began": None,
    }
    assert preset == diffeo.presets.NSF(features=1, context=1, bins=16, dropout=0.25)


def test_score_writes_what_python_computes(fake, run):
    fitted(fake, run)
    run("score", "m", "t.parquet", "-o", "s.parquet")
    got = Table.read("s.parquet")
    assert got.names == ("log_prob", "quantile", "standard_error")
    scores = score_table(fake.flow, table())
    np.testing.assert_array_equal(got.column("log_prob"), scores.log_prob)
    np.testing.assert_array_equal(got.column("standard_error"), scores.standard_error)
    held_out = np.array(_SCORES["values"])
    share = (1 + (held_out <= scores.log_prob[:, None]).sum(1)) / (len(held_out) + 1)
    np.testing.assert_allclose(got.column("quantile"), share)


def test_scores_match_the_flow_chunk_by_chunk(fake, run):
    flow = toy_flow(table(), ("age",)).double()
    rows, context = (
        torch.from_numpy(table().drop(["age"]).values),
        torch.from_numpy(table().select(["age"]).values),
    )
    expected = flow.eval().log_prob(rows, context)
    flow.train()
    scores = score_table(flow, table(), batch_size=16 * 7)
    assert flow.training
    np.testing.assert_allclose(scores.log_prob, expected.numpy(), rtol=1e-12)
    error = scores.standard_error
    assert error is not None
    assert (error >= 0).all()
    assert error.max() > 0


def test_values_off_a_grid_are_said(fake, run):
    fitted(fake, run)
    new = {name: table().column(name)[:3] for name in table().names} | {"count": [1.0, 2.5, 3.0]}
    Table.of(new).write("new.parquet")
    said = run("score", "m", "new.parquet", "-o", "s.csv")
    assert "note: column 'count': 1 of 3 rows holds a value off its grid, integer (the first is " in said
    assert "inf" not in Path("s.csv").read_text()


def test_rows_outside_the_support_score_minus_infinity(fake, run):
    fitted(fake, run, "--column", "size=positive")
    odd = {name: table().rows(slice(0, 3)).column(name).copy() for name in table().names}
    odd["size"][0], odd["same"][1] = -1, 8
    Table(odd).write("odd.parquet")
    run("score", "m", "odd.parquet", "-o", "s.csv")
    lines = Path("s.csv").read_text().split()
    assert lines[1].startswith("-inf,0.25,")  # of three held-out rows none scored lower
    assert lines[2].startswith("-inf,0.25,")
    assert not lines[3].startswith("-inf")


def test_samples_have_names_types_and_supports(fake, run):
    fitted(fake, run, "--column", "size=positive")
    run("sample", "m", "-n", "500", "-o", "new.parquet", "--seed", "1")
    new = Table.read("new.parquet")
    assert (new.names, new.dtypes) == (table().names, table().dtypes)
    assert len(new) == 500
    assert (new.column("size") > 0).all()
    assert (new.column("same") == 7).all()
    assert new.column("count").mean() == pytest.approx(4, abs=0.5)
    run("sample", "m", "-n", "500", "-o", "again.parquet", "--seed", "1")
    run("sample", "m", "-n", "500", "-o", "other.parquet")
    assert np.array_equal(Table.read("again.parquet").values, new.values)
    assert not np.array_equal(Table.read("other.parquet").values, new.values)


def test_samples_given_values(fake, run):
    fitted(fake, run, "--given", "age", "--given", "same")
    run("sample", "m", "-n", "5", "-o", "a.parquet", "--given", "same=7", "--given", "age=43.5")
    new = Table.read("a.parquet")
    assert new.names == ("age", "same", "size", "count")
    assert new.dtypes[1] == "int64"
    assert (new.column("age") == 43.5).all()
    table().rows([3, 1]).write("g.csv")
    run("sample", "m", "-n", "2", "-o", "b.parquet", "--given-table", "g.csv")
    assert np.array_equal(Table.read("b.parquet").column("age"), table().column("age")[[3, 3, 1, 1]])


def test_samples_follow_their_own_context():
    flow = toy_flow(table().select(["size", "age"]), ("age",), columns={"size": "continuous"})
    context = Table.of({"age": [-1e4, 1e4]})
    values = sample_table(flow, 3, given=context, seed=0, batch_size=2).column("size")
    assert (values[:3] < -100).all()
    assert (values[3:] > 100).all()
    with pytest.raises(ContextError, match="conditioned on age; give"):
        sample_table(flow, 3)
    with pytest.raises(ContextError, match="conditioned on no column"):
        sample_table(toy_flow(table()), 3, given=context)


def test_scores_beside_the_columns_they_score(fake, run):
    fitted(fake, run)
    run("score", "m", "t.parquet", "-o", "s.parquet", "--append")
    both = Table.read("s.parquet")
    assert both.names == (*table().names, "log_prob", "quantile", "standard_error")
    assert both.dtypes[:4] == table().dtypes
    assert np.array_equal(both.values[:, :4], table().values)
    assert "already; rename" in run("score", "m", "s.parquet", "-o", "again.csv", "--append", code=2)


def test_a_conditioned_model_says_which_values_it_needs(fake, run):
    fitted(fake, run, "--given", "age", "--given", "same")
    for values, message in [
        (("a=90",), "needs --given age=VALUE --given same=VALUE and no other; got a."),
        (("age=90",), "--given same=VALUE and no other; got age."),
        (("age=90", "same=7", "size=1"), "and no other; got age, same, size."),
    ]:
        given = [part for value in values for part in ("--given", value)]
        assert message in run("sample", "m", "-n", "3", "-o", "s.csv", *given, code=2)


def test_standard_output(fake, run):
    fitted(fake, run)
    lines = run("sample", "m", "-n", "3", "-o", "-").splitlines()  # of both streams
    assert lines[0] == "size,count,same,age"
    assert len(lines) == 4
    assert len(run("score", "m", "t.parquet", "-o", "-").splitlines()) == 401
    assert run("score", "m", "t.parquet", "-o", "-").startswith("log_prob,quantile,standard_error\n")


def test_info(fake, run):
    fitted(fake, run, "--given", "age", "--weights", "same")
    text = run("info", "m")
    for part in ("given", "age", "weights", "same", "integer", "float32", "16 draws"):
        assert part in text
    assert fake.flow is not None
    assert {"rows": 400, "seed": 0, "steps": 100, "seconds": 1.5}.items() <= fake.flow.notes.items()
    assert re.search(r"^rows +400\n(.*\n)*held out +flow -3.25, gaussian -4.0, mixture -3.5\n", text, re.M)
    text = run("info")
    assert re.search(r"^diffeo +0\.", text)
    assert re.search(r"^threads +\d+ of \d+ processors$", text, re.M)
    assert re.search(r"^kernels +\w", text, re.M)
    assert f"diffeo {diffeo.__version__}" in run("--version")


def with_text() -> None:
    """The table beside a name and a date with gaps, which no model knows."""
    lines = ["id,seen,size,count,same,age"]
    for i, row in enumerate(table().values.tolist()):
        lines.append(f"row {i},{'2020-01-02' if i else ''}," + ",".join(map(repr, row)))
    Path("named.csv").write_text("\n".join(lines) + "\n")


def test_columns_are_left_out(fake, run):
    with_text()
    text = run("fit", "named.csv", "-o", "m", "--drop", "id", "--drop", "seen")
    assert text.startswith("400 rows, 4 columns to model\n")
    assert fake.flow.encoding.names == ("size", "count", "same", "age")


def test_columns_that_the_model_does_not_know_may_hold_anything(fake, run):
    with_text()
    fitted(fake, run, "--given", "age")
    text = run("score", "m", "named.csv", "-o", "s.csv")
    assert text == "wrote s.csv: 400 rows\n"
    expected = score_table(fake.flow, "named.csv").log_prob
    np.testing.assert_array_equal(Table.read("s.csv").column("log_prob"), expected)
    run("score", "m", "named.csv", "-o", "both.csv", "--append")
    both = Table.read("both.csv", drop=["id", "seen"])
    np.testing.assert_array_equal(both.column("log_prob"), expected)
    np.testing.assert_array_equal(both.column("age"), table().column("age"))
    head, first, second = Path("both.csv").read_text().splitlines()[:3]
    assert head.startswith("id,seen,size,count,same,age,log_prob,")
    assert first.startswith('"row 0",,')
    assert second.startswith('"row 1",2020-01-02,')
    for name in ("both.npz", "both.npy"):
        text = run("score", "m", "named.csv", "-o", name, "--append", code=2)
        assert "cannot hold these columns (column 'id' holds string); write .parquet." in text
        assert not os.path.exists(name)
    text = run("sample", "m", "-n", "2", "-o", "new.csv", "--given-table", "named.csv")
    assert text == "wrote new.csv: 800 rows\n"


def test_what_was_written_is_said_on_stderr_only(fake, run):
    fitted(fake, run)
    for arguments in ("sample m -n 1 -o s.csv", "score m s.csv -o t.csv"):
        result = CliRunner().invoke(app, arguments.split())
        assert result.stdout == ""
        assert result.stderr == f"wrote {arguments[-5:]}: 1 row\n"


def test_python_takes_tables_of_every_make():
    rows = table().select(["size", "age"])
    flow = toy_flow(rows, ("age",), columns={"size": "continuous"})
    columns = {name: rows.column(name) for name in rows.names} | {"note": ["odd"] * 400}
    expected = score_table(flow, rows).log_prob
    np.testing.assert_array_equal(score_table(flow, columns).log_prob, expected)
    by_place = toy_flow(Table.of(rows.values))
    found = [
        score_table(by_place, make(rows.values)).log_prob for make in (np.asarray, torch.tensor, Table.of)
    ]
    assert all(np.array_equal(scores, found[0]) for scores in found)
    drawn = [
        sample_table(flow, 3, given=given, seed=0).values
        for given in (Table.of({"age": [50]}), {"age": 50}, {"age": np.array([50.0]), "note": "odd"})
    ]
    assert drawn[0].shape == (3, 2)
    assert all(np.array_equal(values, drawn[0]) for values in drawn)
    with pytest.raises(ContextError, match=r"conditioned on age; give their values: .*given=\{'age': VALUE"):
        sample_table(flow, 3)
    with pytest.raises(DataError, match="no column 'age' in this table; it has size"):
        sample_table(flow, 3, given={"size": 1})


# -- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fit none.csv -o m", "none.csv does not exist"),
        ("fit t.parquet -o no/m", "folder no does not exist"),
        ("fit t.parquet -o .", "is a folder"),
        ("fit t.parquet -o -", "cannot go to standard output"),
        ("fit t.parquet -o m --checkpoint no/c", "folder no does not exist"),
        ("fit t.parquet -o m --given nope", "no column 'nope' in this table; it has size, count, same, age"),
        ("fit t.parquet -o m --weights nope", "no column 'nope'"),
        ("fit t.parquet -o m --column size=log", "not a kind of column; there are: continuous"),
        ("fit t.parquet -o m --column nope=positive", "no column 'nope'"),
        ("fit t.parquet -o m --column size", "is not NAME=VALUE"),
        (
            "fit t.parquet -o m --given age --column age=positive",
            "'age' is given or weights the rows; declare",
        ),
        ("fit t.parquet -o m --column age=bounded(0,41)", r"'age' is bounded\(0, 41\), but row \d+ holds"),
        ("fit t.parquet -o m --preset glow2", "no preset 'glow2'; there are BPF"),
        ("fit t.parquet -o m --set bins=16", "--set needs --preset"),
        ("fit t.parquet -o m --preset nsf --set binz=16", "NSF has no field 'binz'; its fields are .*bins"),
        ("fit t.parquet -o m --preset nsf --set bins=x", "'x' is not a whole number"),
        ("fit t.parquet -o m --given age --given age", "'age' stands twice among given and weights"),
        ("fit t.parquet -o m --given age --weights age", "'age' stands twice among given and weights"),
        ("fit t.parquet -o /dev/full", "/dev/full is not a regular file"),
        ("fit t.parquet -o n --checkpoint ./n", "--output and --checkpoint are both n; name two"),
        ("fit t.parquet -o t.parquet", "TABLE and --output are both"),
        ("fit t.parquet -o m --preset nsf --set bins=0", "NSF.bins must be"),
        ("fit t.parquet -o m --preset nsf --set features=3", "the table decides"),
        ("fit text.csv -o m", "no column varies over the 1 rows"),
        ("score none t.parquet -o s.csv", "none does not exist"),
        ("score . t.parquet -o s.csv", "is a folder, not a model"),
        ("score m t.parquet -o s.xls", "unknown kind of table"),
        ("fit text.csv -o m --column b=positive", "column 'b' holds text, not numbers; it is a category"),
        ("fit t.parquet -o m --drop nope", "no column 'nope' in this table; it has size, count, same, age"),
        ("fit t.parquet -o m --drop age --given age", "'age' is dropped; leave it out of given"),
        ("fit t.parquet -o m --drop age --weights age", "'age' is dropped; leave it out of given, weights"),
        ("fit t.parquet -o m --drop age --column age=positive", "'age' is dropped; leave it out .* columns"),
        ("score m text.csv -o s.csv", "no column 'size', 'count', 'same', 'age' in this table; it has a, b"),
        ("score m words.csv -o s.csv", r"column 'age' holds text .*drop it\."),
        ("score m few.csv -o s.csv", "no column 'count', 'same', 'age' in this table; it has size"),
        ("sample m -n 3 -o no/s.csv", "does not exist"),
        ("sample m -n 3 -o s.csv --given age=3", "conditioned on no column"),
        ("sample m -n 3 -o s.csv --given age=3 --given-table t.parquet", "not both"),
        ("info none", "none does not exist"),
        ("demo -o t.parquet", "is a file"),
        ("demo -o no/such", "does not exist"),
    ],
)
def test_errors_are_one_line_with_exit_code_2(fake, run, arguments, message):
    fitted(fake, run)
    fake.asked = None
    Path("text.csv").write_text("a,b\n1,red\n")
    Path("few.csv").write_text("size\n1\n")
    Path("words.csv").write_text("size,count,same,age\n1,2,7,old\n")
    before = set(os.listdir())
    text = run(*arguments.split(" "), code=2)
    assert re.fullmatch(rf"diffeo: error: .*{message}.*\n", text), text
    assert set(os.listdir()) == before
    assert fake.asked is None  # nothing was trained


@pytest.mark.parametrize(
    "arguments",
    [
        "fit",
        "fit t.parquet",
        "nope",
        "sample m -n 0 -o s.csv",
        "sample m -o s.csv --seed -1",
        "fit t.parquet -o m --max-seconds x",
        "fit t.parquet -o m --seed -1",
    ],
)
def test_usage_errors_are_code_2_without_a_traceback(fake, run, arguments):
    result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_interrupting_leaves_no_file(fake, run, monkeypatch):
    def stop(*a, **k):
        raise KeyboardInterrupt

    monkeypatch.setattr(diffeo, "fit_table", stop, raising=False)
    assert "interrupted" in run("fit", "t.parquet", "-o", "m", code=130)
    assert os.listdir() == ["t.parquet"]


def test_a_bug_is_not_dressed_up_as_a_user_error(fake, run, monkeypatch):
    def bug(*a, **k):
        raise ZeroDivisionError

    monkeypatch.setattr(diffeo, "fit_table", bug, raising=False)
    result = CliRunner().invoke(app, ["fit", "t.parquet", "-o", "m"])
    assert isinstance(result.exception, ZeroDivisionError)


# -- help and options -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(run, command):
    assert f"Example: diffeo {command}" in run(command, "--help")


def test_the_help_of_fit_says_what_there_is(run, monkeypatch):
    from diffeo.presets import PRESETS, ImagePreset
    from diffeo.tables.fit import DEFAULT_SECONDS

    monkeypatch.setenv("COLUMNS", "1000")
    text = " ".join(re.sub("[│╭╮─╰╯]", " ", run("fit", "--help")).split())
    assert f"default: {DEFAULT_SECONDS:g}." in text
    presets = sorted(name for name, kind in PRESETS.items() if not issubclass(kind, ImagePreset))
    assert f"Kind of flow: {', '.join(presets)}." in text
    assert set(options.IMAGE_PRESETS) == set(PRESETS) - set(presets)


def test_the_commands_are_these(run):
    assert {c.callback.__name__ for c in app.registered_commands if c.callback} == set(COMMANDS)
    assert "--install-completion" in run("--help")


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("16", int, 16),
        ("1e-3", float, 1e-3),
        ("Yes", bool, True),
        ("false", bool, False),
        ("64,32", tuple[int, ...], (64, 32)),
        ("(64, 32)", tuple[int, int], (64, 32)),
        ("none", int | None, None),
        ("3", int | None, 3),
        ("abc", str, "abc"),
    ],
)
def test_settings_are_parsed_by_type(text, kind, value):
    got = options.parse(text, kind)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1.5", int),
        ("nan", float),
        ("maybe", bool),
        ("1,x", tuple[int, ...]),
        ("1", tuple[int, int]),
        ("x", dict),
    ],
)
def test_settings_of_the_wrong_type_are_refused(text, kind):
    with pytest.raises(ValueError):
        options.parse(text, kind)


def test_assignments():
    assert options.assignments(["a = b=1"], "--given", "x=1") == {"a = b": "1"}
    assert options.parse_given(["a=3", "b=2.5"]) == {"a": 3, "b": 2.5}
    for bad in (["a"], ["=1"], ["a="], ["a=1", "a=2"]):
        with pytest.raises(ConfigError):
            options.assignments(bad, "--given", "x=1")


def test_long_notes_are_cut(fake, run):
    fitted(fake, run)
    quantiles = [float(i) for i in range(-500, 501)]
    fake.flow.notes = {"scores": quantiles, "classes": [*"abcdefghijklm"], "few": ["x", "y"]}
    text = run("info", "m")
    assert "\nscores      from -500.000 to 500.000, median 0.000\n" in text
    assert "\nclasses     a, b, c, d, e, f, g, h, i, j and 3 more\nfew         x, y\n" in text


def test_a_cure_is_worded_for_the_command_line():
    """Each option in the table exists; an argument without an option adds nothing."""
    commands = [*COMMAND.commands.values()]
    commands += [below for group in commands for below in getattr(group, "commands", {}).values()]
    known = {option for command in commands for p in command.params for option in p.opts}
    assert set(FLAGS.values()) <= known
    assert hint(None) == hint(Cure("optimizer", 3)) == ""
    assert hint(Cure("drop", ["a", "b c"])) == " On the command line: --drop a --drop 'b c'."
    assert hint(Cure("given", {"age": "VALUE"})) == " On the command line: --given age=VALUE."
    assert hint(Cure("size", 32)) == " On the command line: --size 32."


def examples() -> list[tuple[typer.core.TyperCommand, list[str]]]:
    """Every command with the arguments of its help's example."""
    found = []
    for name, command in COMMAND.commands.items():
        group = getattr(command, "commands", {})
        for below in [command, *group.values()]:
            example = re.search(f"`diffeo {name} (.*?)`", f"{below.epilog}")
            assert example is not None, below.name
            arguments = shlex.split(example[1])
            found.append((group[arguments[0]], arguments[1:]) if group else (below, arguments))
    return found


@pytest.mark.parametrize(("command", "arguments"), examples(), ids=lambda p: getattr(p, "name", None))
def test_the_examples_are_understood(command, arguments):
    found = command.make_context("diffeo", arguments).params
    assert found["output"] if command.name not in ("info", "query") else found["model"]


def test_one_option_has_one_meaning():
    """What is trained has the same options in every group."""
    fits = [COMMAND.commands["fit"], COMMAND.commands["distill"]]
    fits += [COMMAND.commands[group].commands["fit"] for group in ("images", "target")]
    for command in fits:
        options = {option for p in command.params for option in p.opts}
        wanted = {"--output", "--preset", "--set", "--max-seconds", "--max-steps", "--seed", "--checkpoint"}
        assert wanted <= options, command.name


def test_tables_without_an_encoding_are_refused():
    with pytest.raises(ConfigError, match="not fitted to a table"):
        score_table(Flow(Shift((2,)), Normal((2,))), table())
    flow = toy_flow(table())
    del flow.notes[SCORE_QUANTILES]
    assert next(iter(score_table(flow, table()).columns())) == "log_prob"
    assert "quantile" not in score_table(flow, table()).columns()


# -- the real thing ----------------------------------------------------------------------------------

MAIN = [sys.executable, "-c", "from diffeo.cli import main; main()"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), **more}


def start(*arguments: str, **keywords) -> subprocess.Popen:
    return subprocess.Popen(
        [*MAIN, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **keywords,
    )


def test_a_real_process_says_one_line(tmp_path):
    process = start("score", "none", "t.csv", "-o", "s.csv", cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert re.fullmatch(r"diffeo: error: .*none.*\n", err)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("whole", [True, False])
def test_standard_output_is_whole_or_the_reader_left(unbuffered, whole):
    code = (
        "import numpy as np, typer, diffeo.cli.app as cli\n"
        "from diffeo.tables.table import Table\n"
        "@cli.app.command()\n"
        "def big(): Table({'a': np.arange(300000.0)}).write('-')\n"
        "cli.app()"
    )
    command = [sys.executable, "-c", code, "big"]
    with subprocess.Popen(
        command, env=environment(PYTHONUNBUFFERED=unbuffered), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"a\n"
        if whole:
            assert process.stdout.read().count(b"\n") == 300_000
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == (0 if whole else 141)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_ends_a_real_fit_cleanly(tmp_path):
    table(3000).write(tmp_path / "t.csv")
    process = start("fit", "t.csv", "-o", "m", "--max-seconds", "60", cwd=tmp_path)
    assert process.stdout is not None
    while "columns to model" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("diffeo: interrupted")
    assert os.listdir(tmp_path) == ["t.csv"]


@pytest.mark.parametrize(
    "asked",
    [
        ("fit", "nothing.csv", "-o", "m.safetensors"),
        ("fit", "infinite.csv", "-o", "m.safetensors"),
        ("fit", "damaged.npy", "-o", "m.safetensors"),
        ("fit", "table.csv", "-o", "nowhere/m.safetensors"),
        ("fit", "table.csv", "-o", "m.safetensors", "--preset", "Nothing"),
        ("fit", "table.csv", "-o", "m.safetensors", "--column", "z=positive"),
        ("fit", "table.csv", "-o", "m.safetensors", "--drop", "z"),
        ("score", "damaged.npy", "table.csv", "-o", "scores.csv"),
        ("sample", "nothing", "-o", "drawn.csv"),
        ("info", "damaged.npy"),
        ("report", "damaged.npy", "table.csv", "-o", "report.html"),
        ("report", "damaged.npy", "table.csv", "-o", "report.txt"),
        ("distill", "damaged.npy", "-o", "m.safetensors"),
        ("images", "fit", "nothing", "-o", "m.safetensors"),
        ("target", "fit", "nowhere:log_prob", "--dim", "2", "-o", "m.safetensors"),
        ("target", "fit", "model.stan", "--numpy", "-o", "m.safetensors"),
    ],
    ids=" ".join,
)
def test_a_refusal_does_not_wait_for_torch(tmp_path, asked):
    (tmp_path / "table.csv").write_text("a,b\n1,2.5\n3,4.5\n")
    (tmp_path / "infinite.csv").write_text("a,b\ninf,2.5\n3,4.5\n")
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY")
    code = (
        "import sys\n"
        "from diffeo.cli import main\n"
        f"sys.argv = {['diffeo', *asked]!r}\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert end.code == 2, end.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
