"""TarFlow and Jet: neutral starts, training, files, and what their fields refuse."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import diffeo
from diffeo.bijections import AutoregressiveTokens, Chain, Jacobi, Reversible, Stepwise
from diffeo.contexts import Classes, Image, Vector
from diffeo.encodings import Dequantization
from diffeo.errors import ConfigError, ShapeError
from diffeo.io.recipes import from_recipe, to_recipe
from diffeo.nets import CausalTransformer
from diffeo.presets import ImagePreset, Jet, TarFlow
from diffeo.testing import randomize_
from diffeo.testing.points import generator

SHAPE = (2, 4, 6)
SMALL: dict[type[ImagePreset], ImagePreset] = {
    TarFlow: TarFlow(SHAPE, patch=2, blocks=3, layers=1, hidden=8, heads=2),
    Jet: Jet(SHAPE, patch=2, layers=3, blocks=1, hidden=8, heads=2),
}
presets = pytest.mark.parametrize("preset", SMALL.values(), ids=lambda p: type(p).__name__)
CONTEXTS = [None, Vector(2), Classes(3), Image(1, 2, 3)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def given(context: Any, rows: int) -> Tensor | None:
    if isinstance(context, Classes):
        return torch.arange(rows) % context.size
    shape = {None: None, Vector(2): (2,), Image(1, 2, 3): (1, 2, 3)}[context]
    return None if shape is None else normal(rows, *shape, seed=5)


def gratings(rows: int) -> Tensor:
    """Images of stripes, in steps, of two slants."""
    i, j = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    phase = 6.28 * torch.rand(rows, 1, 1, generator=generator(0))
    slant = torch.where(torch.arange(rows) % 2 == 0, 1.0, -1.0)[:, None, None]
    return (127.5 + 100 * (i + slant * j + phase).sin()).round().to(torch.uint8).unsqueeze(1)


@presets
@pytest.mark.parametrize("context", CONTEXTS, ids=str)
def test_untrained_it_is_its_base_and_every_pixel_in_its_place(preset: ImagePreset, context: Any):
    flow = replace(preset, context=context).build().eval()
    x, c = normal(5, *SHAPE), given(context, 5)
    torch.testing.assert_close(flow.to_latent(x, c), x)
    torch.testing.assert_close(flow.log_prob(x, c), flow.base.log_prob(x))


@presets
@pytest.mark.parametrize("context", CONTEXTS, ids=str)
def test_every_parameter_is_used(preset: ImagePreset, context: Any):
    flow = randomize_(replace(preset, context=context).build().eval(), scale=0.1)
    x, c = normal(20, *SHAPE), given(context, 20)
    flow.log_prob(x, c).sum().backward()
    unused = [n for n, p in flow.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert unused == []


@presets
def test_every_number_of_the_data_is_changed_and_seen(preset: ImagePreset):
    flow = randomize_(preset.build().double().eval(), scale=0.2)
    x = normal(1, *SHAPE).double()
    jacobian = torch.autograd.functional.jacobian(flow.to_latent, x).reshape(48, 48)
    assert (jacobian != 0).any(0).all()
    assert (jacobian != 0).sum() > 48 * 12
    gap = (flow.to_latent(x) - x).abs()
    assert (gap > 1e-4).all()


@presets
def test_it_learns_images(preset: ImagePreset):
    """Stripes are nearly determined by a few of their pixels."""
    images = gratings(512)
    preset = replace(preset, shape=(1, 8, 8), hidden=32, context=Classes(2))
    torch.manual_seed(0)
    flow = preset.build(Dequantization((1, 8, 8)))
    classes = torch.arange(512) % 2
    flow.initialize(images, classes)
    before = -flow.eval().log_prob(images, classes).mean()
    settings = diffeo.train.OptimizerSettings(learning_rate=3e-3)
    diffeo.fit(flow, images, classes, max_steps=150, validation=0, optimizer=settings)
    flow.eval()
    after = -flow.log_prob(images, classes).mean()
    wrong = -flow.log_prob(images, 1 - classes).mean()
    assert after < before - 40
    assert wrong > after + 5
    drawn = flow.sample(4, classes[:2])
    assert drawn.shape == (4, 2, 1, 8, 8)
    assert drawn.dtype == torch.uint8


@presets
def test_files(preset: ImagePreset, tmp_path: Any):
    flow = randomize_(replace(preset, context=Classes(3)).build(Dequantization(SHAPE)).eval(), scale=0.1)
    x, c = torch.randint(0, 256, (3, *SHAPE), dtype=torch.uint8), torch.tensor([0, 1, 2])
    diffeo.save(flow, tmp_path / "flow.safetensors")
    again = diffeo.load(tmp_path / "flow.safetensors").eval()
    assert torch.equal(again.log_prob(x, c), flow.log_prob(x, c))


@presets
@pytest.mark.parametrize("context", CONTEXTS, ids=str)
def test_a_recipe_comes_back(preset: ImagePreset, context: Any):
    preset = replace(preset, context=context)
    assert preset.build().preset == preset
    assert from_recipe(json.loads(json.dumps(to_recipe(preset)))) == preset


def test_directions_alternate():
    flow = TarFlow(SHAPE, patch=2, blocks=4, layers=1, hidden=8, heads=2).build()
    layers = [m for m in flow.modules() if isinstance(m, AutoregressiveTokens)]
    assert [m.reverse for m in layers] == [False, True, False, True]
    assert all(isinstance(m.sampler, Stepwise) for m in layers)


@torch.no_grad()
def test_any_sampler_draws_the_same():
    flow = randomize_(SMALL[TarFlow].build().double().eval(), scale=0.1)
    wanted = flow.sample(5, generator=generator(0))
    for part in flow.modules():
        if isinstance(part, AutoregressiveTokens):
            part.sampler = Jacobi(1e-10)
    torch.testing.assert_close(flow.sample(5, generator=generator(0)), wanted, rtol=1e-6, atol=1e-6)


def test_a_reversible_jet_has_the_same_gradients():
    answers = []
    for reversible in (False, True):
        torch.manual_seed(0)
        flow = replace(SMALL[Jet], reversible=reversible).build().double()
        assert isinstance(flow.bijection, Reversible if reversible else Chain)
        flow = randomize_(flow, scale=0.2)
        loss = flow.log_prob(normal(4, *SHAPE).double()).sum()
        answers.append([loss, *torch.autograd.grad(loss, list(flow.parameters()))])
    for found, wanted in zip(*answers, strict=True):
        torch.testing.assert_close(found, wanted)


def test_checkpoints_reach_every_net():
    flow = TarFlow(SHAPE, patch=2, checkpoint=True).build()
    nets = [m for m in flow.modules() if isinstance(m, CausalTransformer)]
    assert len(nets) == 4
    assert all(net.checkpoint for net in nets)


def test_one_channel_and_patches_of_one_pixel():
    """Nothing passes in Jet's couplings: their nets see only places and context."""
    for kind in (TarFlow, Jet):
        flow = randomize_(kind((1, 2, 2), 2, patch=1, hidden=8, heads=2).build().eval(), scale=0.1)  # type: ignore[call-arg]
        x, c = normal(3, 1, 2, 2), normal(3, 2, seed=1)
        torch.testing.assert_close(flow.to_data(flow.to_latent(x, c), c), x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [TarFlow, Jet])
def test_patches_that_do_not_fit(kind: Any):
    with pytest.raises(ShapeError, match="do not divide into squares of 4 x 4"):
        kind((1, 6, 8)).build()


BAD: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("patch", "heads", "layers"), (0, -1, 2.5, True, 10**9)),
    "hidden": (0, 2.5, 30, 10**9),
    "blocks": (-1, 65),
    "shape": ((1, 8), (0, 8, 8), (1, 8, 10**9), 8),
    "noise": (-0.1, float("nan"), "0"),
    "drop": (-0.1, 0.1, 1.0, float("nan"), "0"),
    "checkpoint": (0, None),
    "reversible": (0, None),
}


def bad_fields() -> list[Any]:
    every = [(kind, name, value) for kind in (TarFlow, Jet) for name in BAD for value in BAD[name]]
    return [case for case in every if case[1] in {f.name for f in fields(case[0])}]


@pytest.mark.parametrize(("kind", "name", "value"), bad_fields())
def test_fields_that_cannot_be(kind: Any, name: str, value: Any):
    with pytest.raises(ConfigError, match=name):
        kind(**({"shape": (1, 8, 8)} | {name: value})).build()
