"""``score_table`` and ``sample_table``: by name, in parts, without a trace in the flow."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import diffeo
from diffeo.bases import Normal
from diffeo.bijections.base import Bijection
from diffeo.encodings import Dequantization, StandardizedContext
from diffeo.errors import ConfigError, ContextError, Cure, DataError
from diffeo.flow import Flow
from diffeo.tables import Schema, Table, sample_table, score_table
from diffeo.tables.scores import HELD_OUT_SCORES, SCORE_QUANTILES, held_out_scores, score_quantiles


class Shift(Bijection):
    """The identity, or a shift by the context; a layer of dropout that it passes by."""

    def __init__(self, event_shape: Any, context_shape: Any = None):
        super().__init__(event_shape, context_shape=context_shape)
        self.layer = nn.Dropout()

    def forward(self, x, context=None):
        return (x if context is None else x - context.sum(-1, keepdim=True)), x.new_zeros(x.shape[:-1])

    def inverse(self, y, context=None):
        return (y if context is None else y + context.sum(-1, keepdim=True)), y.new_zeros(y.shape[:-1])


def table(rows: int = 400) -> Table:
    rng = np.random.default_rng(0)
    return Table.of(
        {
            "size": rng.lognormal(2, 1, rows).astype(np.float32),
            "count": rng.poisson(4, rows),
            "same": np.full(rows, 7),
            "age": rng.normal(40, 5, rows),
        }
    )


def flow_of(rows: Table, given: tuple[str, ...] = ()) -> Flow:
    """What ``fit_table`` gives, untrained."""
    encoding = Schema.infer(rows.drop(given), {"size": "positive"}).encoding(rows, given=given)
    n = len(given)
    bijection = Shift(encoding.latent_shape, (n,) if n else None)
    context = StandardizedContext(n) if n else None
    return Flow(bijection, Normal(encoding.latent_shape), encoding, context).double().eval()


# -- scores -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [(), ("age",)])
def test_scores_are_the_flow_s_in_parts_of_any_size(given: tuple[str, ...]):
    flow, rows = flow_of(table(), given), table()
    x = torch.from_numpy(rows.drop(given).values)
    expected = flow.log_prob(x, torch.from_numpy(rows.select(given).values) if given else None)
    for size in (1, 16 * 7, 10**6):
        scores = score_table(flow, rows, batch_size=size)
        np.testing.assert_allclose(scores.log_prob, expected.numpy(), rtol=1e-12)
        assert scores.standard_error is not None
        assert (scores.standard_error >= 0).all()
        assert scores.standard_error.max() > 0


@pytest.mark.parametrize("given", [None, {"age": 40}])
def test_every_layer_keeps_its_mode(given: Any):
    flow = flow_of(table(), ("age",) if given else ())
    assert isinstance(flow.bijection, Shift)
    flow.bijection.layer.train()
    score_table(flow, table())
    sample_table(flow, 3, given=given)
    assert flow.bijection.layer.training
    assert not flow.training
    assert not flow.bijection.training
    flow.train()
    score_table(flow, table())
    assert all(module.training for module in flow.modules())


def test_scores_are_columns_of_a_table():
    flow = flow_of(table())
    scores = score_table(flow, table())
    assert scores.quantile is None
    assert list(scores.columns()) == ["log_prob", "standard_error"]
    assert Table(scores.columns()).column("log_prob") is scores.log_prob
    exact = flow_of(table().drop(["count"]))
    assert list(score_table(exact, table()).columns()) == ["log_prob"]


def test_what_else_a_table_holds_is_of_no_matter():
    flow = flow_of(table())
    more = {name: table().column(name) for name in table().names} | {"note": np.array(["odd"] * 400)}
    assert np.array_equal(score_table(flow, more).log_prob, score_table(flow, table()).log_prob)
    with pytest.raises(DataError, match="no column 'count', 'same', 'age' in this table; it has size"):
        score_table(flow, table().select(["size"]))


@pytest.mark.parametrize("use", [lambda flow: score_table(flow, table()), lambda flow: sample_table(flow, 2)])
def test_flows_of_something_else_are_refused(use: Any):
    with pytest.raises(ConfigError, match="not fitted to a table, so it knows no columns; use log_prob"):
        use(Flow(Shift((2,)), Normal((2,))))
    images = Dequantization((1, 2, 2))
    with pytest.raises(ConfigError, match="fitted to images, not to a table; use score_images"):
        use(Flow(Shift((1, 2, 2)), Normal((1, 2, 2)), images))


def test_values_off_a_grid_score_as_the_nearest_and_are_counted():
    flow = flow_of(table())
    new = {name: table().column(name)[:3].astype(float) for name in table().names}
    exact = score_table(flow, new)
    assert exact.notes == ()
    off = new | {"count": new["count"] + [0.0, 0.3, -0.2]}
    found = score_table(flow, off)
    assert np.array_equal(found.log_prob, exact.log_prob)
    (note,) = found.notes
    assert note.startswith("column 'count': 2 of 3 rows hold values off its grid, integer (the first is ")
    assert list(found.columns()) == ["log_prob", "standard_error"]
    lost = score_table(flow, off | {"same": np.full(3, 7.2)})
    assert (lost.log_prob == -math.inf).all()
    assert any(note.startswith("3 of 3 rows score -inf: outside the support") for note in lost.notes)


def test_masses_above_one_are_said_and_not_clipped():
    encoding = Schema.infer(Table.of({"n": [0, 1, 1, 2], "same": [3, 3, 3, 3]})).encoding(
        Table.of({"n": [0, 1, 1, 2], "same": [3, 3, 3, 3]}), draws=2
    )

    class Comb(Shift):  # a density that is high where the draws lie
        def forward(self, x, context=None):
            return x, x.new_full(x.shape[:-1], 9.0)

    flow = Flow(Comb(encoding.latent_shape), Normal(encoding.latent_shape), encoding).double().eval()
    scores = score_table(flow, {"n": [1, 9], "same": [3, 3]})
    assert scores.log_prob[0] > 0
    assert scores.notes[0].startswith("1 of 2 rows score above probability 1: a mass from 2 draws is")


# -- quantiles --------------------------------------------------------------------------------------


def with_scores(log_prob: np.ndarray) -> Flow:
    flow = flow_of(table())
    flow.notes = {SCORE_QUANTILES: score_quantiles(log_prob)}
    return flow


def test_quantiles_are_the_share_of_training_rows_that_scored_lower():
    scores = score_table(flow_of(table()), table()).log_prob
    found = score_table(with_scores(scores), table()).quantile
    assert found is not None
    np.testing.assert_allclose(found, scores.argsort().argsort() / 399, atol=0.005)
    rng = np.random.default_rng(1)
    shifted = score_table(with_scores(scores[rng.permutation(400)] + 100), table()).quantile
    assert shifted is not None
    assert (shifted == 0).all()


def test_quantiles_travel_in_the_notes_of_a_file(tmp_path: Path):
    encoding = flow_of(table()).encoding
    flow = diffeo.presets.MAF(3, layers=1, hidden=(4,)).build(encoding).float()
    flow.notes = {SCORE_QUANTILES: score_quantiles(np.arange(-50.0, 0.0))}
    diffeo.save(flow, tmp_path / "model")
    one, other = (score_table(f, table()).quantile for f in (flow, diffeo.load(tmp_path / "model")))
    assert one is not None
    assert other is not None
    assert np.array_equal(one, other)


def test_quantiles_are_short_and_finite_in_a_file():
    values = np.random.default_rng(0).normal(size=5000) * 30
    values[:20], values[-20:] = -math.inf, math.inf
    quantiles = score_quantiles(values)
    text = json.dumps(quantiles, allow_nan=False)
    assert len(quantiles) == 1001
    assert quantiles == sorted(quantiles)
    assert len(text) < 12_000
    flow, scores = with_scores(values), score_table(flow_of(table()), table()).log_prob
    found = score_table(flow, table()).quantile
    assert found is not None
    np.testing.assert_allclose(found, (values < scores[:, None]).mean(1), atol=2e-3)


def test_a_score_that_many_training_rows_have_is_as_high_as_theirs():
    scores = score_table(flow_of(table()), table()).log_prob
    most = np.median(scores)
    found = score_table(with_scores(np.r_[np.full(900, scores[7]), np.full(100, scores.max())]), table())
    assert found.quantile is not None
    assert found.quantile[7] == pytest.approx(0.9, abs=0.002)
    assert found.quantile[scores < min(scores[7], most)].max(initial=0) == 0


def test_quantiles_of_nothing_are_refused():
    for values in (np.empty(0), np.array([1.0, math.nan])):
        with pytest.raises(DataError, match="must be numbers, and at least one"):
            score_quantiles(values)


@pytest.mark.parametrize(
    "noted", [[], "ab", {"a": 1}, [1.0, 0.0], [[1.0], [2.0]], [0.0, math.nan], [None, 1.0]]
)
def test_notes_that_are_no_quantiles_are_refused(noted: Any):
    flow = flow_of(table())
    flow.notes = {SCORE_QUANTILES: noted}
    with pytest.raises(ConfigError, match=r"flow.notes\['score quantiles'\] are not rising numbers; delete"):
        score_table(flow, table())


def held_out(rows: int, seed: int) -> tuple[Flow, np.ndarray]:
    """A flow that was told of so many rows of its own law, and the quantiles of new ones."""
    flow = flow_of(table())
    scores = score_table(flow, sample_table(flow, rows + 2000, seed=seed)).log_prob
    flow.notes = {HELD_OUT_SCORES: held_out_scores(scores[:rows])}
    found = score_table(flow, sample_table(flow, rows + 2000, seed=seed).rows(slice(rows, None))).quantile
    assert found is not None
    return flow, found


@pytest.mark.parametrize("rows", [1, 25, 70, 3000])
def test_of_new_rows_no_more_than_a_share_q_lies_at_or_below_q(rows: int):
    found = np.concatenate([held_out(rows, seed)[1] for seed in range(3 if rows == 3000 else 6)])
    assert found.min() >= 1 / (rows + 1)
    assert found.max() <= 1
    for q in (0.01, 0.05, 0.3):
        # a conformal p-value over the held-out rows' luck too, whose deviation is sqrt(q / rows) a draw
        assert (found <= q).mean() <= q + 3 * math.sqrt(q / (rows * 6)) * (q >= 1 / (rows + 1))


def test_quantiles_count_the_held_out_rows_that_scored_no_higher():
    flow = flow_of(table())
    scores = score_table(flow, table()).log_prob
    for kept in (scores[:50], np.r_[scores[:50], -math.inf]):
        flow.notes = {HELD_OUT_SCORES: held_out_scores(kept)}
        json.dumps(flow.notes, allow_nan=False)
        found = score_table(flow, table()).quantile
        expected = (1 + (kept <= scores[:, None] + 5e-5).sum(1)) / (len(kept) + 1)
        np.testing.assert_allclose(found, expected, atol=1e-9)
    doubled = held_out_scores(scores[:50], np.where(np.arange(50) < 25, 2.0, 1e-30))
    assert doubled["rows"] == 25
    assert set(doubled["values"]) == set(np.round(scores[:25], 4))


def test_notes_that_are_no_held_out_scores_are_refused():
    flow = flow_of(table())
    for noted in ([], {"rows": 3}, {"rows": 0, "values": [1.0]}, {"rows": 2, "values": [1.0, 0.0]}, "ab"):
        flow.notes = {HELD_OUT_SCORES: noted}
        with pytest.raises(ConfigError, match=r"notes\['held-out scores'\] .*; delete them, or fit"):
            score_table(flow, table())


# -- samples ----------------------------------------------------------------------------------------


def test_samples_have_names_types_and_supports():
    drawn = sample_table(flow_of(table()), 500, seed=1)
    assert (drawn.names, drawn.dtypes) == (table().names, table().dtypes)
    assert len(drawn) == 500
    assert (drawn.column("size") > 0).all()
    assert (drawn.column("same") == 7).all()
    assert drawn.column("count").mean() == pytest.approx(4, abs=0.5)


def test_a_seed_repeats_a_draw():
    flow = flow_of(table())
    one, again, other = (sample_table(flow, 20, seed=seed).values for seed in (1, 1, None))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert not np.array_equal(other, sample_table(flow, 20).values)


@pytest.mark.parametrize("size", [1, 4, 100])
def test_samples_follow_their_own_context_in_parts_of_any_size(size: int):
    flow = flow_of(table().select(["size", "age"]), ("age",))
    drawn = sample_table(flow, 3, given={"age": [-40.0, 40.0]}, seed=0, batch_size=size)
    assert drawn.names == ("age", "size")
    assert drawn.column("age").tolist() == [-40] * 3 + [40] * 3
    assert drawn.column("size")[:3].max() < 1e-3 < 1e3 < drawn.column("size")[3:].min()
    one = sample_table(flow, 3, given={"age": 40})
    assert (len(one), one.dtypes) == (3, ("int64", "float32"))


def test_what_cannot_be_drawn():
    flow = flow_of(table(), ("age", "same"))
    with pytest.raises(
        ContextError, match=r"conditioned on age, same; give .*given=\{'age': VALUE, \.\.\.\}"
    ) as caught:
        sample_table(flow, 3)
    assert caught.value.cure == Cure("given", {"age": "VALUE", "same": "VALUE"})
    with pytest.raises(DataError, match="no column 'age' in this table; it has same"):
        sample_table(flow, 3, given={"same": 1})
    with pytest.raises(ContextError, match="conditioned on no column"):
        sample_table(flow_of(table()), 3, given={"age": 1})
    with pytest.raises(ConfigError, match="n=0 rows"):
        sample_table(flow_of(table()), 0)
