"""Answers against a law that is known, and against the model's own density."""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import numpy as np
import pytest
import torch
from law import LAW, law_columns, law_rows

import diffeo
from diffeo.bases import Normal
from diffeo.bijections import Identity
from diffeo.encodings import Cells
from diffeo.encodings.cell_kinds import Levels, Numbers
from diffeo.encodings.columns import Column, Columns
from diffeo.encodings.kinds import Continuous
from diffeo.errors import ConfigError, ContextError, DataError
from diffeo.flow import Flow
from diffeo.presets import Mixed
from diffeo.tables import Table, log_density, predict_proba, query
from diffeo.tables.queries import Answer
from diffeo.tables.tensors import to_table

TOLERANCE = 0.02
"""How far off the model may be, trained for seconds, in probabilities; beside three standard errors."""


def truth(rows: torch.Tensor, given: list[str]) -> torch.Tensor:
    """Rows of the law that satisfy conditions."""
    for condition in given:
        rows = rows[LAW[condition](rows)]
    return rows


@pytest.fixture(scope="module")
def many() -> torch.Tensor:
    return law_rows(400_000, 9)


# -- against the law --------------------------------------------------------------------------------

QUESTIONS: list[tuple[list[str], list[str]]] = [
    ([], ["count=1"]),
    ([], ["note=missing"]),
    ([], ["size>1.5", "sort=z"]),
    ([], ["size=0"]),
    (["count={0,3}"], ["size>1.5"]),
    (["size>1.5", "count={0,3}"], ["sort=z"]),
    (["size>1.5", "count={0,3}"], ["flag=true", "size>2.5"]),
    (["note=missing"], ["flag=true"]),
    (["count=1", "flag=true"], ["sort=z"]),
    (["sort={y,z}", "note!=missing", "size=-1..1"], ["flag=true"]),
]


@pytest.mark.parametrize(("given", "asked"), QUESTIONS)
def test_probabilities_are_those_of_the_law(law_flow, many, given: list[str], asked: list[str]):
    answer = query(law_flow, given=given, n=1000, seed=0)
    found, known = answer.probability(asked), truth(many, given)
    wanted = len(truth(known, asked)) / len(known)
    assert 0 <= found.standard_error < 0.02
    assert abs(found.value - wanted) < 3 * found.standard_error + TOLERANCE
    assert answer.ess > 300


@pytest.mark.parametrize("given", [[], ["size>1.5", "count={0,3}"], ["flag=true"], ["size=-1..1"]])
def test_shares_means_and_quantiles_are_those_of_the_law(law_flow, many, given: list[str]):
    answer, known = query(law_flow, given=given, n=1000, seed=1), truth(many, given)
    for column, levels in ((0, ("x", "y", "z")), (4, ("short", "long", None))):
        shares = answer.shares(law_columns().names[column])
        assert set(shares) == set(levels)
        assert math.isclose(sum(s.value for s in shares.values()), 1.0, abs_tol=1e-5)
        for i, level in enumerate(levels):
            at = known[:, column].isnan() if level is None else known[:, column] == i
            error = 3 * shares[level].standard_error + TOLERANCE
            assert abs(shares[level].value - float(at.double().mean())) < error
    for column, name in ((1, "flag"), (2, "count"), (3, "size")):
        x, mean = known[:, column], answer.mean(name)
        assert abs(mean.value - float(x.mean())) < 3 * mean.standard_error + 0.05
    x = np.sort(known[:, 3].numpy())
    for q, found in zip((0.1, 0.5, 0.9), answer.quantiles("size", [0.1, 0.5, 0.9]), strict=True):
        low = np.searchsorted(x, found.value - 2 * found.standard_error)
        high = np.searchsorted(x, found.value + 2 * found.standard_error, side="right")  # there are atoms
        assert low / len(x) - 0.03 < q < high / len(x) + 0.03


def test_rows_satisfy_what_is_given_and_have_its_law(law_flow, many):
    answer = query(law_flow, ["size", "sort", "count"], ["size>1.5", "count={0,3}"], n=2000, seed=0)
    assert answer.rows.names == ("size", "sort", "count")
    assert answer.rows.dtypes == ("float64", "string", "int64")
    size, count = answer.rows.column("size"), answer.rows.column("count")
    assert (size > 1.5).all()
    assert set(count.tolist()) == {0, 3}
    known = truth(many, ["size>1.5", "count={0,3}"])
    assert abs(size.mean() - float(known[:, 3].mean())) < 0.1
    shares = [answer.rows.column("sort").to_pylist().count(level) / 2000 for level in ("x", "y", "z")]
    wanted = [float((known[:, 0] == i).double().mean()) for i in range(3)]
    np.testing.assert_allclose(shares, wanted, atol=0.05)
    assert abs(answer.share.value - len(known) / len(many)) < 3 * answer.share.standard_error + TOLERANCE


def test_what_is_given_comes_back_to_the_bit(law_flow):
    answer = query(law_flow, given={"size": 0.1234567891234, "sort": "y"}, of=["size", "sort"], n=3, seed=0)
    assert answer.rows.column("size").tolist() == [0.1234567891234] * 3
    assert answer.rows.column("sort").to_pylist() == ["y"] * 3
    assert answer.mean("size").value == pytest.approx(0.1234567891234, abs=1e-15)
    assert answer.shares("sort")["y"].value == 1
    assert answer.probability("sort={x,z}").value == 0
    assert answer.probability(["sort=y", "size=0..1"]).value == 1


# -- against the model's own density ----------------------------------------------------------------


def small(seed: int = 0) -> Flow:
    """Two categories and a grid, whose every row can be told."""
    torch.manual_seed(seed)
    columns = [
        Levels("a", "string", False, ("p", "q", "r"), (3.0, 1.0)),
        Numbers("n", "int64", True, Continuous(), (2.0,), ((0.0, 4.0), (-2.0, 2.0)), 1.0, 0.0, 0.0, 4.0),
        Levels("b", "string", True, ("u", "v")),
    ]
    flow = Mixed(3, hidden=16, known=8, blocks=1).build(Cells(columns)).eval()
    for name, p in flow.named_parameters():
        if "given" not in name and "to_blocks" not in name:
            p.data += 0.5 * torch.randn_like(p)
    return flow


def every_row() -> torch.Tensor:
    values = itertools.product([0.0, 1.0, 2.0], [0.0, 1.0, 2.0, 3.0, 4.0, math.nan], [0.0, 1.0, math.nan])
    return torch.tensor(list(values), dtype=torch.float64)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ([], "a={q,r}"),
        (["b=v"], "a=r"),
        (["b={v}", "n>=1"], "a!=p"),
        (["n={1,2}", "a={p,r}"], "b=missing"),
        (["n!=missing", "a={p,q}"], ["n<=2", "b=u"]),
        (["b!=u"], ["n=0..3", "a=p"]),
    ],
)
def test_answers_are_those_of_the_joint_density(given: list[str], asked: Any):
    """Brute force over all rows, for a model whose conditionals disagree as far as can be."""
    flow, rows = small(), every_row()
    mass = flow.log_prob(rows).double().exp().detach()
    assert float(mass.sum()) == pytest.approx(1.0, abs=1e-5)
    table = to_table(flow.encoding, rows)  # type: ignore[arg-type]
    answer = query(flow, given=given, n=8000, seed=0)
    known = holds(table, given)
    both = known & holds(table, [asked] if isinstance(asked, str) else asked)
    wanted = float(mass[both].sum() / mass[known].sum())
    found = answer.probability(asked)
    assert abs(found.value - wanted) < 4 * found.standard_error + 1e-6
    assert found.standard_error < 0.05
    for name in ("a", "b"):
        shares = answer.shares(name)
        column = table.column(name).to_pylist()
        for level, share in shares.items():
            at = known & torch.tensor([value == level for value in column])
            wanted = float(mass[at].sum() / mass[known].sum())
            assert abs(share.value - wanted) < 4 * share.standard_error + 1e-6, (name, level)


def holds(table: Table, given: list[str]) -> torch.Tensor:
    """Which rows satisfy text such as ``n>=1``, by Python's own comparison."""
    found = torch.ones(len(table), dtype=torch.bool)
    for text in given:
        name, operator, value = next(
            (text[0], o, text[1 + len(o) :]) for o in (">=", "<=", "!=", "=") if text[1:].startswith(o)
        )
        column = table.column(name)
        values = column.to_pylist()
        if ".." in value:
            low, high = map(float, value.split(".."))
            hit = [v is not None and low <= v <= high for v in values]
        elif operator in (">=", "<="):
            sign = 1 if operator == ">=" else -1
            hit = [v is not None and sign * v >= sign * float(value) for v in values]
        else:
            words = value.strip("{}").split(",")
            hit = [("missing" if v is None else str(v)) in words for v in values]
            if operator == "!=":
                hit = [not h and v is not None for h, v in zip(hit, values, strict=True)]
        found &= torch.tensor(hit)
    return found


def test_a_rare_thing_has_a_probability(law_flow):
    answer = query(law_flow, n=500, seed=0)
    found = answer.probability("size>5")
    exact = 0.9 * 0.5 * 0.5 * math.erfc(3 / math.sqrt(2))  # as many yes as no, by 0.2, 0.6 and 0.9
    yes = float(0.5 * 0.2 + 0.3 * 0.6 + 0.2 * 0.9)
    exact *= yes / 0.5
    assert 0.2 < found.value / exact < 5
    assert found.standard_error < 0.2 * found.value


def test_log_density_sums_and_integrates_to_one(law_flow):
    sizes = np.linspace(-8, 8, 4001)
    table = Table.from_columns({"size": sizes, "sort": ["y"] * len(sizes)})
    density = np.exp(log_density(law_flow, table, "size", "sort"))
    atom = density[2000]
    density[2000] = density[1999]
    assert np.trapezoid(density, sizes) + atom == pytest.approx(1.0, abs=2e-3)
    both = [(s, f) for s in ("x", "y", "z") for f in (True, False)]
    table = Table.from_columns({"sort": [s for s, _ in both], "flag": [f for _, f in both]})
    assert np.exp(log_density(law_flow, table, ["sort", "flag"])).sum() == pytest.approx(1.0, abs=1e-5)


def test_log_density_of_all_columns_is_the_score(law_flow):
    rows = law_rows(50, 3)
    table = to_table(law_columns(), rows)
    with torch.no_grad():
        wanted = law_flow.log_prob(rows)
    np.testing.assert_allclose(log_density(law_flow, table, table.names), wanted, atol=1e-5)
    answer = query(law_flow, ["size", "note"], {"sort": "y"}, n=1, seed=0)
    given = Table.from_columns(
        {"size": table.column("size"), "note": table.column("note"), "sort": ["y"] * 50}
    )
    np.testing.assert_allclose(
        answer.log_prob(table), log_density(law_flow, given, ["size", "note"], "sort"), atol=1e-6
    )


def test_hidden_and_impossible_entries_tell_nothing(law_flow):
    seen = {"flag": [True, True], "sort": ["y", "never seen"]}
    with_, without = log_density(law_flow, seen, "flag", "sort")[1], log_density(law_flow, seen, "flag")[1]
    assert with_ == pytest.approx(without, abs=1e-5)
    assert log_density(law_flow, seen, "sort", "flag")[1] == -math.inf


def test_predict_proba_is_bayes_rule():
    flow, rows = small(1), every_row()
    mass = flow.log_prob(rows).double().exp().detach().numpy().reshape(3, 6, 3)
    wanted = (mass / mass.sum(0)).transpose(1, 2, 0).reshape(-1, 3)
    table = to_table(flow.encoding, rows[:18]).drop("a")  # type: ignore[arg-type]
    found = predict_proba(flow, table, "a")
    assert found.names == ("p", "q", "r")
    np.testing.assert_allclose(found.values, wanted, atol=1e-5)
    few = predict_proba(flow, table, "a", batch_size=5)
    np.testing.assert_allclose(few.values, found.values, atol=1e-6)


def test_predict_proba_of_the_law(law_flow):
    rows = law_rows(4000, 5)
    table = to_table(law_columns(), rows)
    found = predict_proba(law_flow, table, "flag").column("True")
    yes = rows[:, 1].numpy()
    for low, high in itertools.pairwise([0, 0.25, 0.5, 0.75, 1.0]):  # calibrated
        at = (found > low) & (found <= high)
        assert at.sum() < 50 or abs(found[at].mean() - yes[at].mean()) < 0.07
    assert found[yes == 1].mean() - found[yes == 0].mean() > 0.4
    partly = predict_proba(law_flow, table.select(["sort"]), "flag").column("True")
    np.testing.assert_allclose(
        [partly[rows[:, 0].numpy() == i].mean() for i in range(3)], [0.2, 0.6, 0.9], atol=0.05
    )


# -- how it is asked --------------------------------------------------------------------------------


def test_answers_repeat_by_seed(law_flow):
    def asked(seed: int | None) -> Answer:
        return query(law_flow, given=["size>0"], n=50, seed=seed)

    first, second, third = asked(1), asked(1), asked(2)
    assert first.rows.column("size").tolist() == second.rows.column("size").tolist()
    assert first.probability("sort=z") == second.probability("sort=z")
    assert first.shares("sort") == second.shares("sort")
    assert first.rows.column("size").tolist() != third.rows.column("size").tolist()
    before = torch.get_rng_state()
    assert asked(None).rows.column("size").tolist() != asked(None).rows.column("size").tolist()
    assert torch.equal(before, torch.get_rng_state())


def test_the_flows_mode_stays_and_does_not_matter(law_flow):
    flow = Mixed(5, hidden=8, blocks=1, dropout=0.9).build(law_columns()).train()
    first, second = (query(flow, given="size>0", n=40, seed=0) for _ in range(2))
    assert first.rows.column("size").tolist() == second.rows.column("size").tolist()
    assert first.shares("sort") == second.shares("sort")
    assert flow.training


def test_one_draw_and_nothing_given(law_flow):
    answer = query(law_flow, n=1, seed=0)
    assert len(answer.rows) == 1
    assert answer.rows.names == law_columns().names
    assert answer.share.value == 1
    assert "Answer(Table(1 rows" in repr(answer)


def test_a_guess_is_refused(law_flow, monkeypatch):
    from diffeo.tables import particles

    monkeypatch.setattr(particles, "MOST", 1000)
    monkeypatch.setattr(particles, "LEAST", 1e9)
    with pytest.raises(DataError, match=r"size>1 .*tell something \(the effective sample size; at least"):
        query(law_flow, given=["size>1", "count=0..1"], seed=0)


def test_errors_say_what_to_do(law_flow):
    with pytest.raises(DataError, match="no column 'sizes'; near to it are 'size'"):
        query(law_flow, "sizes")
    with pytest.raises(ConfigError, match="asked for twice"):
        query(law_flow, ["size", "size"])
    with pytest.raises(ConfigError, match="ask for at least 1"):
        query(law_flow, n=0)
    answer = query(law_flow, given="size>1", n=30, seed=0)
    with pytest.raises(ConfigError, match="holds text; ask for its shares"):
        answer.mean("sort")
    with pytest.raises(ConfigError, match="holds numbers, not levels"):
        answer.shares("size")
    with pytest.raises(ConfigError, match="shares from 0 to 1"):
        answer.quantiles("size", 2)
    with pytest.raises(DataError, match="one value of a column with a density has no probability"):
        answer.probability("size=1.25")
    with pytest.raises(ConfigError, match="a density is given values"):
        answer.log_prob({"sort": ["x"]})
    with pytest.raises(ConfigError, match="named twice"):
        log_density(law_flow, {"sort": ["x"]}, "sort", "sort")
    with pytest.raises(ConfigError, match="holds numbers"):
        predict_proba(law_flow, {"sort": ["x"]}, "size")
    other = Flow(Identity((1,)), Normal((1,)), Columns([Column("a", Continuous())]))
    with pytest.raises(ConfigError, match="fit again with preset=Mixed"):
        query(other)


def test_a_conditioned_model_wants_its_columns():
    columns = Cells([Levels(n, "string", False, ("x", "y")) for n in ("a", "b")], given=["a"])
    flow = Mixed(2, hidden=8).build(columns)
    with pytest.raises(ContextError, match="give one value of it, a=VALUE"):
        query(flow)
    with pytest.raises(ContextError, match="give it too"):
        log_density(flow, {"b": ["x"]}, "b")
    answer = query(flow, given={"a": "x"}, n=10, seed=0)
    assert answer.rows.names == ("b",)
    assert answer.probability("b=x").value == pytest.approx(0.5, abs=1e-5)
    with pytest.raises(ConfigError, match="conditioned on 'a'"):
        predict_proba(flow, {"a": ["x"]}, "a")


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(law_flow, rows: int):
    table = to_table(law_columns(), law_rows(2, 0)[:rows])
    assert log_density(law_flow, table, "size", "sort").shape == (rows,)
    assert len(predict_proba(law_flow, table, "sort")) == rows


def test_saved_and_loaded_it_answers_the_same(law_flow, tmp_path):
    diffeo.save(law_flow, tmp_path / "m.safetensors")
    flow = diffeo.load(tmp_path / "m.safetensors")
    for question in (law_flow, flow):
        assert query(question, given="size>1", n=30, seed=0).mean("size") == query(
            law_flow, given="size>1", n=30, seed=0
        ).mean("size")


def test_a_question_is_quick():
    columns = [Levels(f"c{i}", "string", False, tuple("abcdef")) for i in range(15)]
    flow = Mixed(15).build(Cells(columns))
    query(flow, given="c3=a", seed=0)
    start = time.perf_counter()
    query(flow, given=["c3=a", "c5={a,b}"], seed=0)
    assert time.perf_counter() - start < 3  # 0.2 s on an idle core
