"""Three convolutions in the kernels beside PyTorch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffeo.functional import convolutions, native
from diffeo.functional.convolutions import plain, three_convolutions
from diffeo.nets import ConvNet

pytestmark = pytest.mark.skipif(native.native is None, reason="no kernels here")

SHAPES = [  # images, channels, height, width, hidden, out
    (1, 1, 1, 1, 3, 2),
    (2, 2, 3, 5, 7, 3),
    (5, 3, 14, 14, 20, 6),
    (1, 6, 33, 17, 16, 4),  # fewer images than threads: lines are dealt out
    (3, 4, 1, 9, 8, 2),
    (2, 3, 9, 1, 8, 2),
    (70, 2, 4, 4, 64, 4),  # several images to a block
    (3, 5, 40, 30, 9, 7),  # images larger than a group
]
DTYPES = [torch.float64, torch.float32]


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def weights(channels: int, hidden: int, out: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        scale = math.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 1.0
        return (scale * torch.randn(*shape, generator=g, dtype=dtype)).requires_grad_()

    sizes = (
        (hidden, channels, 3, 3),
        (hidden,),
        (hidden, hidden, 1, 1),
        (hidden,),
        (out, hidden, 3, 3),
        (out,),
    )
    return tuple(draw(*size) for size in sizes)


def images(n: int, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Some of the channels of images that have them last in memory, as a coupling hands them on."""
    g = torch.Generator().manual_seed(0)
    whole = torch.randn(n, height, width, channels + 2, generator=g, dtype=dtype)
    return whole[..., 1 : 1 + channels].movedim(-1, 1).requires_grad_()


def taken(x: Tensor, given: tuple[Tensor, ...]) -> Tensor:
    assert convolutions._taken(x, given)
    return three_convolutions(x, given)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients(shape: tuple[int, ...], dtype: torch.dtype, threads: int):
    n, channels, height, width, hidden, out = shape
    x, given = images(n, channels, height, width, dtype), weights(channels, hidden, out, dtype)
    y, expected = taken(x, given), plain(x, *given)
    tolerance = {"rtol": 0, "atol": 1e3 * torch.finfo(dtype).eps}
    torch.testing.assert_close(y, expected, **tolerance)
    g = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=dtype)
    for a, b in zip(
        torch.autograd.grad(y, [x, *given], g), torch.autograd.grad(expected, [x, *given], g), strict=True
    ):
        torch.testing.assert_close(a / b.abs().max(), b / b.abs().max(), **tolerance)


def test_one_pixel_reaches_its_neighbors_and_no_other_image():
    x = torch.zeros(3, 1, 4, 4)
    given = tuple(torch.ones(size) for size in ((1, 1, 3, 3), (1,), (1, 1, 1, 1), (1,), (1, 1, 3, 3), (1,)))
    base = taken(x, given)
    x[1, 0, 0, 3] = 1.0
    moved = (taken(x, given) - base).squeeze(1)
    assert moved[0].abs().max() == moved[2].abs().max() == 0
    assert moved[1].tolist() == [[0, 2, 4, 4], [0, 2, 4, 4], [0, 1, 2, 2], [0, 0, 0, 0]]


@pytest.mark.parametrize("layout", ["first", "last", "turned", "every other"])
def test_any_layout_of_the_images(layout: str):
    x = images(3, 2, 4, 6, torch.float64).detach()
    given = weights(2, 5, 3, torch.float64)
    expected = plain(x.contiguous(), *given)
    same = {
        "first": x.contiguous(),
        "last": x.contiguous(memory_format=torch.channels_last),
        "turned": x.transpose(2, 3).contiguous().transpose(2, 3),
        "every other": torch.repeat_interleave(x, 2, 3)[..., ::2],
    }[layout]
    torch.testing.assert_close(taken(same, given), expected)


def test_nan_stays_with_its_neighbors():
    x, given = images(2, 1, 6, 6, torch.float32).detach(), weights(1, 4, 2, torch.float32)
    x[0, 0, 0, 0] = math.nan
    y = taken(x, given)
    assert torch.equal(y.isnan(), plain(x, *given).isnan())
    assert y[0, :, 0, 0].isnan().all()
    assert not y[1].isnan().any()


def test_only_what_is_wanted():
    given = weights(2, 5, 3, torch.float64)
    x = images(2, 2, 4, 4, torch.float64).detach()
    (g,) = torch.autograd.grad(taken(x, given).sum(), [given[2]])
    (expected,) = torch.autograd.grad(plain(x, *given).sum(), [given[2]])
    torch.testing.assert_close(g, expected)
    x.requires_grad_()
    frozen = tuple(w.detach() for w in given)
    (g,) = torch.autograd.grad(taken(x, frozen).sum(), [x])
    torch.testing.assert_close(g, torch.autograd.grad(plain(x, *frozen).sum(), [x])[0])


def test_second_derivatives():
    x, given = images(1, 1, 3, 2, torch.float64), weights(1, 3, 1, torch.float64)
    inputs = [x.detach().contiguous().requires_grad_(), *given]
    assert torch.autograd.gradcheck(lambda x, *w: three_convolutions(x, w), inputs)
    assert torch.autograd.gradgradcheck(lambda x, *w: three_convolutions(x, w), inputs)


def test_transforms_take_the_plain_way():
    x, given = (
        images(3, 2, 4, 4, torch.float64).detach(),
        tuple(w.detach() for w in weights(2, 5, 3, torch.float64)),
    )
    each = torch.func.vmap(lambda x: three_convolutions(x[None], given)[0])(x)
    torch.testing.assert_close(each, plain(x, *given))
    jacobian = torch.func.jacrev(lambda x: three_convolutions(x, given).sum((1, 2, 3)))(x)
    expected = torch.autograd.functional.jacobian(lambda x: plain(x, *given).sum((1, 2, 3)), x)
    torch.testing.assert_close(jacobian, expected)


def test_a_net_goes_through_them_and_keeps_little(monkeypatch: pytest.MonkeyPatch):
    net = ConvNet((2, 16, 16), 4, 64)
    x = torch.randn(8, 2, 16, 16, requires_grad=True)

    def kept(call) -> int:
        sizes: dict[int, int] = {}

        def pack(t: Tensor) -> Tensor:
            sizes[t.data_ptr()] = t.nbytes
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            call()
        return sum(sizes.values())

    parameters = sum(p.nbytes for p in net.parameters())
    assert kept(lambda: net(x)) <= x.nbytes + 3 * parameters
    layers = net.first, net.middle, net.last
    given = tuple(p for layer in layers for p in (layer.weight, layer.bias))
    assert kept(lambda: plain(x, *given)) > 4 * 64 / 2 / 2 * x.nbytes
    monkeypatch.setattr(native, "native", None)
    assert not convolutions._taken(x, given)


SIZES = ("images", "height", "width", "inputs", "hidden", "outputs", "pixel_stride")
TENSORS = ("x", *convolutions.WEIGHTS, *(f"g_{name}" for name in convolutions.WEIGHTS))


def bad_call(**given: int) -> None:
    assert native.native is not None
    call = {**dict.fromkeys((*SIZES, *TENSORS, "g_y"), 1), **given}
    with pytest.raises(ValueError):
        native.native.conv(wide=False, threads=1, **call)


@pytest.mark.parametrize("size", SIZES)
def test_bad_sizes_are_refused(size: str):
    bad_call(**{size: 0})
    bad_call(**{size: -1})


@pytest.mark.parametrize("tensor", TENSORS)
def test_missing_tensors_are_refused(tensor: str):
    bad_call(**{tensor: 0})


def test_one_of_the_two_ways_is_asked_for():
    bad_call(g_y=0, y=0)
