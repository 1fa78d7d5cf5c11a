"""Images under a flow: their scores, and plain models to compare with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffeo.encodings import Dequantization, bits_per_dim
from diffeo.errors import ConfigError, DataError
from diffeo.flow import Flow, in_parts
from diffeo.images.read import Images

_WORK = 2**22
"""Numbers that a histogram of some pixels may take."""


@dataclass(frozen=True)
class ImageScores:
    """Log-likelihoods of images.

    Args:
        names: of the images.
        log_prob: nats of each discrete image: a bound from below.
        bits_per_dim: the same in bits a number; lower is better.
    """

    names: list[str]
    log_prob: np.ndarray
    bits_per_dim: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """The columns of a table of them."""
        return {"name": np.array(self.names), "bits_per_dim": self.bits_per_dim, "log_prob": self.log_prob}


def image_door(flow: Flow) -> Dequantization:
    """The flow's encoding of images; a ``ConfigError`` where it has none."""
    if not isinstance(flow.encoding, Dequantization):
        raise ConfigError("this model was not fitted to images; use diffeo fit, score and sample for tables.")
    return flow.encoding


def score_images(
    flow: Flow, images: Images, *, context: Tensor | None = None, draws: int | None = None, chunk: int = 64
) -> ImageScores:
    """Score every image under a flow, in evaluation mode: deterministic, and each image for itself.

    Args:
        flow: fitted to images.
        images: of the flow's shape.
        context: one for each image, where the flow takes one.
        draws: of dequantization noise, for this call; more give a tighter bound at their cost.
        chunk: images times draws at a time, or the draws of one image.

    Raises:
        DataError: for images of another shape; it names the cure.
        ConfigError: for a flow of something else.
    """
    door = image_door(flow)
    if images.pixels.shape[1:] != flow.event_shape:
        channels, *size = flow.event_shape
        raise DataError(
            f"the images have shape {images.shape} but the model's are {(channels, *size)}; "
            f"read them with size={(*size,)} and channels={channels}."
        )
    before = door.num_draws
    try:
        door.num_draws = before if draws is None else draws
        step = max(1, chunk // door.num_draws)
        log_prob = in_parts(flow, flow.log_prob, images.pixels, context, batch_size=step).double()
    finally:
        door.num_draws = before
    return ImageScores(images.names, log_prob.numpy(), bits_per_dim(log_prob, flow.event_shape).numpy())


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
