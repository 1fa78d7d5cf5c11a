"""RevNet's block: its formula, its exact inverse, one call of the kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffeo.bijections import AdditiveResidual, Chain, Permute
from diffeo.errors import ConfigError, ShapeError
from diffeo.functional import native
from diffeo.nets import MLP, ResidualMLP

MASK = [True, False, False, True, False]


def block(context: int = 0, dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    layer = AdditiveResidual(
        MASK,
        MLP(3, 2, (8,), context_features=context),
        ResidualMLP(2, 3, 8, 1, context_features=context),
    )
    for p in layer.parameters():
        nn.init.normal_(p, std=0.4)
    return layer.to(dtype)


@pytest.mark.parametrize("context", [0, 2])
def test_it_is_its_formula(context: int):
    layer = block(context)
    x = torch.randn(6, 5, dtype=torch.float64)
    c = torch.randn(6, 2, dtype=torch.float64) if context else None
    first, second = (part.net for part in layer.pair)
    one, two = torch.tensor(MASK), ~torch.tensor(MASK)
    wanted = torch.empty_like(x)
    wanted[:, one] = x[:, one] + first(x[:, two], c)
    wanted[:, two] = x[:, two] + second(wanted[:, one], c)
    y, log_det = layer(x, c)
    assert torch.allclose(y, wanted)
    assert log_det.tolist() == [0.0] * 6
    assert layer.context_shape == ((2,) if context else None)
    jacobian = torch.func.jacrev(lambda t: layer(t, None if c is None else c[0])[0])(x[0])
    assert torch.linalg.slogdet(jacobian)[1].abs() < 1e-9
    assert (y != x).all()  # every column moves in one layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("batch", [(), (0,), (7,), (2, 3)], ids=str)
def test_the_inverse_subtracts(batch: tuple[int, ...], dtype: torch.dtype):
    layer = block(dtype=dtype)
    x = torch.randn(*batch, 5, dtype=dtype)
    y, log_det = layer(x)
    back, log_det_back = layer.inverse(y)
    assert torch.allclose(back, x, atol=200 * torch.finfo(dtype).eps)
    assert log_det.shape == log_det_back.shape == batch
    assert (log_det_back == 0).all()


def test_a_million_in_float32():
    layer = block(dtype=torch.float32)
    x = 1e6 * torch.randn(50, 5).sign()
    y, _ = layer(x)
    size = x.abs().max() + y.abs().max()
    assert ((layer.inverse(y)[0] - x).abs() <= 64 * torch.finfo(torch.float32).eps * size).all()


@pytest.mark.skipif(not native.usable(), reason="no compiled kernels")
def test_the_kernels_take_it_as_two_stages():
    layer = block()
    stages = layer.as_stages()
    assert stages is not None
    assert len(stages) == 2
    chain = Chain([layer, Permute([4, 3, 2, 1, 0])])
    assert chain.as_stages() is not None

    def by_stages(x: Tensor) -> Tensor:
        for stage in stages:
            x = stage.plain(x, stage.records, 0)[0]
        return x

    x = torch.randn(6, 5, dtype=torch.float64)
    assert torch.allclose(by_stages(x), layer(x)[0])


def test_arguments_that_cannot_be():
    for mask in ([True, True], [False], [False, False, False]):
        with pytest.raises(ConfigError, match="one half"):
            AdditiveResidual(mask, MLP(1, 1), MLP(1, 1))
    with pytest.raises(ShapeError, match="in_features=2, out_features=1"):
        AdditiveResidual([True, False, False], MLP(1, 2), MLP(1, 2))
