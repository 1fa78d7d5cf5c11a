"""Presets: fields that are checked, flows that start neutral and train."""

from __future__ import annotations

import copy
import math
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import torch
from cases import VECTORS
from torch import Tensor

import diffeo
from diffeo._fields import Limit
from diffeo.bases import Normal
from diffeo.contexts import CONTEXTS, Classes, Image, Vector
from diffeo.encodings import Column, Columns, OneHotContext, StandardizedContext
from diffeo.encodings.kinds import Positive
from diffeo.errors import ConfigError, ShapeError
from diffeo.presets import (
    MAF,
    NSF,
    PRESETS,
    CouplingNSF,
    Glow,
    ImagePreset,
    Preset,
    RealNVP,
    Tabular,
    VectorPreset,
    choose,
)
from diffeo.testing import randomize_

SMALL: dict[str, Any] = {"layers": 2, "hidden": 8, "blocks": 1, "bins": 4, "dropout": 0.1}
NEAR = {"NAF", "Gaussianization"}
"""Mixtures, whose units start apart: near the base, not equal to it."""
kinds = pytest.mark.parametrize("kind", VECTORS.values(), ids=VECTORS.keys())


def small(kind: type[VectorPreset], features: int = 3, context: Any = None, **more: Any) -> VectorPreset:
    known = {f.name: f.default for f in fields(kind)}
    values = {name: value for name, value in SMALL.items() if name in known}
    if isinstance(known.get("hidden"), tuple):
        values["hidden"] = (8, 8)
    return kind(features, context, **(values | more))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_presets():
    assert sorted(PRESETS) == [
        "BPF",
        "CouplingNSF",
        "FFJORD",
        "FlowMatching",
        "Gaussianization",
        "Glow",
        "IAF",
        "IResNet",
        "Jet",
        "MAF",
        "Mixed",
        "NAF",
        "NICE",
        "NSF",
        "PixelFlow",
        "Planar",
        "Radial",
        "RealNVP",
        "RealNVPImage",
        "ResidualFlow",
        "RevNet",
        "SOSPF",
        "SplineGlow",
        "Sylvester",
        "Tabular",
        "TarFlow",
        "UNAF",
    ]
    assert all(kind.__name__ == name for name, kind in PRESETS.items())


# -- the untrained flow ---------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("features", [1, 2, 5])
@pytest.mark.parametrize("context", [None, Vector(2), Classes(3)], ids=str)
def test_the_untrained_flow_is_its_base(kind: type[Preset], features: int, context: Any):
    flow = small(kind, features, context).build().eval()
    x = normal(40, features).clamp(-1.9, 1.9)  # further out Tabular's logarithmic tails begin
    given = {None: None, Vector(2): normal(40, 2), Classes(3): torch.arange(40) % 3}[context]
    z = flow.to_latent(x, given)
    if kind.__name__ in NEAR:
        assert abs((flow.log_prob(x, given) - Normal((features,)).log_prob(x)).mean()) < 0.1 * features
    else:
        torch.testing.assert_close(flow.log_prob(x, given), Normal((features,)).log_prob(x))
        torch.testing.assert_close(z.sort(-1).values, x.sort(-1).values)  # at most a permutation
    torch.testing.assert_close(flow.to_data(z, given), x)


@kinds
def test_set_from_data_it_is_the_base_in_the_datas_units(kind: type[Preset]):
    """A normal fitted to the rows: of independent columns, or with all covariances for Tabular."""
    x = normal(500, 3) @ torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 30.0]]) + 7
    flow = small(kind).build().eval()
    flow.initialize(x)
    covariance = torch.cov(x.T, correction=0)
    if kind is not Tabular:
        covariance = torch.diag(covariance.diag())
    expected = torch.distributions.MultivariateNormal(x.mean(0), covariance).log_prob(x)
    tolerance = (
        0.3 if kind.__name__ in NEAR else 0.2 if kind is Tabular else 1e-3
    )  # robust moments, a shrunk covariance, tails
    assert abs(flow.log_prob(x).mean() - expected.mean()) < tolerance


@kinds
def test_one_feature_trains_too(kind: type[Preset]):
    flow = small(kind, 1).build()
    diffeo.fit(flow, normal(50, 1), max_steps=3)
    assert flow.sample(4).shape == (4, 1)


def weights_of(flow: diffeo.Flow) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in flow.parameters()])


@kinds
@pytest.mark.parametrize("context", [Vector(2), Classes(3)], ids=str)
def test_every_preset_trains_with_a_context(kind: type[Preset], context: Any):
    flow = small(kind, 3, context).build()
    given = torch.arange(60) % 3 if isinstance(context, Classes) else normal(60, 2, seed=1)
    before = weights_of(flow)
    settings = diffeo.train.OptimizerSettings(patience=1.0)
    report = diffeo.fit(flow, normal(60, 3), given, max_steps=5, optimizer=settings, validation=0)
    assert (report.steps, report.skipped) == (5, 0)
    assert math.isfinite(report.train)
    after = weights_of(flow)
    assert after.isfinite().all()
    assert not torch.equal(before, after)
    drawn = flow.sample(2, given[:4])
    assert drawn.shape == (2, 4, 3)
    assert drawn.isfinite().all()
    again = flow.to_data(flow.to_latent(drawn, given[:4]), given[:4])
    torch.testing.assert_close(again, drawn, rtol=1e-3, atol=1e-3)


@kinds
def test_every_parameter_is_used(kind: type[Preset]):
    """No weights that no gradient ever reaches, once the last layers have left zero."""
    flow = randomize_(small(kind, 3, 2).build().eval(), scale=0.05)
    x = 3 * normal(200, 3)
    flow.initialize(x, normal(200, 2, seed=1))
    flow.log_prob(x, normal(200, 2, seed=1)).sum().backward()
    unused = [name for name, p in flow.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert unused == []


# -- contexts -------------------------------------------------------------------------------------


def test_an_integer_is_short_for_a_vector():
    assert MAF(3, 2) == MAF(3, Vector(2))
    assert MAF(3, 2).context == Vector(2)
    assert MAF(3, 2) != MAF(3, Classes(2))
    assert hash(MAF(3, 2)) == hash(MAF(3, context=Vector(2)))


def test_what_a_context_builds():
    vector, classes = small(NSF, context=2).build(), small(NSF, context=Classes(4)).build()
    assert isinstance(vector.context_encoding, StandardizedContext)
    assert isinstance(classes.context_encoding, OneHotContext)
    assert (vector.context_shape, classes.context_shape) == ((2,), ())
    assert small(NSF).build().context_shape is None


@pytest.mark.parametrize(
    "context", [0, -1, True, 2.0, "2", (2,), [Vector(2)], 16385, StandardizedContext(2)], ids=str
)
def test_contexts_that_cannot_be(context: Any):
    with pytest.raises(ConfigError, match=r"context must be|Vector\.size must be"):
        MAF(3, context)


@pytest.mark.parametrize("size", [0, -1, True, 2.0, None, 16385])
def test_sizes_of_contexts_that_cannot_be(size: Any):
    for kind in (Vector, Classes):
        with pytest.raises(ConfigError, match=rf"{kind.__name__}\.size must be a whole number from 1 to"):
            kind(size)


# -- fields ---------------------------------------------------------------------------------------

BAD: dict[str, list[Any]] = {
    "features": [0, -1, True, 2.0, "3", None, 16385],
    "layers": [0, -1, 2.5, 257],
    "blocks": [-1, 65],
    "bins": [0, 513, 8.0],
    "marginal": [-1, 257],
    "max_scale": [0.5, math.inf, math.nan, "3"],
    "units": [0, 2.0, 513],
    "steps": [0, 2.0, 4097],
    "lipschitz": [0.0, 1.0, -0.1, math.nan, "0"],
    "kinetic": [-0.1, math.nan, 1e7, "0"],
    "jacobian": [-0.1, math.nan, 1e7, "0"],
    "error": [-0.1, math.nan, 1e7, "0"],
    "components": [0, 2.0, 513],
    "degree": [0, 2.0, 129],
    "polynomials": [0, 2.0, 65],
    "embedding": [0, 2.0, 4097],
    "width": [0, 2.0, 4097],
    "rank": [0, 2.0, 16385],
    "reflections": [0, 2.0, 16385],
    "bound": [-1.0, 0.0, math.nan, math.inf, 1e7, "3", True],
    "dropout": [-0.1, 1.0, math.nan, "0"],
    "levels": [0, 2.0, 17],
    "patch": [0, 2.0, 257],
    "heads": [0, 2.0, 257],
    "noise": [-0.1, math.nan, 1e7, "0"],
    "drop": [-0.1, 1.0, math.nan, "0"],
    "kernel": [0, 2.0, 64],
    "known": [0, 2.0, 16385],
    "joint": [-0.1, 1.0, math.nan, "0"],
    "circular": [(3,), (-1,), (0, 0), "0", (0.0,), 1],
    "shape": [(1, 8), (0, 8, 8), (1, 8, 2.0), "188", 8, None, (1, 4096, 4097)],
}
NEEDED: tuple[dict[str, Any], dict[str, Any]] = {"features": 3}, {"shape": (1, 8, 8)}
BAD_HIDDEN: dict[bool, list[Any]] = {
    False: [0, -1, 2.5, 16385, (8, 8), None],
    True: [(), (0,), (8, -1), (8.0,), "8", 8, None, (16385,), (8,) * (257)],
}


def bad_fields() -> list[Any]:
    cases = []
    for name, kind in PRESETS.items():
        for f in fields(kind):
            values = BAD_HIDDEN[isinstance(f.default, tuple)] if f.name == "hidden" else BAD.get(f.name, [])
            cases += [pytest.param(kind, f.name, v, id=f"{name}-{f.name}-{str(v)[:20]}") for v in values]
    return cases


@pytest.mark.parametrize(("kind", "name", "value"), bad_fields())
def test_fields_that_cannot_be(kind: type[Preset], name: str, value: Any):
    with pytest.raises(ConfigError, match=name):
        kind(**(NEEDED[issubclass(kind, ImagePreset)] | {name: value})).build()


def numbers(kind: type[Any]) -> dict[str, Any]:
    """The type of every field that holds numbers."""
    hints = get_type_hints(kind, include_extras=True)
    found = {f.name: hints[f.name] for f in fields(kind) if f.name != "context"}
    return {name: hint for name, hint in found.items() if hint is not bool}


@pytest.mark.parametrize("kind", [*PRESETS.values(), *CONTEXTS.values()])
def test_every_number_has_a_limit_and_a_bad_case(kind: type[Any]):
    """A file of unknown origin must not eat the machine."""
    for name, hint in numbers(kind).items():
        assert get_origin(hint) is Annotated, f"{kind.__name__}.{name} has no limit"
        (limit,) = get_args(hint)[1:]
        assert isinstance(limit, Limit)
        for value in (2**31, (2**31,)):
            with pytest.raises(ConfigError, match=r"^here must be "):
                limit.checked("here", value)
        if issubclass(kind, Preset):
            assert name in BAD or name == "hidden", f"{kind.__name__}.{name}"


@kinds
def test_the_smallest_values_build(kind: type[Preset]):
    least = {
        "layers": 1,
        "hidden": 1,
        "blocks": 0,
        "bins": 1,
        "marginal": 0,
        "dropout": 0.0,
        "units": 1,
        "components": 1,
    }
    least |= {"degree": 1, "polynomials": 1, "embedding": 1, "width": 1}
    values = {f.name: least[f.name] for f in fields(kind) if f.name in least}
    if any(f.name == "hidden" and isinstance(f.default, tuple) for f in fields(kind)):
        values["hidden"] = (1,)
    flow = kind(1, **values).build()
    diffeo.fit(flow, normal(20, 1), max_steps=2)
    assert flow.sample(5).isfinite().all()


def test_images_beyond_any_memory():
    for make in (Image, lambda *shape: Glow(shape)):
        with pytest.raises(ShapeError, match="more than 16777216 numbers"):
            make(64, 4096, 4096)


def test_presets_are_frozen():
    preset = MAF(3)
    with pytest.raises(FrozenInstanceError):
        preset.layers = 3  # type: ignore[misc]


# -- building -------------------------------------------------------------------------------------


@kinds
def test_the_flow_keeps_its_preset(kind: type[Preset]):
    preset = small(kind, 3, Vector(2))
    flow = preset.build()
    assert flow.preset == preset
    assert copy.deepcopy(flow).preset == preset
    assert flow.without_encoding().preset is None
    wider = replace(preset, layers=2)
    assert wider.build().preset == wider


def test_a_preset_of_ones_own():
    @dataclass(frozen=True)
    class Wide(RealNVP):
        def base(self, latent_shape: torch.Size) -> Normal:
            return Normal(latent_shape)

    preset = Wide(2, layers=1, hidden=(8,))
    assert preset.build().preset is preset


def test_an_encoding_is_built_in():
    columns = Columns([Column("a", Positive()), Column("b", Positive())])
    flow = small(CouplingNSF, 2).build(columns)
    assert flow.encoding is columns
    assert (flow.sample(50) > 0).all()


# -- the default ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 50, 2_999, 3_000, 19_999, 20_000, 10**7])
@pytest.mark.parametrize("context", [None, Vector(2)], ids=str)
def test_the_default_fits_the_table(rows: int, context: Any):
    presets = choose(rows, 5, context)
    assert len(presets) >= 1
    assert len(set(presets)) == len(presets)
    assert all((p.features, p.context) == (5, context) for p in presets)
    for preset in presets:
        flow = preset.build()
        given = None if context is None else torch.zeros(2)
        assert flow.log_prob(torch.zeros(5), given).isfinite()


def test_few_rows_get_a_smaller_flow_with_more_dropout():
    sizes = [choose(rows, 5)[0] for rows in (500, 10_000, 10**6)]
    assert all(isinstance(p, Tabular) for p in sizes)
    counts = [sum(v.numel() for v in p.build().parameters()) for p in sizes]
    assert counts == sorted(counts)
    assert counts[0] < counts[1]
    dropouts = [p.dropout for p in sizes if isinstance(p, Tabular)]
    assert dropouts == sorted(dropouts, reverse=True)
    assert dropouts[0] > dropouts[2]
