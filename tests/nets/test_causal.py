"""Masked convolutions and causal transformers: what ``AutoregressiveTokens`` asks of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffeo.errors import ConfigError, ShapeError
from diffeo.functional import matmul_precision
from diffeo.nets import CausalTransformer, MaskedConvNet
from diffeo.testing import randomize_
from diffeo.testing.points import generator

FULL = torch.float64


@dataclass(frozen=True)
class Kind:
    """A net, small sizes for it, and which of the earlier tokens it must see.

    Args:
        net: the class.
        sizes: its arguments, of some tokens.
        shape: tokens and numbers of each, from such arguments.
        near: tokens that the parameters of token t must see, for ``sizes``.
        varied: arguments to try the stepper with, beside the context's shape.
    """

    net: type
    sizes: dict[str, Any]
    shape: Callable[[dict[str, Any]], tuple[int, int]]
    near: Callable[[int], list[int]]
    varied: st.SearchStrategy[dict[str, Any]]

    def make(self, **options: Any) -> Any:
        torch.manual_seed(0)
        return randomize_(self.net(**(self.sizes | options)).double())

    def points(self, *batch: int, **options: Any) -> Tensor:
        return 0.4 * normal(*batch, *self.shape(self.sizes | options))


KINDS = {
    "MaskedConvNet": Kind(
        MaskedConvNet,
        {"height": 3, "width": 4, "params": 3, "hidden": 8, "blocks": 2, "kernel": 3},
        lambda sizes: (sizes["height"] * sizes["width"], 1),
        lambda t: [s for s in (t - 4, t - 1) if s >= 0 and (s == t - 4 or t % 4)],  # above, at the left
        st.fixed_dictionaries(
            {
                "height": st.integers(1, 4),
                "width": st.integers(1, 5),
                "blocks": st.integers(0, 4),
                "kernel": st.sampled_from([1, 3, 5]),
                "levels": st.sampled_from([0, 5]),
            }
        ),
    ),
    "CausalTransformer": Kind(
        CausalTransformer,
        {"length": 5, "width": 2, "params": 3, "hidden": 8, "layers": 2, "heads": 2},
        lambda sizes: (sizes["length"], sizes["width"]),
        lambda t: list(range(t)),
        st.fixed_dictionaries(
            {"length": st.integers(1, 6), "width": st.integers(1, 3), "layers": st.integers(0, 3)}
        ),
    ),
}
kinds = pytest.mark.parametrize("name", KINDS)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=FULL)


@kinds
@pytest.mark.parametrize("shape", [None, (2,), (1, 2, 2)])
def test_parameters_see_earlier_tokens_only(name: str, shape: Any):
    kind = KINDS[name]
    net, x = kind.make(context_shape=shape), kind.points(4).requires_grad_()
    context = None if shape is None else normal(4, *shape, seed=1).requires_grad_()
    for t in range(x.shape[1]):
        total = net(x, context)[:, t].square().sum()
        slope = torch.autograd.grad(total, x, retain_graph=True, allow_unused=True)[0]
        seen = (slope.abs().sum((0, 2)) > 0).tolist()
        assert not any(seen[t:])
        assert all(seen[s] for s in kind.near(t))
        if context is not None:
            felt = torch.autograd.grad(total, context)[0] != 0
            assert felt.all() if name == "CausalTransformer" else felt.any()  # an image's only near it


@settings(max_examples=25)
@given(
    data=st.data(),
    shape=st.sampled_from([None, (2,), (1, 2, 1)]),
    batch=st.lists(st.integers(0, 3), max_size=2),
    recording=st.booleans(),
)
@kinds
def test_stepper_is_the_pass(name: str, data: Any, shape: Any, batch: list[int], recording: bool):
    kind = KINDS[name]
    options = data.draw(kind.varied)
    net, x = kind.make(**options, context_shape=shape), kind.points(*batch, **options)
    context = None if shape is None else normal(*batch, *shape, seed=1)
    with torch.set_grad_enabled(recording):
        step = net.stepper(context, torch.Size(batch))
        steps = [step(None if t == 0 else x[..., t - 1, :]) for t in range(x.shape[-2])]
        torch.testing.assert_close(torch.stack(steps, -3), net(x, context), rtol=1e-11, atol=1e-12)


@kinds
def test_two_steppers_do_not_meet(name: str):
    net, x = KINDS[name].make(), KINDS[name].points(1)
    with torch.no_grad():
        first, second = (net.stepper(None, torch.Size([1])) for _ in range(2))
        wanted = net(x)
        for t in range(x.shape[1]):
            previous = None if t == 0 else x[:, t - 1]
            torch.testing.assert_close(first(previous), wanted[:, t])
            second(None if previous is None else -previous)


@kinds
def test_it_starts_at_zero(name: str):
    kind = KINDS[name]
    assert (kind.net(**kind.sizes)(kind.points(2).float()) == 0).all()


@kinds
def test_bfloat16_products(name: str):
    kind = KINDS[name]
    net, x = kind.make(hidden=32).float(), kind.points(4).float()
    wanted = net(x)
    with matmul_precision.matmul_dtype(torch.bfloat16):
        found = matmul_precision.run_net(net, x, None)
    assert found.dtype == torch.float32
    assert 0 < (found - wanted).abs().max() < 0.1 * wanted.abs().max()


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        *((name, {size: 0}, f"{size} must be at least 1") for name in KINDS for size in ("params", "hidden")),
        *(("MaskedConvNet", {size: 0}, f"{size} must be at least 1") for size in ("height", "width")),
        ("MaskedConvNet", {"kernel": 0}, "kernel must be at least 1"),
        ("MaskedConvNet", {"kernel": 4}, "kernel must be odd"),
        *(("CausalTransformer", {size: 0}, f"{size} must be at least 1") for size in ("length", "width")),
        ("CausalTransformer", {"heads": 0}, "heads must be at least 1"),
        ("CausalTransformer", {"hidden": 9, "heads": 2}, "hidden must be a multiple of heads"),
    ],
)
def test_sizes_that_cannot_be(name: str, options: dict[str, int], says: str):
    with pytest.raises(ConfigError, match=says):
        KINDS[name].make(**options)


@kinds
def test_contexts_that_cannot_be(name: str):
    kind = KINDS[name]
    with pytest.raises(ShapeError, match="needs a context"):
        kind.make(context_shape=(2,))(kind.points(1))
