"""One family per column, in every layer that takes a family."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from diffeo.bijections import Autoregressive, Chain, Coupling, Pointwise, Probit
from diffeo.elementwise import (
    Additive,
    Affine,
    CircularRationalQuadratic,
    IntervalRationalQuadratic,
    Mixed,
    RationalQuadratic,
)
from diffeo.errors import ConfigError, DomainError, ShapeError
from diffeo.functional.domains import bounds
from diffeo.nets import MADE, MLP
from diffeo.testing import check_bijection

FAMILIES = (Affine(), CircularRationalQuadratic(4), RationalQuadratic(4), Affine())
MIXED = Mixed(FAMILIES)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Weighted(nn.Module, Additive):
    """A family that is a module."""


def test_each_column_goes_through_its_own_family():
    x, params = torch.randn(7, 4), torch.randn(7, 4, MIXED.num_params)
    for mixed, single in ((MIXED.forward, "forward"), (MIXED.inverse, "inverse")):
        value, log_slope = mixed(x, params)
        for i, family in enumerate(FAMILIES):
            wanted = getattr(family, single)(x[:, i], params[:, i, : family.num_params])
            assert torch.equal(value[:, i], wanted[0])
            assert torch.equal(log_slope[:, i], wanted[1])


def test_one_call_for_each_distinct_family(monkeypatch: pytest.MonkeyPatch):
    calls = []
    forward = Affine.forward
    monkeypatch.setattr(Affine, "forward", lambda *args: calls.append(args[1].shape) or forward(*args))
    Mixed([Affine(), Additive(), Affine(), Affine()]).forward(torch.randn(5, 4), torch.randn(5, 4, 2))
    assert calls == [(5, 3)]


def test_what_it_declares():
    assert MIXED.num_params == 12
    assert MIXED.scale == math.pi
    low, high = bounds(MIXED.domain)
    assert torch.equal(low, torch.tensor([-math.inf, -math.pi, -math.inf, -math.inf], dtype=torch.float64))
    assert torch.equal(high, -low)
    assert bounds(Mixed([Affine(), Additive()]).domain) == (-math.inf, math.inf)
    assert Mixed(FAMILIES) == MIXED
    assert hash(Mixed(FAMILIES)) == hash(MIXED)


@pytest.mark.parametrize(
    "layer",
    [
        lambda m: Pointwise(m, (4,)),
        lambda m: Autoregressive(MADE(4, m.num_params, (8,)), m),
        lambda m: Autoregressive(MADE(4, m.num_params, (8,), context_features=2), m, [3, 1, 0, 2]),
        lambda m: Coupling([True, False, False, True], MLP(2, 2 * m.num_params, (8,)), m),
        lambda m: Coupling([False, True, True, False], MLP(2, 2 * m.num_params, (8,)), m),
    ],
    ids=["pointwise", "autoregressive", "order", "coupling", "passing angle"],
)
def test_layers_keep_the_contract(layer):
    check_bijection(layer(MIXED), capture=False)
    bounded = Mixed([IntervalRationalQuadratic(4, -1.0, 2.0), *[CircularRationalQuadratic(4)] * 2, Affine()])
    check_bijection(layer(bounded), capture=False)


def test_outside_is_told_by_column():
    layer = Autoregressive(MADE(4, MIXED.num_params, (8,)), MIXED, [1, 0, 2, 3])
    x = torch.tensor([[5.0, 3.0, 5.0, 5.0], [0.0, 4.0, 0.0, 0.0]], requires_grad=True)
    z, log_det = layer(x)
    assert log_det.isfinite().tolist() == [True, False]
    assert z.isfinite().all()
    (slope,) = torch.autograd.grad(z.sum() + log_det.sum(), x)
    assert slope[1, 1] == 0


def test_pi_itself_is_inside_in_single_precision():
    x = torch.tensor([[0.0, math.pi, 0.0, 0.0], [0.0, -math.pi, 0.0, 0.0]])
    coupling = Coupling([False, True, True, True], MLP(3, MIXED.num_params, (8,)), MIXED)
    assert coupling(x)[1].isfinite().all()


def test_chains_compare_columns():
    Chain([Pointwise(MIXED, (4,)), Pointwise(Mixed(FAMILIES), (4,))])
    with pytest.raises(DomainError, match=r"the whole line in column 0, \(-3.14159, 3.14159\) in column 1"):
        Chain([Pointwise(MIXED, (4,)), Probit((4,))])


def test_errors_name_the_cure():
    with pytest.raises(ConfigError, match="at least one"):
        Mixed([])

    with pytest.raises(ConfigError, match="weights of its own"):
        Mixed([Affine(), Weighted()])
    with pytest.raises(ShapeError, match="4 columns, but the layer has 3"):
        Pointwise(MIXED, (3,))
    with pytest.raises(ShapeError, match="4 columns, but the layer has 5"):
        Autoregressive(MADE(5, MIXED.num_params), MIXED)
    with pytest.raises(ShapeError, match="4 columns, but the layer has 2"):
        Coupling([True, False], MLP(1, MIXED.num_params), MIXED)
    with pytest.raises(ShapeError, match="families for 4 columns"):
        MIXED.forward(torch.zeros(3), torch.zeros(3, 12))
