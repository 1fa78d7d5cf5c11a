"""The kernels against plain PyTorch: values, slopes and every gradient, at the edges and under stress."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffeo.bijections import (
    LU,
    ActNorm,
    Autoregressive,
    Chain,
    Coupling,
    Inverse,
    Permute,
    Reverse,
    Standardize,
)
from diffeo.elementwise import (
    Additive,
    Affine,
    CircularRationalQuadratic,
    IntervalRationalQuadratic,
    LocationScale,
    RationalQuadratic,
)
from diffeo.functional import native
from diffeo.functional.programs import Program
from diffeo.nets import MADE, MLP, ResidualMLP, ResMADE
from diffeo.testing.points import generator

pytestmark = pytest.mark.skipif(native.native is None, reason="built without kernels")
FULL = torch.float64
DTYPES = [torch.float64, torch.float32]


@contextmanager
def plain() -> Iterator[None]:
    """Without kernels."""
    kernels, native.native = native.native, None
    try:
        yield
    finally:
        native.native = kernels


def both_ways(function: Callable[[], Sequence[Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """What the kernels give beside what plain PyTorch gives."""
    found = function()
    with plain():
        expected = function()
    return zip(found, expected, strict=True)


def assert_close(found: Tensor, expected: Tensor, eps: float) -> None:
    """Within ``eps`` of the tensor's scale; infinities and NaN in the same places."""
    scale = expected[expected.isfinite()].abs().max() if expected.isfinite().any() else 1.0
    torch.testing.assert_close(found, expected, rtol=eps, atol=eps * float(scale) + eps, equal_nan=True)


def moderate_(module: Any, dtype: torch.dtype, seed: int = 0) -> Any:
    """Random parameters under which the plain version in float32 is itself right to a few ulps."""
    g = generator(seed)
    module = module.to(dtype)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=FULL) * 0.5 / max(1, p.shape[-1]) ** 0.5)
    return module


# -- families on their own --------------------------------------------------------------------------

FAMILIES = {
    RationalQuadratic: (2.5,),
    IntervalRationalQuadratic: (-1.0, 3.0),
    CircularRationalQuadratic: (),
}
SPLINES = [kind(bins, *box) for bins in (1, 2, 5, 8, 64) for kind, box in FAMILIES.items()]
SPLINES += [LocationScale(RationalQuadratic(bins, 2.5), 3.0) for bins in (1, 5, 8, 64)]


def points(family: Any, count: int, dtype: torch.dtype) -> Tensor:
    """Inside the box, on its ends and beyond, NaN and infinities."""
    low, high = family.family.box if isinstance(family, LocationScale) else family.box
    inside = torch.rand(max(0, count - 8), generator=generator(1), dtype=FULL) * (high - low) + low
    edge = [low, high, 0.5 * (low + high), low - 1e-3, high + 1e6, float("nan"), float("inf"), -float("inf")]
    return torch.cat([inside, torch.tensor(edge, dtype=FULL)])[-count:].to(dtype)


def spline_run(family: Any, x: Tensor, params: Tensor, inverse: bool) -> list[Tensor]:
    x, params = x.clone().requires_grad_(), params.clone().requires_grad_()
    value, log_slope = (family.inverse if inverse else family.forward)(x, params)
    weights = torch.linspace(0.5, 1.5, len(value), dtype=value.dtype)
    total = (weights * torch.where(value.isfinite(), value, 0.0)).sum()
    total = total + (weights * torch.where(log_slope.isfinite(), log_slope, 0.0)).sum()
    grads = torch.autograd.grad(total, (x, params))
    # 0 times NaN is NaN or 0, as it comes
    return [value.detach(), log_slope.detach(), *(g[~x.isnan()] for g in grads)]


@pytest.mark.parametrize("family", SPLINES, ids=str)
@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_splines(family: Any, inverse: bool, dtype: torch.dtype):
    x = points(family, 333, dtype)
    params = torch.randn(len(x), family.num_params, generator=generator(2), dtype=FULL).to(dtype)
    pairs = list(both_ways(lambda: spline_run(family, x, params, inverse)))
    if dtype == FULL:
        for found, expected in pairs:
            assert_close(found, expected, 1e-11)
        return
    with plain():
        exact = spline_run(family, x.double(), params.double(), inverse)
    for (found, expected), truth in zip(pairs, exact, strict=True):
        assert torch.equal(found.isfinite(), expected.isfinite())
        errors = [(t - truth)[t.isfinite()].abs() for t in (found, expected)]
        for q in (0.5, 0.95):  # beyond, points so near a knot of a narrow bin that their place is round-off
            assert errors[0].quantile(q) <= 2 * errors[1].quantile(q) + 2e-7


@pytest.mark.parametrize(
    "family", [RationalQuadratic(8), RationalQuadratic(5), IntervalRationalQuadratic(8)], ids=str
)
@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
def test_points_on_knots(family: Any, inverse: bool):
    params = torch.randn(4, family.num_params, generator=generator(3), dtype=FULL)
    knots = family._knots(params, 1)[1 if inverse else 0]
    x, each = knots.reshape(-1), params.repeat(len(knots), 1)
    for found, expected in both_ways(lambda: spline_run(family, x, each, inverse)[:2]):  # the curvature jumps
        assert_close(found, expected, 1e-10)


@pytest.mark.parametrize("size", [1e2, 1e4, 1e6, 1e15])
@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
def test_splines_under_stress(size: float, inverse: bool):
    family = RationalQuadratic(8)
    params = size * torch.randn(4000, family.num_params, generator=generator(4))
    x = points(family, 4000, torch.float32)
    finite = ~x.isnan()
    value, log_slope, g_x, g_params = spline_run(family, x, params, inverse)
    for found in (value[x.isfinite()], log_slope[finite], g_x, g_params):
        assert found.isfinite().all()
    assert value[-3].isnan()
    if not inverse:  # the inverse of a step is as steep as the step is flat
        with plain():
            exact = family.forward(x.double(), params.double())[0]
        error = (value - exact).abs() / (3 + x.abs())
        assert error[x.isfinite()].max() < 1e-3


@pytest.mark.parametrize("shape", [(7,), (3, 5), (4, 3, 2)], ids=str)
def test_any_strides_of_the_parameters(shape: tuple[int, ...]):
    family = RationalQuadratic(8)
    P = family.num_params
    x = torch.randn(shape, generator=generator(5), dtype=FULL)
    values = torch.randn(*shape, P, generator=generator(6), dtype=FULL)
    for axis in range(len(shape) + 1):
        laid = values.movedim(-1, axis).contiguous().movedim(axis, -1)
        results = []
        for params in (values, laid):
            given, at = params.detach().requires_grad_(), x.clone().requires_grad_()
            y, log_slope = family.forward(at, given)
            results.append([y, log_slope, *torch.autograd.grad(y.sum() + 2 * log_slope.sum(), (at, given))])
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected)


def test_shared_parameters_gather_their_gradients():
    family = RationalQuadratic(8)
    x = torch.randn(50, 3, generator=generator(7), dtype=FULL)
    params = torch.randn(3, family.num_params, generator=generator(8), dtype=FULL).requires_grad_()
    for found, expected in both_ways(
        lambda: torch.autograd.grad(sum(t.sum() for t in family.forward(x, params)), params)
    ):
        assert_close(found, expected, 1e-11)


# -- chains -----------------------------------------------------------------------------------------


def chain_run(chain: Any, x: Tensor, context: Tensor | None) -> list[Tensor]:
    x = x.clone().requires_grad_()
    given = [x] if context is None else [x, context.requires_grad_()]
    y, log_det = chain(x, context)
    rows = torch.linspace(0.3, 1.0, max(1, len(x)), dtype=x.dtype)[: len(x)]
    total = (y * rows[:, None]).sum() + (log_det * rows).sum()
    grads = torch.autograd.grad(total, [*given, *chain.parameters()], allow_unused=True)
    with torch.no_grad():
        back, log_det_back = chain.inverse(y, context)
    return [y.detach(), log_det.detach(), back, log_det_back, *(g for g in grads if g is not None)]


def layers(features: int, bins: int, context: int, hidden: int) -> list[Any]:
    """One layer of each kind the kernels know."""
    spline, affine, both = RationalQuadratic(bins), Affine(), LocationScale(RationalQuadratic(bins), 3.0)
    mask = [i % 2 == 0 and features > 1 for i in range(features)]
    seen, changed = sum(mask), features - sum(mask)
    order = list(range(features))[::-1]
    rq, c = spline.num_params, {"context_features": context}
    return [
        Autoregressive(MADE(features, rq, (hidden, hidden + 1), **c), spline),
        Autoregressive(ResMADE(features, 2, hidden, **c), affine, order),
        Autoregressive(ResMADE(features, rq, hidden, 1, **c), spline, order),
        Coupling(mask, MLP(seen, changed * rq, (hidden,), **c), spline),
        Coupling(mask, MLP(seen, changed, (), **c), Additive()),
        Coupling(mask, ResidualMLP(seen, changed * 2, hidden, **c), affine),
        Coupling([False] * features, MLP(0, features * 2, (hidden,), **c), affine),
        LU(features),
        ActNorm((features,)),
        Reverse(features),
        Autoregressive(ResMADE(features, rq + 2, hidden, 1, **c), both, order),
        Coupling(mask, MLP(seen, changed * (rq + 2), (hidden,), **c), both),
    ]  # fmt: skip


@pytest.mark.parametrize("features", [1, 2, 7, 16, 33])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", range(12))
def test_each_layer(features: int, dtype: torch.dtype, kind: int):
    for rows, context, bins in ((1, 0, 8), (200, 0, 5), (63, 3, 8), (0, 0, 8)):
        layer = moderate_(layers(features, bins, context, 21)[kind], dtype)
        x = torch.randn(rows, features, generator=generator(9), dtype=FULL).to(dtype)
        c = torch.randn(rows, context, generator=generator(10), dtype=FULL).to(dtype) if context else None
        for found, expected in both_ways(lambda layer=layer, x=x, c=c: chain_run(layer, x, c)):
            assert_close(found, expected, 1e-10 if dtype == FULL else 2e-4)


@settings(max_examples=30)
@given(
    features=st.integers(1, 9),
    kinds=st.lists(st.integers(0, 11), min_size=1, max_size=6),
    context=st.integers(0, 2),
    rows=st.integers(0, 150),
    seed=st.integers(0, 99),
)
def test_chains(features: int, kinds: list[int], context: int, rows: int, seed: int):
    chain = moderate_(Chain([layers(features, 8, context, 11)[k] for k in kinds]), FULL, seed)
    x = torch.randn(rows, features, generator=generator(seed), dtype=FULL)
    c = torch.randn(rows, context, generator=generator(seed + 1), dtype=FULL) if context else None
    for found, expected in both_ways(lambda: chain_run(chain, x, c)):
        assert_close(found, expected, 1e-8)


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which kernels are called from now on."""
    calls: list[str] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            found = getattr(kernels, name)
            if not callable(found):
                return found
            return lambda *args: (calls.append(name), found(*args))[1]

    kernels = native.native
    monkeypatch.setattr(native, "native", Counting())
    return calls


def test_a_chain_is_one_call(monkeypatch: pytest.MonkeyPatch):
    chain = Chain([Standardize((6,)), *layers(6, 8, 0, 12), Permute([1, 0, 3, 2, 5, 4])])
    calls = count_calls(monkeypatch)
    x = torch.randn(10, 6)
    y, log_det = chain(x)
    (y.sum() + log_det.sum()).backward()
    with torch.no_grad():
        chain.inverse(y)
    assert calls == ["run", "back", "run"]


def test_what_was_described_is_described_anew_when_it_changes():
    chain = Chain([Autoregressive(ResMADE(3, 2, 8, dropout=0.5), Affine()), Reverse(3)]).eval()
    moderate_(chain, torch.float32)
    x = torch.randn(20, 3, generator=generator(1))
    first = chain(x)[0]
    assert torch.equal(first, chain(x)[0])
    assert not torch.equal(first, chain.train()(x)[0]), "dropout is on"
    assert torch.equal(first, chain.eval()(x)[0])
    chain.double()
    assert chain(x.double())[0].dtype == FULL
    chain.float()
    net: Any = chain.parts[0].net  # type: ignore[union-attr]
    with torch.no_grad():
        net.output.bias.add_(1.0)
    moved = chain(x)[0]
    assert not torch.equal(first, moved)
    net.output.bias = torch.nn.Parameter(net.output.bias.detach() - 1.0)
    torch.testing.assert_close(chain(x)[0], first)
    chain.parts[1] = Permute([0, 1, 2])
    torch.testing.assert_close(chain(x)[0], first.flip(-1))
    with plain():
        torch.testing.assert_close(chain(x)[0], first.flip(-1))


def test_a_weight_changed_before_the_backward_pass_is_noticed():
    layer = Autoregressive(MADE(3, 2), Affine())
    total = sum(t.sum() for t in layer(torch.randn(4, 3)))
    with torch.no_grad():
        layer.net.output.bias.add_(1.0)  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()  # type: ignore[union-attr]


def test_nothing_but_inputs_is_kept():
    """Memory kept for the backward pass: the stages' inputs, however wide the nets are."""
    kept = []
    for hidden in (8, 512):
        chain = Chain([Autoregressive(MADE(4, 23, (hidden,)), RationalQuadratic(8)) for _ in range(3)])
        own = {p.data_ptr() for p in [*chain.parameters(), *chain.buffers()]}
        sizes = []

        def pack(t: Tensor, own: set[int] = own, sizes: list[int] = sizes) -> Tensor:
            sizes.append(0 if t.data_ptr() in own else t.numel())
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            chain(torch.randn(640, 4))
        kept.append(sum(sizes))
    assert kept[0] == kept[1] <= 640 * 4 * (3 + 1)


def test_gradients_are_the_same_bits_every_time():
    torch.manual_seed(0)
    chain = Chain(layers(6, 8, 0, 12))
    x = torch.randn(1000, 6)

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(sum(t.sum() for t in chain(x)), list(chain.parameters())))

    for a, b in zip(gradients(), gradients(), strict=True):
        assert torch.equal(a, b)


def test_frozen_parameters_get_no_gradient():
    chain = Chain(layers(5, 8, 0, 9))
    for p in itertools.islice(chain.parameters(), 0, None, 2):
        p.requires_grad_(False)
    y, log_det = chain(torch.randn(30, 5))
    (y.sum() + log_det.sum()).backward()
    assert all((p.grad is not None) == p.requires_grad for p in chain.parameters())


def test_an_inverted_layer_keeps_its_gradients():
    layer = moderate_(Inverse(Autoregressive(MADE(4, 2), Affine())), FULL)
    x = torch.randn(9, 4, generator=generator(3), dtype=FULL)
    for found, expected in both_ways(lambda: chain_run(layer, x, None)):
        assert_close(found, expected, 1e-10)


def test_nan_stays_in_its_row():
    chain = moderate_(Chain(layers(4, 8, 0, 9)), torch.float32)
    x = torch.randn(70, 4, generator=generator(4))
    clean, _ = chain(x)
    x[3, 0] = float("nan")
    y, log_det = chain(x)
    assert log_det[3].isnan()
    others = torch.arange(70) != 3
    assert torch.equal(y[others], clean[others])
    assert log_det[others].isfinite().all()


def test_points_and_contexts_of_other_shapes_are_not_read_beyond_their_end():
    chain = Chain([ActNorm((3,)), LU(3), Coupling([True, False, False], MLP(1, 4), Affine())])
    with pytest.raises(RuntimeError):
        chain(torch.randn(5, 2))
    layer = moderate_(Autoregressive(MADE(3, 2, context_features=2), Affine()), FULL)
    x, c = torch.randn(5, 3, dtype=FULL), torch.randn(2, dtype=FULL)
    expected = layer(x, c.expand(5, 2))
    for found, wanted in zip(layer(x, c), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_module_refuses_what_does_not_fit():
    kernels: Any = native.native
    wrong = ([], [], []), ([1, 9, 0], [], []), ([1, 1, 0], [], []), ([1, 3, 0], [], [0, 0, 0])
    for ints, reals, tensors in wrong:
        with pytest.raises(ValueError):
            kernels.run(False, False, 1, 0, 1, 2, ints, reals, tensors, 0, 0, 0, 0)


# -- dropout ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["masked", "dense"])
def test_dropout_draws_what_its_plain_version_draws(kind: str):
    if kind == "masked":
        layer: Any = Autoregressive(ResMADE(4, 2, 12, dropout=0.3), Affine())
    else:
        net = ResidualMLP(2, 4, 12, dropout=0.3)
        layer = Coupling([True, True, False, False], net, Affine())
    moderate_(layer.train(), FULL)
    program = Program([*Reverse(4).as_stages(), *layer.as_stages()])  # type: ignore[misc]
    x = torch.randn(150, 4, generator=generator(5), dtype=FULL)
    y, log_det, saved = program.values(x, False, 1234, keep=True)
    other = program.values(x, False, 1235, keep=False)[0]
    assert not torch.equal(y, other)
    learned = [i for i, t in enumerate(program.tensors) if t is not None and t.requires_grad]
    g_y, g_log_det = torch.randn(y.shape, generator=generator(6), dtype=FULL), torch.ones(150, dtype=FULL)
    assert saved is not None
    found = program.gradients(False, 1234, saved, learned, g_y, g_log_det)
    expected = program.plain_gradients(False, 1234, x.requires_grad_(), learned, g_y, g_log_det)
    for a, b in zip(found, expected, strict=True):
        assert b is not None
        assert_close(a, b.detach(), 1e-10)
    back, log_det_back, _ = program.values(y, True, 1234, keep=False)
    assert_close(back, x.detach(), 1e-8)
    assert_close(log_det_back, -log_det, 1e-8)


def test_dropout_keeps_as_many_as_it_says_and_each_step_others():
    layer = Autoregressive(ResMADE(2, 2, 64, 1, dropout=0.25), Affine()).train()
    net: Any = layer.net
    with torch.no_grad():
        net.input.bias.fill_(1.0)  # every activation is 1, and the outputs count those that are kept
        net.first[0].weight.zero_(), net.first[0].bias.fill_(1.0)
        net.second[0].weight.fill_(1.0), net.second[0].bias.fill_(0.0)
        net.input.weight.zero_(), net.output.weight.zero_(), net.output.weight[2].fill_(1.0 / 64)
    shifts = []
    torch.manual_seed(0)
    for _ in range(2):
        with torch.no_grad():
            shifts.append(layer(torch.zeros(4000, 2))[0][:, 1])
    seen = (shifts[0] - 1) / 64
    assert not torch.equal(*shifts)
    # each second unit sees about half of the first ones: the mean of kept / (1 - drop) is what all would give
    full = layer.eval()(torch.zeros(1, 2))[0][0, 1].item()
    assert abs(shifts[0].mean().item() - full) < 0.02 * full
    assert seen.std() > 0


def test_the_same_seed_drops_the_same():
    layer = Autoregressive(ResMADE(3, 2, 16, dropout=0.5), Affine()).train()
    moderate_(layer, torch.float32)
    x = torch.randn(20, 3)
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(layer(x)[0])
    assert torch.equal(*results)


# -- derivatives of derivatives -----------------------------------------------------------------------


def test_second_derivatives_where_weights_depend_on_the_input():
    chain = moderate_(Chain([ActNorm((2,)), LU(2)]), FULL)
    x = torch.randn(5, 2, generator=generator(1), dtype=FULL).requires_grad_()

    def second() -> list[Tensor]:
        scaled = {k: v * (1 + x.mean()) for k, v in chain.named_parameters()}
        y, log_det = torch.func.functional_call(chain, scaled, (x,))
        (g,) = torch.autograd.grad(y.square().sum() + log_det.sum(), x, create_graph=True)
        return list(torch.autograd.grad(g.square().sum(), [x, *chain.parameters()]))

    for found, expected in both_ways(second):
        assert_close(found, expected, 1e-10)


def test_second_derivatives_where_one_weight_depends_on_another():
    layer = moderate_(LU(3), FULL)
    x = torch.randn(5, 3, generator=generator(1), dtype=FULL).requires_grad_()

    def second() -> list[Tensor]:
        weight = 2.0 * layer.weight
        tied = {"weight": weight, "bias": layer.bias + weight.sum(0)}
        y, log_det = torch.func.functional_call(layer, tied, (x,))
        first = torch.autograd.grad(y.square().sum() + log_det.sum(), [x, layer.weight], create_graph=True)
        return [*first, *torch.autograd.grad(sum(g.square().sum() for g in first), layer.weight)]

    for found, expected in both_ways(second):
        assert_close(found.detach(), expected.detach(), 1e-10)


def test_batched_gradients():
    chain = moderate_(Chain(layers(3, 8, 0, 9)), FULL)
    x = torch.randn(4, 3, generator=generator(2), dtype=FULL)

    def jacobian() -> list[Tensor]:
        return [torch.autograd.functional.jacobian(lambda x: chain(x)[0], x, vectorize=True)]

    for found, expected in both_ways(jacobian):
        assert_close(found, expected, 1e-9)
