"""``Dequantization``: the encoding of images of whole numbers as images of real ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffeo.encodings.base import MonteCarloEncoding, check_whole
from diffeo.encodings.noise import (
    NOISES,
    Noise,
    UniformNoise,
    VariationalNoise,
    hashed_uniform,
    margin,
)
from diffeo.errors import ConfigError, DataError, FormatError, ShapeError
from diffeo.functional.shapes import image_shape


class Dequantization(MonteCarloEncoding):
    """Takes images of pixels 0 .. 255 to real ones and back, so that a density can be fitted to them.

    A whole number stands for its cell of real ones. The model's log-likelihood of an image is that of the
    *discrete* image, in nats, as the lower bound

        log 1/K sum_k p(v_k) levels^-D / q(u_k | x),  v = (floor(x / 2^(8 - bits)) + u) / levels,

    where levels = 2^bits and u in [0, 1)^D comes from the noise; the bound is tighter with more draws and
    with better noise. A density that is uniform over v scores 8 bits per dimension exactly. What the
    bijection sees is v - 1/2 or, with ``logit`` = a, ``log(p / (1 - p))`` at p = a + (1 - 2 a) v.

    Training draws one u per image from torch's default generator. Evaluation uses K = ``num_draws`` fixed
    ones that depend on the image alone, not on its batch. Different images have different ones, so a mean
    over a test set is a mean over the noise too. ``num_draws`` may be changed at any time.

    Images may be uint8 or any real dtype that holds whole numbers; anything else scores -inf. Samples are
    uint8, on the same scale whatever ``bits`` are.

    Args:
        shape: ``(C, H, W)``.
        bits: what is kept of a pixel, from the highest of its 8; 1 to 8.
        noise: ``UniformNoise()``, the default, or ``VariationalNoise(shape)``.
        logit: a, above 0 and at most 1/4, or None for plain centering.
        num_draws: K, 1 to 4096.

    Shape:
        images ``(*batch, C, H, W)``; encoded ``(K, *batch, C, H, W)``.

    Raises:
        ConfigError: for numbers outside these limits.
        ShapeError: for a shape that is not an image's, and for noise made for other images.
        DataError: by ``decode``, for NaN, which a pixel cannot hold.

    References: Theis et al. 2016, section 3.1; Dinh et al. 2017, section 4.1 (the logit); Ho et al. 2019,
    section 3.1 (the bound); Burda et al. 2016 (several draws).

    Example:
        >>> import torch
        >>> encoding = Dequantization((1, 2, 2)).eval()
        >>> v, log_weight = encoding.encode(torch.full((1, 2, 2), 255, dtype=torch.uint8))
        >>> v.shape, bits_per_dim(log_weight, encoding.event_shape)
        (torch.Size([1, 1, 2, 2]), tensor([8.]))
        >>> encoding.decode(v[0]).flatten()
        tensor([255, 255, 255, 255], dtype=torch.uint8)
    """

    max_draws = 4096
    data_dtype: ClassVar[torch.dtype] = torch.uint8
    dtype_buffer: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        bits: int = 8,
        *,
        noise: Noise | None = None,
        logit: float | None = None,
        num_draws: int = 1,
    ):
        super().__init__()
        self.event_shape = self.latent_shape = image_shape(shape)
        check_whole("bits", bits, 1, 8)
        if logit is not None and not (type(logit) in (int, float) and 0 < logit <= 0.25):
            raise ConfigError(f"logit must be None or a number above 0 and at most 0.25, not {logit!r}.")
        self.bits, self.levels, self.logit = bits, 2**bits, logit
        self.noise = UniformNoise() if noise is None else noise
        if self.noise.shape not in (None, self.event_shape):
            raise ShapeError(
                f"the noise is for images {tuple(self.noise.shape or ())}, not {tuple(self.event_shape)}; "
                f"make it with the same shape."
            )
        self.num_draws = num_draws
        self.register_buffer("dtype_buffer", torch.zeros(()), persistent=False)  # carries the model's dtype

    # -- images and real vectors ---------------------------------------------------------------

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pixels, flaws = _whole(x)
        k = pixels >> (8 - self.bits)
        level = k.to(self.dtype_buffer.dtype)
        u, log_q = self.noise(self._uniform(k), self._seen((level + 0.5) / self.levels))
        ends = margin(u.dtype)
        v = (level + u.clamp(ends, 1 - ends)) / self.levels
        log_weight = -self.event_shape.numel() * math.log(self.levels) - log_q
        if self.logit is None:
            y = v - 0.5
        else:
            y, log_slope = _logit(v, self.logit)
            log_weight = log_weight + log_slope.sum((-3, -2, -1))
        if flaws is not None:
            outside, nan = flaws
            y = y.masked_fill(nan, math.nan)
            log_weight = log_weight.masked_fill(_any(outside), -math.inf).masked_fill(_any(nan), math.nan)
        return y, log_weight

    def decode(self, v: Tensor) -> Tensor:
        if bool(v.isnan().any()):
            raise DataError("a latent image holds NaN, which is not a pixel; look where it came from.")
        if self.logit is None:
            v = v + 0.5
        else:
            v = (torch.sigmoid(v) - self.logit) / (1 - 2 * self.logit)
        k = (v * self.levels).floor().clamp(0, self.levels - 1)
        return k.to(torch.uint8) << (8 - self.bits)

    def _seen(self, middles: Tensor) -> Tensor:
        """An image as its noise sees it, in [-1/2, 1/2]: spread out as the flow sees it."""
        if self.logit is None:
            return middles - 0.5
        ends = _logit(torch.tensor(1 - 0.5 / self.levels), self.logit)[0].item()
        return _logit(middles, self.logit)[0] / (2 * ends)

    def _uniform(self, k: Tensor) -> Tensor:
        """Numbers strictly between 0 and 1: one fresh draw, or the image's own fixed ones."""
        dtype = self.dtype_buffer.dtype
        if not self.training:
            return hashed_uniform(k, self.num_draws, dtype)
        return torch.rand((1, *k.shape), dtype=dtype, device=k.device).clamp_(2**-24, 1 - 2**-24)

    # -- files --------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        return {
            "shape": list(self.event_shape),
            "bits": self.bits,
            "noise": {"kind": type(self.noise).__name__, **self.noise.to_json()},
            "logit": self.logit,
            "draws": self.num_draws,
        }

    @classmethod
    def from_json(cls, spec: dict[str, Any]) -> Dequantization:
        if not isinstance(spec, dict) or set(spec) != {"shape", "bits", "noise", "logit", "draws"}:
            raise FormatError("the dequantization in this file is malformed: wrong entries.")
        options = spec["noise"]
        kind = NOISES.get(str(options.get("kind"))) if isinstance(options, dict) else None
        wanted = {"kind", "hidden", "layers"} if kind is VariationalNoise else {"kind"}
        if kind is None or set(options) != wanted:
            raise FormatError("the noise in this file is of a kind that this release does not know.")
        try:
            shape = image_shape(spec["shape"])
            own = {key: value for key, value in options.items() if key != "kind"}
            noise = VariationalNoise(shape, **own) if kind is VariationalNoise else UniformNoise()
            return cls(shape, spec["bits"], noise=noise, logit=spec["logit"], num_draws=spec["draws"])
        except (ConfigError, ShapeError) as error:
            raise FormatError(f"the dequantization in this file is malformed: {error}") from None

    def extra_repr(self) -> str:
        return f"{tuple(self.event_shape)}, bits={self.bits}, logit={self.logit}, num_draws={self.num_draws}"


def bits_per_dim(log_prob: Tensor, event_shape: Sequence[int]) -> Tensor:
    """A log-likelihood in nats per image as bits per dimension: ``-log_prob / (D log 2)``, lower is better.

    Of images behind ``Dequantization`` it is on average an upper bound on what coding one of their numbers
    takes. The estimate for a single image may lie below 0, which no code does.

    Args:
        log_prob: nats, any shape.
        event_shape: of one image; D is the product of its sizes.

    Example:
        >>> import torch
        >>> bits_per_dim(torch.tensor([-12.0, 6.0]), (1, 2, 3))
        tensor([ 2.8854, -1.4427])
    """
    return log_prob / (-math.log(2) * math.prod(event_shape))


def _whole(x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Pixels as uint8; where x holds anything but whole numbers 0 .. 255, and where it holds NaN."""
    if x.dtype == torch.uint8:
        return x, None
    x = x if x.is_floating_point() else x.long()
    nan = x.isnan()
    outside = ((x < 0) | (x > 255) | (x != x.floor())) & ~nan
    return x.masked_fill(outside | nan, 0).to(torch.uint8), (outside, nan)


def _logit(v: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """``log(p / (1 - p))`` at ``p = alpha + (1 - 2 alpha) v``, from both distances, and its log-slope."""
    inner = 1 - 2 * alpha
    below, above = (alpha + inner * v).log(), (alpha + inner * (1 - v)).log()
    return below - above, math.log(inner) - below - above


def _any(t: Tensor) -> Tensor:
    return t.flatten(-3).any(-1)
