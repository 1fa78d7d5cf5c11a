"""Dequantization noise, uniform or learned, and its density.

Noise in evaluation is a hash of the image, not a fixed pattern. A score then does not depend on the batch,
and the mean over a test set averages over as many draws as there are images.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffeo.bijections import ImageCoupling
from diffeo.elementwise import Affine
from diffeo.encodings.base import check_whole
from diffeo.functional.shapes import image_shape, sum_event
from diffeo.nets import ConvNet

_WORD = 0xFFFFFFFF


class Noise(nn.Module, ABC):
    """A density on the unit cube for each image: where in its cell of real vectors an image is placed.

    It draws by transforming uniform numbers, so that training (fresh ones) and evaluation (fixed ones)
    are one computation, with gradients to the noise's own parameters.
    """

    shape: torch.Size | None = None
    """Shape of the images it is for; None for any."""

    @abstractmethod
    def forward(self, uniform: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform numbers strictly between 0 and 1 to ``u`` in [0, 1], and ``log q(u | image)``.

        ``uniform`` and ``u`` are ``(K, *batch, C, H, W)``, ``image`` is ``(*batch, C, H, W)`` with pixels
        between -1/2 and 1/2, ``log q`` is ``(K, *batch)``.
        """

    def to_json(self) -> dict[str, Any]:
        """What rebuilds the noise but for the images' shape, as keyword arguments."""
        return {}


class UniformNoise(Noise):
    """The same density everywhere in the cell: ``log q(u | x) = 0``.

    References: Uria et al. 2013 (RNADE); Theis et al. 2016, section 3.1.

    Example:
        >>> import torch
        >>> uniform = torch.full((1, 5, 1, 2, 2), 0.25)
        >>> UniformNoise()(uniform, torch.zeros(5, 1, 2, 2))[1]
        tensor([[0., 0., 0., 0., 0.]])
    """

    def forward(self, uniform: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        return uniform, uniform.new_zeros(uniform.shape[:-3])


class VariationalNoise(Noise):
    """A flow that learns where in its cell an image is best placed: a tighter bound than uniform noise.

    Its weights train with the flow's own. It starts as uniform noise, up to the ``margin`` at a cell's ends.

    Formula: ``u = sigmoid(w)`` up to that margin, ``w = g(e; x)``, e logistic: ``log q(u | x) = log p(e)
    - log|det dg/de| - log|det du/dw|``. The map g is affine for every pixel, then ``layers`` affine
    couplings over alternating checkerboards, all conditioned on features that two 3 x 3 convolutions
    find in x. An image of one number has no couplings. Cost: ``9 h (C + h) + layers (27 C h + 2 h^2)``
    multiplications a pixel and draw, h being ``hidden``.

    Args:
        shape: ``(C, H, W)`` of the images.
        hidden: channels of the features and of the couplings' nets, 1 to 4096.
        layers: how many couplings, 0 to 64.

    Raises:
        ConfigError: for numbers outside these limits.
        ShapeError: for a shape that is not an image's.

    References: Ho et al. 2019 (Flow++), section 3.1.

    Example:
        >>> import torch
        >>> noise = VariationalNoise((1, 2, 2), hidden=4)
        >>> u, log_q = noise(torch.full((1, 5, 1, 2, 2), 0.25), torch.zeros(5, 1, 2, 2))
        >>> [round(number, 2) for number in u[0, 0, 0, 0].tolist()], log_q.shape
        ([0.25, 0.25], torch.Size([1, 5]))
    """

    def __init__(self, shape: Sequence[int], hidden: int = 16, layers: int = 2):
        super().__init__()
        size = image_shape(shape)
        check_whole("hidden", hidden, 1, 4096)
        check_whole("layers", layers, 0, 64)
        self.shape, self.hidden, self.layers, self.family = size, hidden, layers, Affine()
        self.near = nn.Conv2d(size[0], hidden, 3, padding=1)
        self.far = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.affine = nn.Conv2d(hidden, size[0] * self.family.num_params, 1)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)  # type: ignore[arg-type]
        i, j, k = torch.meshgrid(*map(torch.arange, size), indexing="ij")
        masks = [(i + j + k + turn) % 2 == 0 for turn in range(layers if size.numel() > 1 else 0)]
        self.couplings = nn.ModuleList(self._coupling(mask) for mask in masks)

    def _coupling(self, mask: Tensor) -> ImageCoupling:
        channels, *size = mask.shape
        # of images of one pixel, which are vectors, the net sees and changes only its own channels
        seen, changed = (int(mask.sum()), int((~mask).sum())) if size == [1, 1] else (channels, channels)
        params, context = changed * self.family.num_params, (self.hidden, *size)
        net = ConvNet((seen, *size), params, self.hidden, context_shape=context)
        return ImageCoupling(mask, net, self.family)

    def forward(self, uniform: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        rows = image.reshape(-1, *image.shape[-3:])
        # channels last in memory, in which convolutions of many channels are twice as fast
        near = F.relu(self.near(rows)).contiguous(memory_format=torch.channels_last)
        features = F.relu(self.far(near))
        params = self.affine(features).unflatten(1, (rows.shape[1], self.family.num_params)).movedim(2, -1)

        draws = len(uniform)
        e = uniform.log() - torch.log1p(-uniform)
        e = e.reshape(draws * len(rows), *rows.shape[1:])
        w, log_slope = self.family.forward(e, _repeat(params, draws))
        log_q = sum_event(_log_logistic(e) - log_slope, 3)
        features = _repeat(features, draws).contiguous(memory_format=torch.channels_last)
        for coupling in self.couplings:
            w, log_det = coupling(w, features)
            log_q = log_q - log_det
        log_q = log_q - sum_event(_log_logistic(w), 3)
        # off the ends by a map whose slope is counted: to clamp would heap up mass that the flow could find
        ends = margin(w.dtype)
        u = ends + (1 - 2 * ends) * torch.sigmoid(w)
        log_q = log_q - math.prod(image.shape[-3:]) * math.log1p(-2 * ends)
        return u.reshape(uniform.shape), log_q.reshape(uniform.shape[:-3])

    def to_json(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "layers": self.layers}


NOISES: dict[str, type[UniformNoise] | type[VariationalNoise]] = {
    "UniformNoise": UniformNoise,
    "VariationalNoise": VariationalNoise,
}
"""Noises that a model file can hold, by class name."""


def margin(dtype: torch.dtype) -> float:
    """How far noise stays from a cell's ends, which belong to its neighbors, at least after rounding."""
    return 1024 * torch.finfo(dtype).eps


def hashed_uniform(
    levels: Tensor, num_draws: int, dtype: torch.dtype, shape: Sequence[int] | None = None
) -> Tensor:
    """Fixed numbers strictly between 0 and 1, uniform and independent, for each image from its own pixels.

    The first draws are the same however many there are. Two images that differ in any pixel have unrelated
    numbers, so that a mean over many images is one over the noise as well.

    Args:
        levels: whole numbers, ``(*batch, C, H, W)``.
        num_draws: K.
        dtype: of the answer.
        shape: of each image's numbers, any three sizes; by default ``(C, H, W)``.

    Shape: ``(K, *batch, *shape)``.
    """
    places = _mix(torch.arange(levels.shape[-3:].numel(), device=levels.device) * 0x9E3779B9)
    # an odd multiplier for each place: images that differ in one pixel never have the same sum
    key = _mix((levels.flatten(-3) * (places | 1)).sum(-1))
    numbers = torch.arange(num_draws, device=levels.device).reshape(-1, *[1] * key.dim())
    key = _mix(key + numbers * 0x85EBCA6B)
    shape = levels.shape[-3:] if shape is None else torch.Size(shape)
    own = _mix(torch.arange(shape.numel(), device=levels.device) * 0x9E3779B9)
    words = _mix(key[..., None] + own).reshape(num_draws, *levels.shape[:-3], *shape)
    return ((words >> 9).to(dtype) + 0.5) * 2.0**-23  # 24 bits with the half: exact in float32


def _mix(x: Tensor) -> Tensor:
    """A 32-bit finalizer of two multiplications, of words held in int64."""
    x = x & _WORD
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _WORD
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _WORD
    return x ^ (x >> 16)


def _repeat(t: Tensor, times: int) -> Tensor:
    """The rows of t, all of them so many times over."""
    return t if times == 1 else t.expand(times, *t.shape).flatten(0, 1)


def _log_logistic(w: Tensor) -> Tensor:
    """The log of the logistic density, which is the slope of the sigmoid."""
    return F.logsigmoid(w) + F.logsigmoid(-w)
