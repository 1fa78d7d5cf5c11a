"""Transformers: attention against PyTorch's, long steppers, pixels that see each other, checkpoints."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo.errors import ShapeError
from diffeo.functional import attention as attention_file
from diffeo.functional.attention import LONG, attention
from diffeo.nets import CausalTransformer, VisionTransformer
from diffeo.testing import randomize_
from diffeo.testing.points import generator

FULL = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=FULL)


def causal(length: int = 5, width: int = 2, params: int = 3, **options: Any) -> CausalTransformer:
    torch.manual_seed(0)
    sizes = {"hidden": 8, "layers": 2, "heads": 2}
    return randomize_(CausalTransformer(length, width, params, **(sizes | options)).double())


# -- attention ------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("tokens", [1, 7, LONG + 3])
def test_attention_is_pytorchs(tokens: int, causal: bool):
    q, k, v = (normal(2, 3, tokens, 4, seed=i).requires_grad_() for i in range(3))
    answers = []
    for function in (attention, F.scaled_dot_product_attention):
        a = function(q, k, v, **{"causal" if function is attention else "is_causal": causal})
        answers.append([a, *torch.autograd.grad((a * normal(*a.shape, seed=3)).sum(), (q, k, v))])
    for found, wanted in zip(*answers, strict=True):
        torch.testing.assert_close(found, wanted)


def test_one_query_sees_every_key():
    q, k, v = normal(2, 1, 4), normal(2, 6, 4, seed=1), normal(2, 6, 4, seed=2)
    weights = torch.einsum("nqd,nkd->nqk", q, k).div(2).softmax(-1)
    torch.testing.assert_close(attention(q, k, v), torch.einsum("nqk,nkd->nqd", weights, v))


def test_short_sequences_have_second_derivatives():
    q, k, v = (normal(1, 4, 2, seed=i).requires_grad_() for i in range(3))
    assert torch.autograd.gradgradcheck(lambda *t: attention(*t, causal=True), (q, k, v))


# -- causal ---------------------------------------------------------------------------------------


def test_positions_matter():
    net, x = causal(), normal(1, 1, 2).expand(1, 5, 2)
    params = net(x)[0]
    assert all((params[t] - params[s]).abs().max() > 1e-3 for t in range(5) for s in range(t))


def test_a_long_stepper_is_the_pass():
    """Where the pass goes by PyTorch's fused attention."""
    net = causal(LONG + 2, layers=1)
    x = normal(2, LONG + 2, 2)
    with torch.no_grad():
        step = net.stepper(None, torch.Size([2]))
        steps = [step(None if t == 0 else x[:, t - 1]) for t in range(LONG + 2)]
        torch.testing.assert_close(torch.stack(steps, 1), net(x))


def test_short_and_fused_attention_give_one_net(monkeypatch: pytest.MonkeyPatch):
    net, x = causal(20), normal(3, 20, 2)
    wanted = net(x)
    monkeypatch.setattr(attention_file, "LONG", 2)
    torch.testing.assert_close(net(x), wanted)


# -- vision ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [None, (2,), (1, 2, 2)])
def test_every_pixel_sees_every_pixel(shape: Any):
    net = randomize_(VisionTransformer((2, 2, 3), (4, 2, 3), 8, 1, 2, context_shape=shape).double())
    x = normal(2, 3, 2, 2, 3).requires_grad_()
    context = None if shape is None else normal(2, 3, *shape, seed=1)
    y = net(x, context)
    assert y.shape == (2, 3, 4, 2, 3)
    for place in ((0, 0), (1, 2)):
        (slope,) = torch.autograd.grad(y[(..., *place)].square().sum(), x, retain_graph=True)
        assert (slope != 0).all()


def test_pixels_keep_their_places():
    """Without attention a pixel's parameters come from that pixel."""
    net = randomize_(VisionTransformer((2, 2, 3), (4, 2, 3), 8, 0, 2).double())
    x = normal(2, 2, 3).requires_grad_()
    (slope,) = torch.autograd.grad(net(x)[:, 1, 2].square().sum(), x)
    assert slope.abs().sum(0).nonzero().tolist() == [[1, 2]]


# -- both -----------------------------------------------------------------------------------------


def test_the_vision_transformer_starts_at_zero():
    assert (VisionTransformer((1, 2, 2), (2, 2, 2), 8)(torch.randn(2, 1, 2, 2)) == 0).all()


def test_checkpoints_keep_less_and_change_nothing():
    x = normal(8, 12, 2)
    answers, kept = [], []
    for saving in (False, True):
        net = causal(12, layers=4, hidden=16, checkpoint=saving)
        sizes: dict[int, int] = {}

        def pack(t: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            total = net(x).square().sum()
        kept.append(sum(sizes.values()))
        answers.append([total, *torch.autograd.grad(total, list(net.parameters()))])
    for found, wanted in zip(*answers, strict=True):
        torch.testing.assert_close(found, wanted)
    assert kept[1] < 0.3 * kept[0]


def test_images_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"\(1, 2, 2\) and out_shape \(2, 2, 3\) must be"):
        VisionTransformer((1, 2, 2), (2, 2, 3))
