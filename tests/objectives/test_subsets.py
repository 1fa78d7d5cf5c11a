"""Maximum likelihood of any columns given any others: which columns are modeled, given and hidden."""

from __future__ import annotations

import pytest
import torch

import diffeo
from diffeo.encodings import Cells, Levels
from diffeo.errors import ConfigError
from diffeo.objectives import AnySubset, Batch, Likelihood
from diffeo.presets import NSF, Mixed

ROWS = torch.randint(0, 3, (4000, 4), generator=torch.Generator().manual_seed(0)).double()


def a_flow() -> diffeo.Flow:
    torch.manual_seed(0)
    kinds = [Levels(name, "string", False, ("a", "b", "c")) for name in "wxyz"]
    return Mixed(4, hidden=8, known=4, dropout=0.0).build(Cells(kinds))


def batch(flow: diffeo.Flow) -> Batch:
    return Batch(ROWS, None, None, torch.arange(len(ROWS)))


def test_parts_are_drawn_in_training_and_whole_rows_kept(monkeypatch: pytest.MonkeyPatch):
    flow, seen = a_flow(), []
    monkeypatch.setattr(
        flow.base,
        "column_log_probs",
        lambda z, given=None, cut=None: seen.append((z[..., 0] < 0, given)) or z[..., 0],
    )
    torch.manual_seed(0)
    AnySubset(0.5)(flow.train(), batch(flow))
    ((hidden, given),) = seen
    assert not (hidden & given).any()
    whole = ~(hidden | given).any(-1)
    # half of the rows, and those whose parts came out empty: a given part of share u is, with (1 - u)^4
    assert 0.5 < whole.float().mean() < 0.65
    rest = ~whole
    assert 0.3 < given[rest].float().mean() < 0.7
    assert 0.05 < hidden[rest].float().mean() < 0.4
    assert given[rest].any(0).all()
    assert hidden[rest].any(0).all()


def test_in_evaluation_it_is_the_likelihood_of_whole_rows():
    flow = a_flow().eval()
    assert AnySubset()(flow, batch(flow)).item() == Likelihood()(flow, batch(flow)).item()


def test_the_untrained_law_of_a_part_costs_as_much_as_its_columns():
    flow = a_flow()  # each level 1/3, whatever is given
    torch.manual_seed(1)
    loss = AnySubset(0.0)(flow.train(), batch(flow)).item()
    whole = AnySubset(1.0)(flow.train(), batch(flow)).item()
    assert whole == pytest.approx(4 * torch.tensor(3.0).log().item(), abs=1e-5)
    assert loss < 0.7 * whole


def test_other_flows_and_shares_are_refused():
    with pytest.raises(ConfigError, match="flows of mixed rows"):
        AnySubset()(NSF(4).build().train(), batch(a_flow()))
    with pytest.raises(ConfigError, match="a share from 0 to 1"):
        AnySubset(1.5)
