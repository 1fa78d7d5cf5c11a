"""The autoregressive inverse in one pass's work, against D full passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffeo.bijections import Autoregressive
from diffeo.elementwise import (
    Additive,
    Affine,
    CircularRationalQuadratic,
    IntervalRationalQuadratic,
    PiecewiseLinear,
    PiecewiseQuadratic,
    RationalQuadratic,
)
from diffeo.nets import MADE, FullPasses, ResMADE
from diffeo.nets.masked import MaskedLinear, degrees
from diffeo.testing import randomize_
from diffeo.testing.points import draw, generator

FAMILIES = [
    Additive(),
    Affine(),
    CircularRationalQuadratic(3),
    IntervalRationalQuadratic(3),
    PiecewiseLinear(4),
    PiecewiseQuadratic(3),
    RationalQuadratic(4),
]
FULL = torch.float64
kinds = pytest.mark.parametrize("kind", [MADE, ResMADE])


def net(kind: Any, features: int, params: int, hidden: int, context: int) -> Any:
    widths = (hidden, hidden + 1) if kind is MADE else hidden
    torch.manual_seed(0)
    return randomize_(kind(features, params, widths, context_features=context).double(), seed=features)


def by_full_passes(layer: Autoregressive, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """The inverse again, written down plainly."""
    y = y[..., layer.order]
    step, previous = FullPasses(layer.net, context, y.shape[:-1]), None
    columns, log_slopes = [], []
    for column in y.unbind(-1):
        previous, log_slope = layer.family.inverse(column, step(previous))
        columns.append(previous)
        log_slopes.append(log_slope)
    return torch.stack(columns, -1)[..., layer.back], sum(log_slopes)


@kinds
@settings(max_examples=25)
@given(
    features=st.integers(1, 6),
    hidden=st.integers(1, 9),
    context=st.integers(0, 2),
    batch=st.lists(st.integers(0, 3), max_size=2),
    family=st.sampled_from(FAMILIES),
    data=st.data(),
)
def test_stepper_is_full_passes(
    kind: Any, features: int, hidden: int, context: int, batch: list[int], family: Any, data: Any
):
    order = data.draw(st.permutations(range(features)))
    layer = Autoregressive(net(kind, features, family.num_params, hidden, context), family, order)
    y = draw(family.codomain, (*batch, features), generator(1), FULL).requires_grad_()
    c = draw(None, (*batch, context), generator(2), FULL).requires_grad_() if context else None
    inputs = [y, *layer.parameters(), *([] if c is None else [c])]
    answers = []
    for x, log_det in (layer.inverse(y, c), by_full_passes(layer, y, c)):
        weights = torch.randn(x.shape, generator=generator(3), dtype=FULL)
        total = (x * weights).sum() + 0.3 * log_det.sum()
        slopes = torch.autograd.grad(total, inputs, allow_unused=True)
        slopes = [torch.zeros_like(t) if g is None else g for t, g in zip(inputs, slopes, strict=True)]
        answers.append([x, log_det, *slopes])
    for found, wanted in zip(*answers, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)


def multiplications(step: Callable[[Tensor | None], Tensor], features: int, rows: int) -> int:
    """Those of all steps together, a row."""
    with FlopCounterMode(display=False) as counter:
        step(None)
        for _ in range(features - 1):
            step(torch.zeros(rows, dtype=FULL))
    return counter.get_total_flops() // 2 // rows


@kinds
@pytest.mark.parametrize("features", [1, 5, 8])
def test_all_steps_multiply_as_often_as_one_masked_pass(kind: Any, features: int):
    masked = net(kind, features, 3, 20, 0)
    layers = [part for part in masked.modules() if isinstance(part, MaskedLinear)]
    stepper, plain = masked.stepper(None, torch.Size([7])), FullPasses(masked, None, torch.Size([7]))
    assert multiplications(stepper, features, 7) == sum(int(layer.mask.sum()) for layer in layers)
    assert multiplications(plain, features, 7) == features * sum(layer.weight.numel() for layer in layers)


@kinds
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]], ids=str)
def test_gradient_of_the_inverse_is_the_inverse_of_the_gradient(kind: Any, family: Any, order: list[int]):
    layer = Autoregressive(net(kind, 4, family.num_params, 7, 2), family, order)
    x = draw(family.domain, (1, 4), generator(4), FULL)
    c = torch.randn(1, 2, generator=generator(5), dtype=FULL)
    y = layer(x, c)[0].detach()
    there = torch.autograd.functional.jacobian(lambda t: layer(t, c)[0], x).reshape(4, 4)
    back = torch.autograd.functional.jacobian(lambda t: layer.inverse(t, c)[0], y).reshape(4, 4)
    torch.testing.assert_close(back @ there, torch.eye(4, dtype=FULL), rtol=0, atol=1e-7)


@kinds
@pytest.mark.parametrize("features", [1, 2, 5, 8])
@pytest.mark.parametrize("hidden", [1, 3, 8, 20])
@pytest.mark.parametrize("context", [0, 2])
def test_parameters_see_earlier_columns_only(kind: Any, features: int, hidden: int, context: int):
    masked = net(kind, features, 3, hidden, context)
    x = torch.randn(2, features, generator=generator(0), dtype=FULL)
    c = torch.randn(2, context, generator=generator(1), dtype=FULL) if context else None
    for i in range(features):
        moved = x.clone()
        moved[:, i:] += 1e3 * torch.randn(2, features - i, generator=generator(i), dtype=FULL)
        assert torch.equal(masked(moved, c)[:, : i + 1], masked(x, c)[:, : i + 1])


@kinds
@pytest.mark.parametrize("context", [0, 2])
def test_parameters_see_every_earlier_column(kind: Any, context: int):
    masked = net(kind, 5, 3, 32, context)
    x = torch.randn(16, 5, generator=generator(0), dtype=FULL, requires_grad=True)
    c = torch.randn(16, context, generator=generator(1), dtype=FULL, requires_grad=True) if context else None
    for i in range(5):
        total = masked(x, c)[:, i].square().sum()
        slopes = torch.autograd.grad(total, [x] if c is None else [x, c], allow_unused=True)
        assert (slopes[0].abs().sum(0) > 0).tolist() == [j < i for j in range(5)]
        assert c is None or (slopes[1].abs().sum(0) > 0).all()


def test_dropout_is_off_in_evaluation():
    masked = randomize_(ResMADE(4, 2, 16, 2, dropout=0.5).double()).eval()
    layer = Autoregressive(masked, Affine())
    x = torch.randn(3, 4, generator=generator(0), dtype=FULL)
    torch.testing.assert_close(layer.inverse(layer(x)[0])[0], x)


@kinds
def test_cuts_count_degrees(kind: Any):
    for features in (1, 2, 3, 7):
        for units in (1, 2, 5, 20):
            for context in (0, 1):
                own = degrees(units, features, context)
                wanted = [int((own < d).sum()) for d in range(features + 1)]
                assert net(kind, features, 1, 4, context)._cuts(units) == wanted
