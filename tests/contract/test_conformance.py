"""Every kind against the whole contract, and shapes and parameters drawn by hypothesis."""

from __future__ import annotations

import importlib
import inspect
import math
from typing import Any

import pytest
import torch
from cases import APART, CASES, VECTORS, knots_of
from hypothesis import given, settings
from hypothesis import strategies as st

from diffeo.bases import Normal
from diffeo.bases.base import Base
from diffeo.bijections import LU, Autoregressive, Coupling, Orthogonal, Permute, Pointwise, Triangular
from diffeo.bijections.base import Bijection
from diffeo.elementwise import (
    Additive,
    Affine,
    CircularRationalQuadratic,
    IntervalRationalQuadratic,
    PiecewiseLinear,
    PiecewiseQuadratic,
    RationalQuadratic,
)
from diffeo.elementwise.base import Elementwise
from diffeo.encodings.base import Encoding
from diffeo.encodings.cells import Cells
from diffeo.flow import Flow
from diffeo.nets import MADE, MLP, ResidualMLP, ResMADE
from diffeo.presets import Mixed, Preset
from diffeo.testing import (
    check_base,
    check_bijection,
    check_elementwise,
    check_encoding,
    check_flow,
    randomize_,
)
from diffeo.testing.points import clamp_to, draw, ends, far_sizes

NOUNS = {
    "bijections": Bijection,
    "elementwise": Elementwise,
    "bases": Base,
    "presets": Preset,
    "encodings": Encoding,
}


def each(room: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("make", CASES[room].values(), ids=CASES[room].keys())


@pytest.fixture(autouse=True)
def same_start():
    """Nets start at random: the same start in every run, whichever tests ran before."""
    torch.manual_seed(0)


# -- every kind -------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", NOUNS)
def test_every_public_kind_has_a_case(room: str):
    module = importlib.import_module(f"diffeo.{room}")
    public = [getattr(module, name) for name in getattr(module, "__all__", ())]
    kinds = {
        k for k in public if inspect.isclass(k) and issubclass(k, NOUNS[room]) and not inspect.isabstract(k)
    }
    made = [make() for make in CASES[room].values()]
    covered = {type(m[0] if isinstance(m, tuple) else m) for m in made}
    assert {k.__name__ for k in kinds - covered} == set(), "these need a line in tests/cases.py"
    named = {name.split(",")[0] for name in CASES[room]}
    assert named == {k.__name__ for k in covered}, "a case is named after its kind"


@each("bijections")
def test_bijections(make: Any):
    check_bijection(make())


@each("elementwise")
def test_families(make: Any):
    family = make()
    check_elementwise(family, knots=knots_of(family), neutral=type(family).__name__ not in APART)


@each("bases")
def test_bases(make: Any):
    found = make()
    base, z = found if isinstance(found, tuple) else (found, None)
    check_base(base, z=z)


@each("presets")
def test_presets(make: Any):
    found = make()
    if isinstance(found, tuple):
        preset, encoding, x, _ = found
        check_flow(preset.build(encoding), x=x)
    else:
        check_flow(found.build())


@each("encodings")
def test_encodings(make: Any):
    encoding, x, outside = make()
    check_encoding(encoding, x, outside=outside)


@each("bijections")
def test_bijections_as_they_start(make: Any):
    check_bijection(make(), randomize=False, capture=False)


@each("bijections")
def test_bijections_in_float32(make: Any):
    check_bijection(make(), dtype=torch.float32, capture=False)


@each("bijections")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_no_number_is_too_far_for_a_bijection(make: Any, dtype: torch.dtype):
    kind, g = randomize_(make()).to(dtype).eval(), torch.Generator().manual_seed(0)
    given = kind.context_shape
    context = None if given is None else torch.randn(4, *given, generator=g).to(dtype)
    for way, shape, domain in (
        (kind, kind.event_shape, kind.domain),
        (kind.inverse, kind.latent_shape, kind.codomain),
    ):
        points = draw(domain, (4, *shape), g, dtype)
        alone = (torch.arange(shape.numel()) == 0).reshape(shape)
        for size in far_sizes(dtype):
            for far in (alone, torch.ones_like(alone)):
                x = clamp_to(domain, torch.where(far, points.sign() * size, points))
                with torch.no_grad():
                    value, log_det = way(x, context)
                assert not value.isnan().any(), size
                assert not log_det.isnan().any(), size


@each("presets")
def test_a_preset_starts_neutral(make: Any):
    torch.manual_seed(0)
    preset = make()
    if isinstance(preset, tuple):
        preset, encoding, x, _ = preset
        flow = preset.build(encoding).double().eval()
        cells = [column.cells for column in encoding.columns]
        log_prob = flow.base.column_log_probs(encoding.encode(x)[0][0])
        torch.testing.assert_close(log_prob[:, 0], torch.full((3,), -math.log(cells[0])).double())
        return
    flow = preset.build().double().eval()
    low, high = ends(flow.bijection.domain)
    x = torch.randn(20, *flow.event_shape, dtype=torch.float64)
    x = x.clamp(max(-2, low), min(2, high))  # LogTails begins at 2
    shape = None if flow.context_shape is None else (20, *flow.context_shape)
    context = None if shape is None else torch.randint(0, 3, shape).double()
    if type(preset).__name__ in APART:
        gap = flow.log_prob(x, context) - flow.base.log_prob(x)
        assert gap.mean().abs() < 1
        return
    z = flow.to_latent(x, context)
    # a permutation at most
    torch.testing.assert_close(z.flatten(1).sort(-1).values, x.flatten(1).sort(-1).values)
    torch.testing.assert_close(flow.log_prob(x, context), flow.base.log_prob(z))


def test_a_flow_with_an_encoding():
    for make in CASES["encodings"].values():
        encoding, x, outside = make()
        shape = encoding.latent_shape
        if isinstance(encoding, Cells):
            flow = Mixed(len(encoding.columns), hidden=8, blocks=1).build(encoding)
        elif len(shape) == 1:
            flow = VECTORS["MAF"](shape.numel(), layers=2, hidden=(8,)).build(encoding)
        else:
            flow = Flow(Pointwise(RationalQuadratic(4), shape), Normal(shape), encoding)
        check_flow(flow, x=x)
        assert flow.eval().log_prob(outside).tolist() == [-torch.inf] * len(outside)


# -- drawn shapes and parameters ----------------------------------------------------------------------


def families(most_bins: int) -> st.SearchStrategy[Elementwise]:
    bins = st.integers(2, most_bins)
    splines = (PiecewiseLinear, PiecewiseQuadratic, RationalQuadratic, IntervalRationalQuadratic)
    some = st.one_of(*(bins.map(kind) for kind in (*splines, CircularRationalQuadratic)))
    return st.one_of(st.just(Additive()), st.just(Affine()), some)


seeds = st.integers(0, 2**31)


@settings(max_examples=25)
@given(families(6), st.integers(1, 6), st.integers(1, 9), st.integers(0, 2), st.booleans(), st.data())
def test_autoregressive(family: Any, features: int, hidden: int, context: int, residual: bool, data: Any):
    order = data.draw(st.permutations(range(features)))
    seed = data.draw(seeds)
    torch.manual_seed(seed)
    # Fewer hidden units than columns leave some of the context unseen; eight see all of it.
    hidden = max(hidden, 8) if context else hidden
    if residual:
        net = ResMADE(features, family.num_params, hidden, 1, context_features=context)
    else:
        net = MADE(features, family.num_params, (hidden, hidden), context_features=context)
    check_bijection(Autoregressive(net, family, order), seed=seed, capture=False)


@settings(max_examples=25)
@given(families(6), st.lists(st.booleans(), min_size=1, max_size=6), st.integers(0, 2), st.booleans(), seeds)
def test_coupling(family: Any, mask: list[bool], context: int, residual: bool, seed: int):
    mask[0] = False
    passing = sum(mask)
    torch.manual_seed(seed)
    out = (len(mask) - passing) * family.num_params
    if residual:
        net = ResidualMLP(passing, out, 8, 1, context_features=context)
    else:
        net = MLP(passing, out, (8,), context_features=context)
    check_bijection(Coupling(mask, net, family), seed=seed, capture=False)


@settings(max_examples=20)
@given(st.integers(1, 6), st.sampled_from([LU, Triangular, Orthogonal]), seeds)
def test_linear(features: int, kind: Any, seed: int):
    torch.manual_seed(seed)
    check_bijection(kind(features), seed=seed, capture=False)


@settings(max_examples=10)
@given(st.integers(1, 6).flatmap(lambda d: st.permutations(range(d))))
def test_permute(order: list[int]):
    check_bijection(Permute(order), capture=False)


@settings(max_examples=20)
@given(families(40), st.lists(st.integers(1, 3), max_size=3), seeds)
def test_pointwise(family: Any, event_shape: list[int], seed: int):
    check_bijection(Pointwise(family, event_shape), seed=seed, capture=False)


@settings(max_examples=15)
@given(families(40), seeds)
def test_stress(family: Any, seed: int):
    check_elementwise(family, knots=knots_of(family), seed=seed, capture=False)


@settings(max_examples=8)
@given(st.floats(-10, 10), st.floats(0.1, 1e3), st.integers(1, 12), seeds)
def test_stress_of_boxes(offset: float, size: float, bins: int, seed: int):
    low = offset * size
    for family in (IntervalRationalQuadratic(bins, low, low + size), PiecewiseLinear(bins, low, low + size)):
        check_elementwise(family, knots=knots_of(family), seed=seed, capture=False)
    family = RationalQuadratic(bins, size)
    check_elementwise(family, knots=knots_of(family), seed=seed, capture=False)


@settings(max_examples=12)
@given(st.sampled_from(sorted(VECTORS)), st.integers(1, 6), st.sampled_from([None, 1, 3]), seeds)
def test_flows(name: str, features: int, context: int | None, seed: int):
    hidden = (8, 8) if isinstance(VECTORS[name](1).hidden, tuple) else 8  # type: ignore[attr-defined]
    torch.manual_seed(seed)
    flow = VECTORS[name](features, context, layers=2, hidden=hidden).build()
    check_flow(flow, seed=seed, samples=8000)


def test_randomize_leaves_the_generator_alone():
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    first, second = randomize_(LU(3), seed=1), randomize_(LU(3), seed=1)
    assert torch.rand(1) == wanted
    assert torch.equal(first.weight, second.weight)
    assert first.weight.abs().min() > 0
