"""Chains' diagnostics against ArviZ and against chains that are known to be bad; draws as ArviZ has them."""

from __future__ import annotations

import math
import os
import sys

import numpy as np
import pytest
import torch
import xarray
from arviz_stats.sampling_diagnostics import ess, rhat
from torch import Generator, Tensor

from diffeo.errors import ConfigError, ShapeError
from diffeo.inference import Chains, Importance, save_netcdf, to_datatree
from diffeo.targets import Constrained, Evaluator, FromTorch, Parameters, Positive, Real

PLAIN = FromTorch(lambda x: -x.square().sum(-1))


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=Generator().manual_seed(0))


def chains(x: Tensor, divergent: Tensor | None = None) -> Chains:
    return Chains(x, -x.square().sum(-1), torch.ones(len(x)), divergent=divergent)


class Named(Parameters):
    """A scale and a vector, on the user's scale."""

    def log_prob(self, x: Tensor) -> Tensor:
        return -x.square().sum(-1)

    def named(self, u: Tensor) -> dict[str, np.ndarray]:
        return {"sigma": u[:, 0].exp().numpy(), "beta": u[:, 1:].numpy()}


def test_numbers_are_arviz():
    x = normal(4, 300, 2).cumsum(1) * 0.1 + normal(4, 300, 2)
    found = chains(x)
    tree = found.to_datatree(PLAIN)
    np.testing.assert_allclose(found.ess, ess(tree)["x"], rtol=1e-9)
    np.testing.assert_allclose(found.rhat, rhat(tree)["x"], rtol=1e-9)
    assert found.min_ess == float(found.ess.min())
    assert found.max_rhat == float(found.rhat.max())


def test_good_chains_leave_no_doubt():
    found = chains(normal(4, 1000, 2))
    assert found.doubts == ()
    assert (found.ess > 3500).all()
    assert found.flat().shape == (4000, 2)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (normal(4, 500, 2) + torch.arange(4.0)[:, None, None], "R-hat"),
        (normal(4, 50, 2), "effective draws"),
        (torch.zeros(4, 500, 2), "R-hat is nan"),
        (normal(4, 3, 2), "R-hat is nan"),
    ],
)
def test_bad_chains_are_said_so(x, says):
    assert any(says in doubt for doubt in chains(x).doubts)


def test_divergences_are_counted_and_told():
    divergent = torch.zeros(4, 1000, dtype=torch.bool)
    divergent[1, 5] = True
    found = chains(normal(4, 1000, 2), divergent=divergent)
    assert found.divergences == 1
    assert "1 of 4000" in found.doubts[0]
    assert found.to_datatree(PLAIN)["sample_stats"]["diverging"].values.sum() == 1


def test_draws_have_the_names_of_the_target():
    x = normal(4, 100, 3)
    tree = chains(x).to_datatree(Evaluator(Named()))
    posterior = tree["posterior"]
    assert set(posterior.data_vars) == {"sigma", "beta"}
    np.testing.assert_array_equal(posterior["sigma"].values, x[..., 0].exp())
    np.testing.assert_array_equal(posterior["beta"].values, x[..., 1:])
    np.testing.assert_array_equal(tree["sample_stats"]["lp"].values, -x.square().sum(-1))


def test_weighted_rows_are_a_proposal_and_the_posterior_is_resampled():
    x, log_weights = normal(100, 3), normal(100).double()
    log_weights[:50] = -math.inf
    tree = to_datatree(Named(), Importance(x, log_weights))
    assert dict(tree["posterior"].sizes) == {"chain": 1, "draw": 100, "beta_dim_0": 2}
    np.testing.assert_array_equal(tree["proposal"]["log_weight"].values[0], log_weights)
    np.testing.assert_array_equal(tree["proposal"]["sigma"].values[0], x[:, 0].exp())
    assert np.isin(tree["posterior"]["sigma"].values, x[50:, 0].exp()).all()
    assert "sample_stats" not in to_datatree(PLAIN, x)


def test_names_that_arviz_needs_itself_are_not_lost():
    target = Constrained(PLAIN, {"draw": Positive(), "chain": Real(), "a/b": Real()})
    assert set(to_datatree(target, normal(5, 3))["posterior"].data_vars) == {"draw_", "chain_", "a_b"}


def test_files_are_read_back_and_replaced_whole(tmp_path, monkeypatch):
    path, tree = tmp_path / "draws.nc", chains(normal(4, 100, 2)).to_datatree(PLAIN)
    path.write_bytes(b"old")
    save_netcdf(tree, path)
    with xarray.open_datatree(path) as back:
        np.testing.assert_array_equal(back["posterior"]["x"], tree["posterior"]["x"])
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk"):
        save_netcdf(tree, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["draws.nc"]


def test_shapes_that_do_not_fit():
    with pytest.raises(ShapeError, match="chains are draws"):
        Chains(normal(4, 5), normal(4), torch.ones(4))
    with pytest.raises(ShapeError, match="lp has shape"):
        to_datatree(PLAIN, normal(5, 2), log_prob=normal(4))
    with pytest.raises(ShapeError, match="draws are rows"):
        to_datatree(PLAIN, normal(5))


def test_without_arviz_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    with pytest.raises(ConfigError, match=r"diffeo\[inference\]"):
        to_datatree(PLAIN, normal(5, 2))
    assert math.isnan(float(chains(normal(4, 3, 2)).ess[0]))
