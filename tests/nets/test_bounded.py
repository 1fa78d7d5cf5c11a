"""What nets see: within their reach everything, bit for bit, and beyond it nothing more."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffeo.bijections import Autoregressive, AutoregressiveTokens, Coupling
from diffeo.elementwise import Affine
from diffeo.errors import ConfigError
from diffeo.functional import native
from diffeo.nets import (
    MADE,
    MLP,
    Bounded,
    CausalTransformer,
    ConvNet,
    MaskedConvNet,
    ResidualConvNet,
    ResidualMLP,
    ResMADE,
    VisionTransformer,
)
from diffeo.testing import randomize_

REACH = 2.0
VECTOR, IMAGE = (2,), (1, 3, 2)
NETS: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...]]] = {
    "MLP": (lambda r: MLP(3, 2, (8,), context_features=2, reach=r), (3,), VECTOR),
    "ResidualMLP": (lambda r: ResidualMLP(3, 2, 8, 1, context_features=2, reach=r), (3,), VECTOR),
    "MADE": (lambda r: MADE(3, 2, (8,), context_features=2, reach=r), (3,), VECTOR),
    "ResMADE": (lambda r: ResMADE(3, 2, 8, 1, context_features=2, reach=r), (3,), VECTOR),
    "ConvNet": (lambda r: ConvNet((2, 3, 2), 2, 8, context_shape=IMAGE, reach=r), (2, 3, 2), IMAGE),
    "ConvNet, no context": (lambda r: ConvNet((2, 3, 2), 2, 8, reach=r), (2, 3, 2), ()),
    "ResidualConvNet": (
        lambda r: ResidualConvNet((2, 3, 2), 2, 8, 1, context_shape=VECTOR, reach=r),
        (2, 3, 2),
        VECTOR,
    ),
    "MaskedConvNet": (
        lambda r: MaskedConvNet(2, 2, 2, 8, 1, 3, context_shape=VECTOR, reach=r),
        (4, 1),
        VECTOR,
    ),
    "CausalTransformer": (
        lambda r: CausalTransformer(3, 2, 2, 8, 1, 2, context_shape=VECTOR, reach=r),
        (3, 2),
        VECTOR,
    ),
    "VisionTransformer": (
        lambda r: VisionTransformer((2, 3, 2), (2, 3, 2), 8, 1, 2, context_shape=VECTOR, reach=r),
        (2, 3, 2),
        VECTOR,
    ),
}


def inputs(shape: tuple[int, ...], context: tuple[int, ...], scale: float = 1.0) -> tuple[Tensor, Any]:
    g = torch.Generator().manual_seed(0)
    x = scale * torch.randn(6, *shape, generator=g)
    return x, scale * torch.randn(6, *context, generator=g) if context else None


@pytest.mark.parametrize("name", NETS)
def test_a_net_sees_its_input_within_its_reach(name: str):
    make, shape, context_shape = NETS[name]
    torch.manual_seed(0)
    net = randomize_(make(REACH))
    free = make(math.inf)
    free.load_state_dict(net.state_dict() | {"reach": torch.tensor(math.inf)})
    x, context = inputs(shape, context_shape, 3.0)
    assert (x.abs() > REACH).any()
    cut = x.clamp(-REACH, REACH)
    given = None if context is None else context.clamp(-REACH, REACH)
    with torch.no_grad():
        assert torch.equal(net(x, context), free(cut, given))
        assert torch.equal(net(cut, given), free(cut, given))
        assert not torch.equal(free(x, context), free(cut, given))
        for size in (1e10, 3e38, math.inf):
            far = net(size * x.sign(), None if context is None else size * context.sign())
            assert torch.equal(
                far, free(REACH * x.sign(), None if context is None else REACH * context.sign())
            )
    x.requires_grad_()
    (slope,) = torch.autograd.grad(net(x, context).sum(), x)
    assert (slope[x.abs() > REACH] == 0).all()
    assert slope[x.abs() < REACH].any()
    lost = x.detach().clone()
    lost[0] = math.nan
    assert net(lost, context)[0].isnan().any()


@pytest.mark.parametrize("name", ["MADE", "ResMADE", "CausalTransformer", "MaskedConvNet"])
def test_steps_see_what_a_pass_sees(name: str):
    make, shape, context_shape = NETS[name]
    torch.manual_seed(0)
    net = randomize_(make(REACH)).double()
    x, context = (t.double() for t in inputs(shape, context_shape, 30.0))
    kind: Any = Autoregressive if len(shape) == 1 else AutoregressiveTokens
    layer = kind(net, Affine(max_scale=3.0))
    with torch.no_grad():
        y, log_det = layer(x, context)
        back, log_det_back = layer.inverse(y, context)
    torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(native.native is None, reason="built without kernels")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_kernels_see_the_same(masked: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    net = ResMADE(5, 2, 16, 1, reach=REACH) if masked else ResidualMLP(2, 6, 16, 1, reach=REACH)
    passing = [True, False, True, False, False]
    layer: Any = Autoregressive(net, Affine()) if masked else Coupling(passing, net, Affine())  # type: ignore[arg-type]
    randomize_(layer, 0).to(dtype)
    x = 3 * torch.randn(70, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    x[0, 0], x[1, 1], x[2, 2], x[3] = REACH, -REACH, math.nan, 1e30
    good = torch.arange(len(x)) > 3

    def answers() -> list[Tensor]:
        point = x[good].requires_grad_()
        y, log_det = layer(point)
        total = (y * torch.linspace(-1, 1, 5, dtype=dtype)).sum() + log_det.sum()
        slopes = torch.autograd.grad(total, [point, *layer.parameters()])
        with torch.no_grad():
            assert layer(x)[0][2].isnan().any()
            return [y, log_det, *slopes, *layer.inverse(x[good]), *layer(x[3]), *layer.inverse(x[3])]

    found = answers()
    monkeypatch.setattr(native, "native", None)
    eps = 1e-11 if dtype is torch.float64 else 2e-4
    for a, b in zip(found, answers(), strict=True):
        torch.testing.assert_close(a, b, rtol=eps, atol=eps * float(b.detach().abs().max().clamp(1, 1e3)))


@pytest.mark.parametrize("reach", [0.0, -1.0, math.nan])
def test_a_reach_is_above_zero(reach: float):
    with pytest.raises(ConfigError, match="reach must be above 0, or inf"):
        MLP(1, 1, reach=reach)


def test_a_net_of_ones_own_is_bounded_too():
    assert all(float(net.reach) == 1e4 for net in (MLP(1, 1), MADE(2, 2), ConvNet((1, 2, 2), 2, 4)))
    assert issubclass(MLP, Bounded)
