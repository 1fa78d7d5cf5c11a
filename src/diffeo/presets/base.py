"""What presets share: fields that serialize, caps on every size, ``build``.

A preset says what trains it (``objective()``, ``learning_rate``), so ``fit`` and the command line need not
be told; both can be overruled. ``objectives`` stand below ``presets`` for that.

``VectorPreset`` has ``features``, ``ImagePreset`` a shape. ``base`` is given the latent shape, for a
multiscale flow's latent is flat.

A preset of images brings its encoding. On MNIST Glow's bits per dimension after 400 steps of 64 images were
1.554 on logits with uniform noise and 1.314 with variational noise; on centered pixels they were 3.80 after
775 steps (one run each). A black ground is a cell 1/256 wide, which affine layers take long to find. A logit
spreads it out, and noise that may choose its place in the cell spares the flow its edges. So both are the
default of flows on the whole line.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from diffeo._fields import Shape, Size, check_fields
from diffeo.bases import Normal
from diffeo.bases.base import Base
from diffeo.bijections.base import Bijection
from diffeo.contexts import ContextSpec, Vector
from diffeo.elementwise import LocationScale, RationalQuadratic
from diffeo.elementwise.base import Elementwise
from diffeo.encodings.base import Encoding
from diffeo.encodings.dequantization import Dequantization
from diffeo.encodings.noise import VariationalNoise
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.functional.shapes import image_shape
from diffeo.objectives import Likelihood, Objective

LOGIT = 1e-4
"""How far from 0 and 1 the logits of images end, in a preset's own encoding."""
REACH = 10.0
"""How many standard deviations the nets of a preset see; further out they are constant."""
MAX_SCALE = LocationScale.max_scale
"""How far the location and scale behind each spline may stretch, unless a preset is told otherwise."""


def splines(bins: int, bound: float, max_scale: float) -> Elementwise:
    """A preset's splines, their tails the identity where ``max_scale`` is 1."""
    spline = RationalQuadratic(bins, bound)
    return spline if max_scale == 1 else LocationScale(spline, max_scale)


@dataclass(frozen=True)
class Preset(ABC):
    """A flow by its sizes: a frozen dataclass whose ``build`` gives a ``Flow`` that can be saved.

    The flow keeps it as ``flow.preset``. Every field is a plain value, so it goes into the model's file and
    rebuilds the flow.
    """

    learning_rate: ClassVar[float] = 2e-3
    """Peak of the learning rate where ``fit`` is given no settings."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    @abstractmethod
    def conditioned_on(self) -> ContextSpec | None:
        """What the flow's context is, or None."""

    @abstractmethod
    def map(self, context_shape: torch.Size | None) -> Bijection:
        """The map of the data, its last layers at zero, for encoded contexts of this shape."""

    def base(self, latent_shape: torch.Size) -> Base:
        """The base density: standard normal unless the preset says otherwise."""
        return Normal(latent_shape)

    def objective(self) -> Objective:
        """What ``fit`` minimizes unless told otherwise."""
        return Likelihood()

    def build(self, encoding: Encoding | None = None) -> Flow:
        """The untrained flow; it equals its base density up to fixed maps and permutations."""
        spec = self.conditioned_on
        context = None if spec is None else spec.build()
        bijection = self.map(None if context is None else context.latent_shape)
        flow = Flow(bijection, self.base(bijection.latent_shape), encoding, context)
        flow.preset = self
        return flow


@dataclass(frozen=True)
class VectorPreset(Preset):
    """A preset for flows of vectors: tables.

    Args:
        features: D, columns of the data.
        context: ``Vector(n)``, ``Classes(n)``, a ``ContextSpec`` of one's own that the layers see as a
            vector, an integer (short for ``Vector``), or None.
    """

    features: Size
    context: ContextSpec | int | None = None
    circular: ClassVar[tuple[int, ...]] = ()
    """Columns that are angles, in a preset that has this field; others take every column for real."""

    def __post_init__(self) -> None:
        _set_context(self)
        super().__post_init__()
        if (spec := self.conditioned_on) is not None and len(spec.latent_shape) != 1:
            raise ConfigError(
                f"{type(self).__name__} is for vectors; its layers cannot see a context of shape "
                f"{tuple(spec.latent_shape)}."
            )

    @property
    def conditioned_on(self) -> ContextSpec | None:
        assert not isinstance(self.context, int)
        return self.context

    def map(self, context_shape: torch.Size | None) -> Bijection:
        return self.bijection(0 if context_shape is None else context_shape.numel())

    @abstractmethod
    def bijection(self, context_features: int) -> Bijection:
        """The map, for contexts of so many numbers."""


@dataclass(frozen=True)
class ImagePreset(Preset):
    """A preset for flows of images, behind a ``Dequantization`` as a rule.

    Args:
        shape: ``(channels, height, width)``.
        context: ``Classes(n)``, ``Image(c, h, w)``, ``Vector(n)``, a ``ContextSpec`` of one's own that the
            layers see as a vector or an image, an integer (short for ``Vector``), or None.
    """

    learning_rate: ClassVar[float] = 1e-3

    shape: Shape
    context: ContextSpec | int | None = None

    def __post_init__(self) -> None:
        _set_context(self)
        super().__post_init__()
        image_shape(self.shape)
        if (spec := self.conditioned_on) is not None and len(spec.latent_shape) not in (1, 3):
            raise ConfigError(
                f"{type(self).__name__} takes a context that its layers see as a vector or an image, not one "
                f"of shape {tuple(spec.latent_shape)}."
            )

    @property
    def conditioned_on(self) -> ContextSpec | None:
        assert not isinstance(self.context, int)
        return self.context

    def encoding(self, bits: int = 8) -> Dequantization:
        """The encoding that suits this preset: logits of variationally dequantized pixels as a rule.

        On logits black and white grounds are as wide as what is between them, which shortens training
        many times where images have such grounds.
        """
        return Dequantization(self.shape, bits, noise=VariationalNoise(self.shape), logit=LOGIT)


def _set_context(preset: VectorPreset | ImagePreset) -> None:
    """An integer is short for a ``Vector``; what is not a context is refused."""
    context = preset.context
    if isinstance(context, int) and not isinstance(context, bool):
        object.__setattr__(preset, "context", Vector(context))
    elif context is not None and not isinstance(context, ContextSpec):
        raise ConfigError(
            f"{type(preset).__name__}.context must be Vector(n), Classes(n), Image(c, h, w), another "
            f"ContextSpec, an integer or None, not {context!r}."
        )
