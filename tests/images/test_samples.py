"""Samples of images, and what they are conditioned on: classes by name or number, contexts as they are."""

from __future__ import annotations

import pytest
import torch

import diffeo
from diffeo.contexts import Classes, ContextSpec, Vector
from diffeo.encodings import Dequantization
from diffeo.errors import ConfigError, ContextError, Cure, ShapeError
from diffeo.images import class_names, contexts_for, images_for, sample_images, save_image
from diffeo.latents import sample_denoised, tempered
from diffeo.presets import Glow, TarFlow

SHAPE = (1, 4, 4)


def model(context: ContextSpec | None = None) -> diffeo.Flow:
    torch.manual_seed(0)
    flow = Glow(SHAPE, context, levels=1, layers=2, hidden=4).build(Dequantization(SHAPE))
    diffeo.testing.randomize_(flow, 0, 0.1)
    return flow.eval()


@pytest.fixture
def classes() -> diffeo.Flow:
    flow = model(Classes(3))
    flow.notes = {"classes": ["cat", "dog", "2"]}
    return flow


def by(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- samples --------------------------------------------------------------------------------------


def test_samples_are_those_of_the_flow_part_by_part():
    flow, generator = model(), by(3)
    wanted = torch.cat([flow.sample(n, generator=generator) for n in (4, 4, 2)])
    assert torch.equal(sample_images(flow, 10, seed=3, batch_size=4), wanted)
    assert wanted.dtype == torch.uint8
    assert not torch.equal(sample_images(flow, 10), sample_images(flow, 10))


def test_a_temperature():
    flow = model()
    wanted = tempered(flow, 0.3).sample(5, generator=by(1))
    assert torch.equal(sample_images(flow, 5, temperature=0.3, seed=1), wanted)


def test_every_layer_keeps_its_mode():
    flow = model().train()
    flow.bijection.eval()
    modes = [module.training for module in flow.modules()]
    for temperature in (1, 0.5):
        sample_images(flow, 2, temperature=temperature)
        assert [module.training for module in flow.modules()] == modes


def test_noise_that_was_trained_with_is_taken_out():
    preset = TarFlow(SHAPE, patch=2, blocks=1, layers=1, hidden=8, heads=1, noise=0.2)
    flow = preset.build(Dequantization(SHAPE)).eval()
    wanted = sample_denoised(flow, 0.2, 4, generator=by(1))
    assert torch.equal(sample_images(flow, 4, seed=1), wanted)
    wanted = sample_denoised(tempered(flow, 0.5), 0.2, 4, generator=by(1))
    assert torch.equal(sample_images(flow, 4, temperature=0.5, seed=1), wanted)


def test_one_class_after_the_other_unless_told(classes: diffeo.Flow):
    for given, numbers in ((None, [0, 1, 2, 0]), ("dog", [1] * 4), (["dog", 0, "2", "1"], [1, 0, 2, 1])):
        wanted = classes.sample((), torch.tensor(numbers), generator=by(1))
        assert torch.equal(sample_images(classes, 4, given=given, seed=1), wanted)


def test_what_cannot_be_sampled():
    with pytest.raises(ConfigError, match="n must be at least 1"):
        sample_images(model(), 0)
    with pytest.raises(ConfigError, match="temperature"):
        sample_images(model(), 1, temperature=0)
    with pytest.raises(ConfigError, match="batch_size"):
        sample_images(model(), 1, batch_size=0)
    with pytest.raises(ConfigError, match="not fitted to images"):
        sample_images(diffeo.presets.NSF(features=2).build(), 1)


# -- contexts -------------------------------------------------------------------------------------


def test_classes_have_the_names_of_the_notes(classes: diffeo.Flow):
    assert class_names(classes) == ("cat", "dog", "2")
    classes.notes = {"classes": ["cat"]}  # of another set of classes
    assert class_names(classes) == ("0", "1", "2")
    assert class_names(model()) == class_names(model(Vector(2))) == ()


def test_classes_by_name_and_number(classes: diffeo.Flow):
    for given, wanted in (
        ("dog", [1, 1]),
        ("1", [1, 1]),
        (1, [1, 1]),
        ("2", [2, 2]),  # the name
        (["cat", 2], [0, 2]),
        (torch.tensor(1), [1, 1]),
        (torch.tensor([2, 0]), [2, 0]),
    ):
        found = contexts_for(classes, given, 2)
        assert found is not None
        assert found.tolist() == wanted


def test_contexts_of_other_kinds():
    flow = model(Vector(2))
    one = contexts_for(flow, torch.tensor([1.0, 2.0]), 3)
    assert one is not None
    assert one.tolist() == [[1, 2]] * 3
    each = torch.randn(3, 2)
    assert contexts_for(flow, each, 3) is each
    assert contexts_for(model(), None, 3) is None
    assert sample_images(flow, 3, given=each).shape == (3, *SHAPE)


def test_contexts_that_do_not_fit(classes: diffeo.Flow):
    with pytest.raises(ContextError, match="class; pass given='cat', or another of cat, dog, 2") as caught:
        contexts_for(classes, None, 1)
    assert caught.value.cure == Cure("given", "cat")
    for given in ("bird", "3", 3, -1, ["cat", "bird"]):
        with pytest.raises(ContextError, match="knows no class .*; its classes: cat, dog, 2"):
            contexts_for(classes, given, 2)
    for given in (["cat"], torch.zeros(3, dtype=torch.long)):
        with pytest.raises(ShapeError, match="for 2 images"):
            contexts_for(classes, given, 2)
    with pytest.raises(ContextError, match="conditioned on nothing"):
        contexts_for(model(), "cat", 1)
    for given in (None, "cat", ["cat"]):
        with pytest.raises(ContextError, match=r"contexts of shape \(2,\); pass given="):
            contexts_for(model(Vector(2)), given, 1)


def test_images_are_read_as_the_models_are(tmp_path):
    save_image(torch.zeros(3, 9, 8, dtype=torch.uint8), tmp_path / "a.png")
    found = images_for(model(), tmp_path)
    assert (found.shape, found.names) == (SHAPE, ["a.png"])
    assert found.changes == {"made gray": 1, "cropped": 1, "resized": 1}
    with pytest.raises(ConfigError, match="not fitted to images"):
        images_for(diffeo.presets.NSF(features=2).build(), tmp_path)
