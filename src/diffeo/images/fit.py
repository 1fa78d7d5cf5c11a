"""``fit_images``: from images to a flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from typing_extensions import Unpack

from diffeo._arrays import unmasked
from diffeo.contexts import Classes, Image, Vector
from diffeo.encodings import Dequantization, bits_per_dim
from diffeo.errors import ConfigError, DataError, ShapeError
from diffeo.flow import Flow
from diffeo.functional.seeding import seeded
from diffeo.images.previews import SampleGrids, TensorBoard
from diffeo.images.read import Images
from diffeo.images.scores import pixel_baselines, score_images
from diffeo.objectives import Flipped, Likelihood, RegularizedLikelihood
from diffeo.presets import Glow, ImagePreset
from diffeo.train.loop import fit_rows
from diffeo.train.options import Options, TrainingOptions
from diffeo.train.progress import shown
from diffeo.train.report import Callback, FitReport
from diffeo.train.rows import rows_for, sampled

DEFAULT_SECONDS = 600.0
HELD_OUT = 1000
"""Images held out, at most: enough to tell hundredths of a bit, and measuring takes time from training."""
CHECKS = 8
"""Images scored at the end, at most, in those of one measurement on the way."""
RESERVED = 0.05
"""Part of the time for that, the plain models and writing."""
_LEVELS = 3


@dataclass(frozen=True)
class ImageReport:
    """How a fit to images went, and what the flow is worth beside plain models.

    Args:
        training: how the training went; its figures are nats an image where the objective is a likelihood of
            the images, else the objective's own.
        images: how many had a part, held-out ones included.
        held_out: how many of them were held out.
        valid: mean nats of the held-out images, a bound from below.
        bits_per_dim: lower is better: of this flow in training (``train``, NaN where the objective is not a
            likelihood) and on held-out images (``valid``), and of plain models on the latter.
        seconds: of everything, scoring included.
        classes: the names of the classes it is conditioned on, in the order of their numbers.
        scored: held-out images that the figures stand on: all, or a random part where the time is short.
    """

    training: FitReport
    images: int
    held_out: int
    valid: float
    bits_per_dim: dict[str, float]
    seconds: float
    classes: tuple[str, ...] = ()
    scored: int = 0

    @property
    def verdict(self) -> str:
        """Whether the flow is worth more than independent pixels, in one sentence."""
        gap = self.bits_per_dim["pixels"] - self.bits_per_dim["valid"]
        if gap > 0:
            return f"The flow needs {gap:.3f} bits per dimension fewer than independent pixels."
        return (
            f"The flow needs {-gap:.3f} bits more than independent pixels: train longer, or get more images."
        )

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return asdict(self)

    def notes(self) -> dict[str, Any]:
        """What the model's file says of the run that made it."""
        bits = {name: round(v, 4) for name, v in self.bits_per_dim.items() if math.isfinite(v)}
        notes = {
            **self.training.notes(),
            "images": self.images,
            "seconds": round(self.seconds, 1),
            "bits/dim": bits,
        }
        return {**notes, "classes": list(self.classes)} if self.classes else notes


def fit_images(
    images: Any,
    *,
    context: ArrayLike | None = None,
    preset: ImagePreset | None = None,
    bits: int | None = None,
    encoding: Dequantization | None = None,
    flips: bool = False,
    validation: float = 0.1,
    samples: str | Path | None = None,
    tensorboard: str | Path | None = None,
    **training: Unpack[TrainingOptions],
) -> tuple[Flow, ImageReport]:
    """Fit a flow to images; by default Glow.

    Pixels are dequantized: what is reported is a bound on the log-likelihood of the discrete images,
    also in bits per dimension (``report.bits_per_dim``), beside those of plain models on the same held-out
    images: ``uniform``, and ``pixels``, independent histograms of every pixel. Where the preset minimizes
    something else than a likelihood of the images, the curves are of that.

    Args:
        images: ``Images``, a path for ``read_images``, or uint8 ``(N, C, H, W)``.
        context: one for each image; by default the images' labels, where they have any. Whole numbers
            ``(N,)`` are classes, ``(N, n)`` are vectors, ``(N, c, h, w)`` are images.
        preset: the flow to fit, of the images' shape and the context's kind.
        bits: what is kept of a pixel, from the highest of its 8; by default all.
        encoding: of the pixels; by default the preset's own, ``preset.encoding(bits)``.
        flips: mirror images left to right at random in training.
        validation: fraction of images held out, in (0, 1); never more than 1,000 of them.
        samples: a folder for grids of samples as training goes.
        tensorboard: a folder for its curves and samples.
        training: as ``TrainingOptions`` says. Without any limit 600 seconds for all; by default a step has
            64 images, fewer where they are large.

    Raises:
        DataError: for images that cannot be used.
        ConfigError: for a preset of another shape or context.
        ShapeError: for a height or width that the preset cannot halve.

    Example:
        >>> pixels = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8)
        >>> flow, report = fit_images(pixels, max_steps=2)
        >>> flow.sample(3).shape, sorted(report.bits_per_dim)
        (torch.Size([3, 1, 4, 4]), ['pixels', 'train', 'uniform', 'valid'])
    """
    options = Options(**training)
    if options.unlimited:
        options = replace(options, max_seconds=DEFAULT_SECONDS)
    images = Images.of(images)
    given = _context(images, context)
    spec = _spec(given)
    if preset is None:
        preset = default_preset(images.shape, spec)
    classes = preset.context
    if isinstance(spec, Classes) and isinstance(classes, Classes) and classes.size > spec.size:
        spec = classes  # some may be missing among these images
    if preset.shape != images.shape or preset.context != spec:
        raise ConfigError(
            f"the preset has shape={preset.shape} and context={preset.context}, but the images have shape "
            f"{images.shape} and their context is {spec}; build it with these."
        )
    if not 0 < validation < 1 or len(images) < 2:
        raise DataError(
            f"validation={validation} of {len(images)} images cannot be held out; use a fraction "
            f"between 0 and 1, and at least 2 images."
        )
    if encoding is not None and bits is not None:
        raise ConfigError(f"the encoding keeps {encoding.bits} bits; give bits or an encoding, not both.")
    with seeded(options.seed):
        encoding = preset.encoding(8 if bits is None else bits) if encoding is None else encoding
        flow = preset.build(encoding)
    rows = rows_for(flow, images.pixels, given, None)
    train, valid = rows.split(min(validation, HELD_OUT / len(images)), options.seed)
    assert valid is not None
    objective = preset.objective()
    exact = isinstance(objective, Likelihood | RegularizedLikelihood)
    unit = images.shape if exact else None
    with (
        options.held(),
        _previews(samples, tensorboard, unit, _shown(spec, valid.context), options.clock) as previews,
        shown(options.progress, options.callbacks, _bits(1.0, images.shape) if exact else 1.0) as callbacks,
    ):
        how = replace(
            options,
            batch_size=options.batch_size or default_batch_size(images.shape),
            callbacks=[*callbacks, *previews],
            progress=False,
        )
        reserve = RESERVED * (options.max_seconds or 0.0)
        run = fit_rows(flow, train, valid, Flipped(objective) if flips else objective, how, reserve)
    nats, scored = run.valid, valid
    if not exact or run.checked < len(valid):  # not a likelihood of these images, or of few of them
        scored = valid.take(sampled(len(valid), CHECKS * run.checked, options.seed))
        held_out = Images(scored.x, [str(i) for i in scored.numbers.tolist()])
        nats = float(score_images(flow, held_out, given=scored.context).log_prob.mean())
    report = ImageReport(
        training=run,
        images=len(images),
        held_out=len(valid),
        scored=len(scored),
        valid=nats,
        bits_per_dim={
            "train": _bits(run.train if exact else math.nan, images.shape),
            "valid": _bits(nats, images.shape),
            **pixel_baselines(train.x, scored.x, encoding.bits),
        },
        seconds=options.spent(),
        classes=images.classes if isinstance(spec, Classes) and context is None else (),
    )
    flow.notes = report.notes()
    return flow, report


def default_preset(
    shape: tuple[int, int, int],
    context: Vector | Classes | Image | None = None,
    kind: type[ImagePreset] = Glow,
    **settings: Any,
) -> ImagePreset:
    """A preset of images; its levels, where it has some, as many as the shape can be halved, at most 3."""
    if "levels" in (f.name for f in fields(kind)) and "levels" not in settings:
        sides = math.gcd(shape[1], shape[2])
        halved = next(level for level in range(_LEVELS, -1, -1) if sides % 2**level == 0)
        settings["levels"] = max(1, halved)  # one where it cannot be halved: the preset says so
    return kind(shape, context, **settings)


def class_context(images: Images) -> Classes | None:
    """The context of images with labels."""
    spec = _spec(images.labels)
    assert spec is None or isinstance(spec, Classes)
    return spec


def default_batch_size(shape: tuple[int, int, int]) -> int:
    """64 images; 32 from 64 x 64 on, and so few of large ones that a step's memory stays bounded."""
    pixels = shape[1] * shape[2]
    return 64 if pixels < 64 * 64 else max(4, min(32, 2**19 // pixels))


@contextmanager
def _previews(
    samples: str | Path | None,
    tensorboard: str | Path | None,
    shape: tuple[int, int, int] | None,
    shown: Tensor | None,
    clock: Callable[[], float],
) -> Iterator[list[Callback]]:
    """The callbacks that show samples; what they write is finished however the block ends."""
    previews: list[Callback] = [] if samples is None else [SampleGrids(samples, shown, clock=clock)]
    if tensorboard is None:
        yield previews
        return
    board = TensorBoard(tensorboard, shape, shown, clock=clock)
    try:
        yield [*previews, board]
    finally:
        board.close()


def _shown(spec: Any, held_out: Tensor | None, count: int = 16) -> Tensor | None:
    """Contexts to show samples for: one class after the other, or those of some held-out images."""
    if isinstance(spec, Classes):
        return torch.arange(max(count, min(spec.size, 64))) % spec.size
    return None if held_out is None else held_out[:count]


def _context(images: Images, context: ArrayLike | None) -> Tensor | None:
    if context is None:
        return images.labels
    given = context if isinstance(context, Tensor) else torch.as_tensor(unmasked(context))
    if len(given) != len(images):
        raise ShapeError(f"there are {len(images)} images but {len(given)} contexts; give one for each.")
    return given


def _spec(context: Tensor | None) -> Vector | Classes | Image | None:
    """What kind of context these are."""
    if context is None:
        return None
    if context.dim() == 1 and not context.is_floating_point():
        return Classes(int(context.max()) + 1)
    if context.dim() == 2:
        return Vector(context.shape[1])
    if context.dim() == 4:
        return Image(*context.shape[1:])
    raise ShapeError(
        f"context has shape {tuple(context.shape)} and dtype {context.dtype}; classes are whole numbers of "
        f"shape (N,), vectors have shape (N, n) and images (N, c, h, w)."
    )


def _bits(nats: float, shape: tuple[int, int, int]) -> float:
    return float(bits_per_dim(torch.tensor(nats, dtype=torch.float64), shape))
