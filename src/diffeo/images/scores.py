"""Images under a flow: their scores, and plain models to compare with."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffeo._arrays import not_finite
from diffeo.encodings import bits_per_dim
from diffeo.errors import DataError
from diffeo.flow import Flow, in_parts
from diffeo.images.model import contexts_for, image_encoding, images_for
from diffeo.images.read import Images

_WORK = 2**22
"""Numbers that a histogram of some pixels may take."""


@dataclass(frozen=True)
class ImageScores:
    """Log-likelihoods of images.

    Args:
        names: of the images.
        log_prob: nats of each discrete image: a bound from below, on average over the noise. A bound is not a
            probability: of a plain image the draws at hand may lie where the density is high, and then their
            mean is above 1, and the bits are below 0. Nothing is clipped; more draws bring it down.
        bits_per_dim: the same in bits a number; lower is better.
    """

    names: list[str]
    log_prob: np.ndarray
    bits_per_dim: np.ndarray

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of these scores, a sentence each: how many are not finite, or above what a probability
        can be."""
        lost, above = (*not_finite(self.log_prob, "images"),), int((self.log_prob > 0).sum())
        if not above:
            return lost
        of = f"{above:,} of {len(self.log_prob):,} images"
        return (
            *lost,
            f"{of} score above probability 1 (bits below 0): the bound holds on average over the noise only; "
            f"use more draws.",
        )

    def columns(self) -> dict[str, np.ndarray]:
        """The columns of a table of them."""
        return {"name": np.array(self.names), "bits_per_dim": self.bits_per_dim, "log_prob": self.log_prob}


def score_images(
    flow: Flow, images: Any, *, given: Any = None, num_draws: int | None = None, batch_size: int = 64
) -> ImageScores:
    """Score every image under a flow, in evaluation mode: deterministic, and each image for itself.

    Args:
        flow: fitted to images.
        images: ``Images``, a path, which is read as the flow's images are, or uint8 ``(N, C, H, W)``.
        given: a class by name or number, classes, or contexts as ``contexts_for`` takes them.
        num_draws: of dequantization noise, for this call; more give a tighter bound at their cost.
        batch_size: images times draws at a time, or the draws of one image.

    Raises:
        DataError: for images of another shape; it names the cure.
        ConfigError: for a flow of something else.
        ContextError: for a class that there is not, and a context that is missing or not wanted.

    Example:
        >>> import diffeo
        >>> pixels = torch.randint(0, 256, (40, 1, 4, 4)).byte()
        >>> flow, _ = diffeo.fit_images(pixels, max_steps=1)
        >>> score_images(flow, pixels[:3]).bits_per_dim.shape
        (3,)
    """
    encoding = image_encoding(flow)
    images = images_for(flow, images) if isinstance(images, str | os.PathLike) else Images.of(images)
    if images.pixels.shape[1:] != flow.event_shape:
        channels, *size = flow.event_shape
        raise DataError(
            f"the images have shape {images.shape} but the model's are {(channels, *size)}; "
            f"read them with size={(*size,)} and channels={channels}."
        )
    context = contexts_for(flow, given, len(images))
    before = encoding.num_draws
    try:
        encoding.num_draws = before if num_draws is None else num_draws
        step = max(1, batch_size // encoding.num_draws)
        log_prob = in_parts(flow, flow.log_prob, images.pixels, context, batch_size=step).double()
    finally:
        encoding.num_draws = before
    return ImageScores(images.names, log_prob.numpy(), bits_per_dim(log_prob, flow.event_shape).numpy())


def pixel_error(images: Tensor, others: Tensor) -> tuple[int, float]:
    """The largest difference of a pixel, of 255, and the share of pixels that differ at all.

    Args:
        images: bytes, of any shape.
        others: likewise, of the same shape.

    Example:
        >>> pixel_error(torch.tensor([9, 9], dtype=torch.uint8), torch.tensor([9, 2], dtype=torch.uint8))
        (7, 0.5)
    """
    error = (images.int() - others.int()).abs()
    return int(error.max()), float((error > 0).double().mean())


def pixel_baselines(train: Tensor, valid: Tensor, bits: int = 8) -> dict[str, float]:
    """Bits per dimension of plain models on held-out images; a flow should need fewer.

    ``uniform``: every value as likely as any other. ``pixels``: all independent, each with a histogram of its
    own over the training images, where every count is 1/2 larger.

    Args:
        train: bytes ``(N, C, H, W)``.
        valid: likewise.
        bits: what is kept of a pixel, from the highest.

    References: Krichevsky and Trofimov 1981, for the 1/2.

    Example:
        >>> blank = torch.zeros(100, 1, 2, 2, dtype=torch.uint8)
        >>> found = pixel_baselines(blank, blank)
        >>> found["uniform"], round(found["pixels"], 3)
        (8.0, 1.182)
    """
    levels = 2**bits
    flat = [(part.flatten(1) >> (8 - bits)) for part in (train, valid)]
    count, dims = flat[0].shape
    step = max(1, _WORK // max(levels, count, len(flat[1])))
    nats = 0.0
    for start in range(0, dims, step):
        seen, new = (part[:, start : start + step].T.long() for part in flat)
        counts = torch.zeros(len(seen), levels).scatter_add_(1, seen, torch.ones(seen.shape))
        log_p = ((counts + 0.5) / (count + 0.5 * levels)).log()
        nats -= float(log_p.gather(1, new).sum(dtype=torch.float64))
    return {"uniform": float(bits), "pixels": nats / (len(valid) * dims * math.log(2))}
