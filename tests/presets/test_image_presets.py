"""Presets of images: neutral at the start, trained with every context, saved and loaded."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffeo
from diffeo.contexts import Classes, Image, Vector
from diffeo.encodings import Dequantization
from diffeo.presets import PRESETS, Glow, ImagePreset
from diffeo.testing import check_bijection, randomize_

SHAPE = (1, 8, 8)
SMALL: dict[str, Any] = {"layers": 2, "hidden": 8, "blocks": 1, "levels": 2, "heads": 2, "patch": 4}
IMAGES = {name: kind for name, kind in PRESETS.items() if issubclass(kind, ImagePreset)}
kinds = pytest.mark.parametrize("kind", IMAGES.values(), ids=IMAGES.keys())


def small(kind: type[ImagePreset], shape: tuple[int, int, int] = SHAPE, context: Any = None) -> ImagePreset:
    known = {f.name for f in fields(kind)}
    return kind(shape, context, **{name: value for name, value in SMALL.items() if name in known})


def pictures(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Tensor:
    """Bright squares on a dark ground, as bytes."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 30, (count, *shape), generator=g)
    at = torch.randint(0, shape[-1] - 2, (count, 2), generator=g)
    for image, (i, j) in zip(x, at.tolist(), strict=True):
        image[:, i : i + 3, j : j + 3] += 200
    return x.to(torch.uint8)


def inside(preset: ImagePreset, count: int) -> Tensor:
    """Points of the flow's domain, and of its latent space."""
    g = torch.Generator().manual_seed(1)
    return 0.9 * torch.rand(count, *preset.shape, generator=g, dtype=torch.float64) - 0.45


@kinds
@pytest.mark.parametrize("context", [None, Classes(3), Image(1, 4, 4)], ids=str)
def test_the_untrained_flow_is_its_base(kind: type[ImagePreset], context: Any):
    preset = small(kind, context=context)
    flow = preset.build().double().eval()
    x = inside(preset, 3)
    given = {None: None, Classes(3): torch.arange(3), Image(1, 4, 4): pictures(3, (1, 4, 4))}[context]
    z = flow.to_latent(x, given)
    torch.testing.assert_close(z.flatten(1).sort(-1).values, x.flatten(1).sort(-1).values)
    torch.testing.assert_close(flow.log_prob(x, given), flow.base.log_prob(z))
    torch.testing.assert_close(flow.to_data(z, given), x)


@kinds
@pytest.mark.parametrize("context", [None, Classes(3), Vector(2), Image(1, 4, 4)], ids=str)
def test_it_trains_with_every_context_and_keeps_its_inverse(kind: type[ImagePreset], context: Any):
    preset = small(kind, context=context)
    flow = preset.build(Dequantization(SHAPE))
    x = pictures(40)
    given = (
        None
        if context is None
        else {
            "Classes": torch.arange(40) % 3,
            "Vector": torch.randn(40, 2),
            "Image": pictures(40, (1, 4, 4)),
        }[type(context).__name__]
    )
    before = diffeo.bits_per_dim(flow.eval().log_prob(x, given), SHAPE).mean()
    report = diffeo.fit(flow, x, given, max_steps=20, batch_size=20, validation=0)
    assert (report.steps, report.skipped) == (20, 0)
    after = diffeo.bits_per_dim(flow.log_prob(x, given), SHAPE).mean()
    assert after < before
    again = flow.to_data(flow.to_latent(x, given), given)
    assert torch.equal(again.to(torch.uint8), x)
    drawn = flow.sample((2,), None if given is None else given[:3])
    assert drawn.shape == ((2, *SHAPE) if given is None else (2, 3, *SHAPE))
    assert ((drawn >= 0) & (drawn <= 255) & (drawn == drawn.round())).all()


@kinds
def test_every_parameter_is_used(kind: type[ImagePreset]):
    """No weights that no gradient ever reaches, once the last layers have left zero."""
    preset = small(kind, context=Classes(3))
    flow = randomize_(preset.build().double().eval(), scale=0.05)
    flow.log_prob(inside(preset, 30), torch.arange(30) % 3).sum().backward()
    unused = [name for name, p in flow.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert unused == []


@kinds
def test_the_contract_holds_after_200_steps(kind: type[ImagePreset]):
    shape = (2, 4, 4)
    preset = small(kind, shape)
    if "levels" in {f.name for f in fields(kind)}:
        preset = kind(shape, levels=1, layers=2, hidden=8)
    flow = preset.build(Dequantization(shape))
    diffeo.fit(flow, pictures(64, shape), max_steps=200, batch_size=16)
    middles = (pictures(6, shape, seed=3).double() + 0.5) / 256 - 0.5  # away from the knots of histograms
    check_bijection(flow.bijection, x=middles, randomize=False, capture=False)


@kinds
def test_a_model_file_brings_it_back(kind: type[ImagePreset], tmp_path: Path):
    preset = small(kind, context=Image(1, 4, 4))
    flow = preset.build(Dequantization(SHAPE, bits=5)).eval()
    diffeo.fit(flow, pictures(20), pictures(20, (1, 4, 4)), max_steps=3)
    diffeo.save(flow, tmp_path / "model.safetensors")
    again = diffeo.load(tmp_path / "model.safetensors")
    assert again.preset == preset
    x, given = pictures(3, seed=2), pictures(3, (1, 4, 4), seed=2)
    assert torch.equal(flow.log_prob(x, given), again.log_prob(x, given))


def test_reversible_gradients_are_the_plain_ones():
    x = pictures(6)
    grads = []
    for reversible in (False, True):
        torch.manual_seed(0)
        flow = Glow(SHAPE, levels=2, layers=2, hidden=8, reversible=reversible).build(Dequantization(SHAPE))
        flow = randomize_(flow.double(), scale=0.05).eval()
        flow.log_prob(x).sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in flow.parameters()]))
    torch.testing.assert_close(*grads)


def test_an_odd_size_names_one_that_would_do():
    with pytest.raises(diffeo.errors.ShapeError, match="8 x 8"):
        Glow((1, 7, 7), levels=1).build()
    with pytest.raises(diffeo.errors.ShapeError, match="fewer levels"):
        Glow((1, 28, 28), levels=3).build()


def test_classes_may_be_missing_among_the_images():
    preset = Glow(SHAPE, Classes(3), levels=1, layers=1, hidden=4)
    flow, _ = diffeo.fit_images(pictures(20), context=torch.arange(20) % 2, preset=preset, max_steps=2)
    assert flow.sample((), torch.tensor([2])).shape == (1, *SHAPE)
