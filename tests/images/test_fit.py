"""Fits to images: what is chosen, what is reported, and the same bits after an interruption."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as pil

import diffeo
from diffeo.contexts import Classes, Image, Vector
from diffeo.encodings import Dequantization, VariationalNoise
from diffeo.errors import ConfigError, ContextError, DataError, ShapeError
from diffeo.images import Images, SampleGrids, TensorBoard, fit_images, read_images, save_image, score_images
from diffeo.images.fit import default_batch_size, default_preset
from diffeo.presets import Glow, TarFlow
from diffeo.train import Progress
from diffeo.train.loop import _at_a_time


def blobs(rows: int = 60, shape: tuple[int, int, int] = (1, 4, 4), seed: int = 0) -> torch.Tensor:
    """Images of one brightness each, with a little noise."""
    g = torch.Generator().manual_seed(seed)
    level = torch.randint(40, 200, (rows, 1, 1, 1), generator=g)
    return (level + torch.randint(0, 8, (rows, *shape), generator=g)).to(torch.uint8)


def tiny(shape: tuple[int, int, int] = (1, 4, 4), context=None) -> Glow:
    return Glow(shape, context, levels=1, layers=1, hidden=4)


def same(one: diffeo.Flow, other: diffeo.Flow) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@dataclass
class Told:
    """Remembers what it is told, and may stop the run."""

    stop: float = math.inf
    progress: list[Progress] = field(default_factory=list)

    def on_progress(self, progress: Progress) -> None:
        self.progress.append(progress)
        if progress.step >= self.stop:
            raise KeyboardInterrupt


# -- what comes out -------------------------------------------------------------------------------


def test_a_fit_learns_and_says_so():
    pixels, preset = blobs(300), Glow((1, 4, 4), levels=1, layers=3, hidden=16)
    settings = diffeo.train.OptimizerSettings(learning_rate=1e-2)
    flow, report = fit_images(pixels, preset=preset, max_steps=250, optimizer=settings)
    bits = report.bits_per_dim
    assert bits["uniform"] == 8
    assert bits["valid"] < bits["pixels"] - 1  # neighbors tell the brightness
    nats = -bits["valid"] * 16 * math.log(2)
    assert report.valid == report.training.valid == pytest.approx(nats)
    assert bits["train"] == pytest.approx(-report.training.train / 16 / math.log(2))
    assert (report.images, report.held_out, report.training.steps) == (300, 30, 250)
    assert report.seconds >= report.training.seconds
    better = bits["pixels"] - bits["valid"]
    assert report.verdict == f"The flow needs {better:.3f} bits per dimension fewer than independent pixels."
    worse = replace(report, bits_per_dim={"pixels": 1.0, "valid": 1.25})
    assert "needs 0.250 bits more than independent pixels: train longer" in worse.verdict
    assert not flow.training
    samples = flow.sample(200, generator=torch.Generator().manual_seed(0)).double()
    assert samples.std((1, 2, 3)).mean() < samples.mean((1, 2, 3)).std()
    assert set(report.to_json()["bits_per_dim"]) == {"train", "valid", "uniform", "pixels"}


def test_the_validation_score_is_that_of_held_out_images():
    pixels = blobs(40)
    flow, report = fit_images(pixels, preset=tiny(), max_steps=3, validation=0.5)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    scores = score_images(flow, Images.of(pixels[order[:20].sort().values]))
    assert report.bits_per_dim["valid"] == pytest.approx(scores.bits_per_dim.mean(), rel=1e-5)


def test_bits_that_are_dropped_are_not_paid_for():
    _, report = fit_images(blobs(), preset=tiny(), bits=3, max_steps=2)
    assert report.bits_per_dim["uniform"] == 3
    assert report.bits_per_dim["pixels"] < 3


def test_at_most_a_thousand_are_held_out():
    _, report = fit_images(blobs(20_000, (1, 2, 2)), preset=tiny((1, 2, 2)), max_steps=1)
    assert (report.images, report.held_out) == (20_000, 1000)


def test_folders_arrays_and_tensors_fit_alike(tmp_path):
    pixels = blobs(30)
    np.save(tmp_path / "a.npy", pixels.numpy())
    for i, image in enumerate(pixels):
        save_image(image, tmp_path / f"{i:02d}.png")
    fits = [
        fit_images(data, preset=tiny(), max_steps=3)[0]
        for data in (pixels, pixels.numpy(), tmp_path / "a.npy", tmp_path, read_images(tmp_path))
    ]
    assert all(same(fits[0], other) for other in fits[1:])


def test_variational_noise_and_flips_are_trained_with():
    door = Dequantization((1, 4, 4), noise=VariationalNoise((1, 4, 4)))
    before = [p.clone() for p in door.parameters()]
    flow, _ = fit_images(blobs(), preset=tiny(), encoding=door, max_steps=5)
    assert flow.encoding is door
    assert any(not torch.equal(a, b) for a, b in zip(before, door.parameters(), strict=True))
    plain, flipped = (fit_images(blobs(), preset=tiny(), flips=f, max_steps=5)[0] for f in (False, True))
    assert not same(plain, flipped)


def test_scores_are_of_the_images_whatever_was_minimized(tmp_path):
    """TarFlow with noise learns the density of noisy images."""
    pixels = blobs(40)
    preset = TarFlow((1, 4, 4), patch=2, blocks=1, layers=1, hidden=8, heads=1, noise=0.05)
    flow, report = fit_images(pixels, preset=preset, max_steps=3, validation=0.5, tensorboard=tmp_path)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    scores = score_images(flow, Images.of(pixels[order[:20].sort().values]))
    assert report.bits_per_dim["valid"] == pytest.approx(scores.bits_per_dim.mean(), rel=1e-5)
    assert abs(report.training.valid - report.valid) > 30
    assert math.isnan(report.bits_per_dim["train"])
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = events.EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["scalars"] == ["objective/valid", "objective/train"]
    assert events.Scalars("objective/valid")[-1].value == pytest.approx(
        report.training.curves[-1].valid, rel=1e-5
    )


def test_fits_are_saved_and_loaded(tmp_path):
    flow, report = fit_images(blobs(), max_steps=2)
    diffeo.save(flow, tmp_path / "m")
    loaded = diffeo.load(tmp_path / "m")
    assert loaded.notes == flow.notes == report.notes()
    assert loaded.notes["bits/dim"]["valid"] == pytest.approx(report.bits_per_dim["valid"], abs=1e-4)
    assert (loaded.notes["images"], loaded.notes["steps"]) == (60, 2)
    assert torch.equal(loaded.log_prob(blobs()), flow.log_prob(blobs()))


# -- context --------------------------------------------------------------------------------------


def test_labels_are_classes():
    pixels, labels = blobs(40), torch.arange(40) % 3
    images = Images(pixels, [str(i) for i in range(40)], labels=labels, classes=("a", "b", "c"))
    flow, report = fit_images(images, max_steps=2)
    assert isinstance(flow.preset, diffeo.presets.ImagePreset)
    assert flow.preset.context == Classes(3)
    assert flow.notes["classes"] == list(report.classes) == ["a", "b", "c"]
    assert flow.sample((), torch.tensor([0, 1, 2])).shape == (3, 1, 4, 4)
    other, _ = fit_images(pixels, context=labels, max_steps=2)
    assert same(flow, other)


@pytest.mark.parametrize(
    ("context", "spec"),
    [
        (torch.randn(40, 2), Vector(2)),
        (blobs(40, (3, 2, 2)), Image(3, 2, 2)),
        (np.arange(40) % 2, Classes(2)),
    ],
)
def test_contexts_of_each_kind(context, spec):
    flow, _ = fit_images(blobs(40), context=context, preset=tiny(context=spec), max_steps=2)
    assert flow.context_shape is not None


def test_a_context_that_does_not_fit():
    with pytest.raises(ShapeError, match="40 images but 39 contexts"):
        fit_images(blobs(40), context=torch.zeros(39, 2))
    with pytest.raises(ShapeError, match="classes are whole numbers"):
        fit_images(blobs(40), context=torch.zeros(40))
    with pytest.raises(ConfigError, match=r"context=None, but the images .* context is Vector\(size=2\)"):
        fit_images(blobs(40), context=torch.zeros(40, 2), preset=tiny())


# -- choices and refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "levels"), [((1, 28, 28), 2), ((3, 32, 64), 3), ((3, 6, 8), 1)])
def test_levels_follow_the_shape(shape, levels):
    preset = default_preset(shape)
    assert isinstance(preset, Glow)
    assert preset.levels == levels
    assert default_preset(shape, None, Glow, levels=1, hidden=8) == Glow(shape, levels=1, hidden=8)


def test_sizes_that_cannot_be_halved_are_named():
    with pytest.raises(ShapeError, match="5"):
        fit_images(blobs(20, (1, 5, 5)), max_steps=1)


def test_batches_shrink_as_images_grow():
    sizes = [default_batch_size((3, s, s)) for s in (28, 63, 64, 128, 256, 512, 4096)]
    assert sizes == [64, 64, 32, 32, 8, 4, 4]


def test_the_loop_takes_as_many_images_at_a_time_as_memory_allows():
    table = diffeo.presets.NSF(features=2, layers=1, hidden=4).build()
    assert (_at_a_time(4096, table), _at_a_time(100_000, table)) == (4096, 100_000)
    images = Glow((1, 32, 32), levels=1, layers=1, hidden=4).build()
    assert (_at_a_time(4096, images), _at_a_time(100_000, images)) == (64, 97)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"validation": 0}, DataError, "cannot be held out"),
        ({"validation": 1}, DataError, "cannot be held out"),
        (
            {"preset": tiny((1, 8, 8))},
            ConfigError,
            r"has shape=\(1, 8, 8\) .* images have shape \(1, 4, 4\)",
        ),
        ({"preset": tiny(context=2)}, ConfigError, "context=Vector"),
        ({"bits": 9}, ConfigError, "bits"),
        ({"encoding": Dequantization((1, 8, 8))}, ShapeError, "the encoding gives vectors of shape"),
        ({"encoding": Dequantization((1, 4, 4)), "bits": 5}, ConfigError, "keeps 8 bits; give bits or an"),
        ({"samples": "no/such"}, ConfigError, "no does not exist"),
        ({"tensorboard": __file__}, ConfigError, "is a file"),
        ({"batch_size": -1}, ConfigError, "batch_size"),
    ],
)
def test_options_that_cannot_be(options, error, message):
    with pytest.raises(error, match=message):
        fit_images(blobs(), max_steps=1, **options)


def test_data_that_cannot_be(tmp_path):
    with pytest.raises(DataError, match="1 images cannot be held out"):
        fit_images(blobs(1), preset=tiny(), max_steps=1)
    with pytest.raises(DataError, match="holds no image"):
        fit_images(tmp_path)
    with pytest.raises(DataError, match="uint8"):
        fit_images(torch.rand(20, 1, 4, 4))
    assert issubclass(ContextError, ValueError)


# -- interruption ---------------------------------------------------------------------------------


@pytest.mark.parametrize("uniform", [False, True])
def test_an_interrupted_fit_ends_with_the_same_bits(tmp_path, uniform):
    def run(**more):
        torch.manual_seed(0)
        door = Dequantization((1, 4, 4)) if uniform else None
        return fit_images(
            blobs(), preset=tiny(), encoding=door, flips=True, max_steps=30, batch_size=8, **more
        )

    whole, report = run()
    file = diffeo.train.Checkpoint(tmp_path / "run", every_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=file, callbacks=[Told(stop=17)])
    assert (tmp_path / "run").exists()
    torch.rand(5)  # elsewhere, time went by
    told = Told()
    resumed, again = run(checkpoint=tmp_path / "run", callbacks=[told], samples=tmp_path / "seen")
    assert told.progress[0].step >= 17
    assert same(whole, resumed)
    assert report.bits_per_dim == again.bits_per_dim
    told.progress.clear()
    once_more, again = run(checkpoint=tmp_path / "run", callbacks=[told])
    assert not told.progress  # it has ended
    assert same(whole, once_more)
    assert report.bits_per_dim == again.bits_per_dim


def test_a_checkpoint_of_other_images_is_refused(tmp_path):
    file = diffeo.train.Checkpoint(tmp_path / "run", every_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        fit_images(blobs(), preset=tiny(), max_steps=30, checkpoint=file, callbacks=[Told(stop=5)])
    for data, options in ((blobs(seed=1), {}), (blobs(), {"flips": True}), (blobs(), {"bits": 7})):
        with pytest.raises(ConfigError, match="belongs to another run"):
            fit_images(data, preset=tiny(), max_steps=30, checkpoint=tmp_path / "run", **options)


# -- watching -------------------------------------------------------------------------------------


def test_progress_brings_the_flow_that_was_measured():
    told = Told()
    fit_images(blobs(), preset=tiny(), max_steps=190, callbacks=[told])
    measured = [p for p in told.progress if math.isfinite(p.valid)]
    assert measured[0].step == 0
    assert measured[-1].step == 190
    assert all((p.flow is not None) == math.isfinite(p.valid) for p in told.progress)
    assert len(measured) < len(told.progress)
    assert "flow=" not in repr(measured[0])


def test_that_flow_has_the_score_that_was_measured():
    pixels = blobs(40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    held_out = pixels[order[:20].sort().values]
    scores = []

    class Look:
        def on_progress(self, progress):
            if progress.flow is not None:
                assert not progress.flow.training
                with torch.no_grad():
                    scores.append((progress.valid, progress.flow.log_prob(held_out).mean().item()))

    fit_images(pixels, preset=tiny(), max_steps=9, validation=0.5, callbacks=[Look()])
    valid, own = zip(*scores, strict=True)
    assert len(valid) == 10
    assert own == pytest.approx(valid, rel=1e-5)


def test_grids_are_written_as_training_goes_and_change_nothing(tmp_path):
    plain, _ = fit_images(blobs(), preset=tiny(), max_steps=20)
    board = tmp_path / "board"
    watched, _ = fit_images(
        blobs(), preset=tiny(), max_steps=20, samples=tmp_path / "seen", tensorboard=board
    )
    assert same(plain, watched)
    names = sorted(p.name for p in (tmp_path / "seen").iterdir())
    assert names == ["step-000000.png", "step-000020.png"]  # the next is due after half a minute
    with pil.open(tmp_path / "seen" / names[0]) as image:
        assert image.mode == "L"
        assert image.width > 300


def test_a_grid_shows_the_same_latents_each_time(tmp_path):
    flow = tiny().build(diffeo.encodings.Dequantization((1, 4, 4))).eval()
    watch = SampleGrids(tmp_path, n=4, every_seconds=0, clock=lambda: 0.0)
    for step in (1, 2):
        watch.on_progress(Progress(step, None, 0.0, 0.0, 0.0, flow=flow))
    watch.on_progress(Progress(3, None, 0.0, 0.0, math.nan))
    one, two = sorted(tmp_path.iterdir())
    assert one.read_bytes() == two.read_bytes()
    drawn = flow.sample(4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(read_images(one).pixels[0], diffeo.images.pictures.grid(drawn))


def test_pictures_wait_for_their_time(tmp_path):
    now = [100.0]
    flow = tiny().build(diffeo.encodings.Dequantization((1, 4, 4))).eval()
    watch = SampleGrids(tmp_path, n=1, every_seconds=10, clock=lambda: now[0])
    for step, at in ((1, 100.0), (2, 109.0), (3, 110.5), (4, 111.0)):
        now[0] = at
        watch.on_progress(Progress(step, 9, 0.0, 0.0, 0.0, flow=flow))
    now[0] = 112.0
    watch.on_progress(Progress(9, 9, 0.0, 0.0, 0.0, flow=flow))  # the last is always shown
    assert [p.stem for p in sorted(tmp_path.iterdir())] == ["step-000001", "step-000003", "step-000009"]


def test_slow_pictures_come_less_often(tmp_path, monkeypatch):
    now = [0.0]

    def slowly(self, *args, **options):
        now[0] += 5
        return torch.zeros(1, 1, 4, 4, dtype=torch.uint8)

    monkeypatch.setattr(diffeo.Flow, "sample", slowly)
    flow = tiny().build(diffeo.encodings.Dequantization((1, 4, 4))).eval()
    watch = SampleGrids(tmp_path, every_seconds=10, clock=lambda: now[0])
    for step in range(30):
        now[0] += 10
        watch.on_progress(Progress(step, None, 0.0, 0.0, 0.0, flow=flow))
    assert len(list(tmp_path.iterdir())) == 3  # 5 seconds of 100


def test_samples_of_a_model_with_classes(tmp_path):
    fit_images(
        blobs(40),
        context=torch.arange(40) % 20,
        preset=tiny(context=Classes(20)),
        max_steps=1,
        samples=tmp_path,
    )
    with pil.open(tmp_path / "step-000001.png") as image:
        assert image.height > image.width // 2  # 20 classes in 5 columns and 4 rows


def test_tensorboard_gets_bits_and_pictures(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _, report = fit_images(blobs(), preset=tiny(), max_steps=40, tensorboard=tmp_path / "runs")
    events = event_accumulator.EventAccumulator(str(tmp_path / "runs"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"bits_per_dim/train", "bits_per_dim/valid"}
    assert events.Tags()["images"] == ["samples"]
    valid = events.Scalars("bits_per_dim/valid")
    assert (valid[0].step, valid[-1].step) == (0, 40)
    best = min(e.value for e in valid)
    assert best == pytest.approx(report.bits_per_dim["valid"], rel=1e-5)


def test_without_tensorboard_the_cure_is_named(tmp_path, monkeypatch):
    for name in ("torch.utils.tensorboard", "tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'diffeo\[images\]'"):
        TensorBoard(tmp_path / "runs", (1, 4, 4))
    with pytest.raises(ConfigError, match="TensorBoard is not installed"):
        fit_images(blobs(), preset=tiny(), max_steps=1, tensorboard=tmp_path / "runs")
    assert list(Path(tmp_path).iterdir()) == []
