"""Decoders: the density of data, given their latent variables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from diffeo.bases.normal import MAX_LOG_SCALE
from diffeo.contracts import Initializable
from diffeo.errors import ConfigError, ShapeError
from diffeo.flow import Flow
from diffeo.functional import matmul_precision
from diffeo.functional.affine import soft_clip
from diffeo.functional.shapes import sum_event


class Decoder(nn.Module, ABC):
    """A density, or a probability, of data x given a latent vector z.

    Args:
        event_shape: shape of one data point.
        features: L, numbers of a latent vector.

    Shape: ``x``: ``(*batch, *event_shape)``, ``z``: ``(*batch, L)``; batch axes broadcast, aligned at
    the right.
    """

    data_dtype: torch.dtype = torch.float64
    """What ``fit`` holds data in."""

    def __init__(self, event_shape: Sequence[int], features: int):
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.features = features

    @abstractmethod
    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """``log p(x | z)`` in nats; -inf outside the data's support."""

    @abstractmethod
    def sample(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        """One draw of x for every z."""

    @abstractmethod
    def mean(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        """The mean of x given z, as real numbers: the picture to look at."""

    def seen(self, x: Tensor) -> Tensor:
        """The data as an encoder's net likes to see them; of their own dtype or a floating one."""
        return x


class _NetDecoder(Decoder):
    """A decoder whose parameters a net gives: so many numbers for each number of the data."""

    data_dtype = torch.uint8

    def __init__(self, net: nn.Module, event_shape: Sequence[int], features: int, params: int):
        super().__init__(event_shape, features)
        self.net, self.params = net, params

    def numbers(self, z: Tensor) -> Tensor:
        """What the net gives, ``(*batch, params, *event_shape)``."""
        given = matmul_precision.run_net_alone(self.net, z.reshape(-1, self.features))
        wanted = self.params * self.event_shape.numel()
        if given.dim() < 2 or given[:1].numel() != wanted * len(given[:1]):
            raise ShapeError(
                f"the decoder's net gives {tuple(given.shape[1:])} for one latent vector, but data of shape "
                f"{tuple(self.event_shape)} need {wanted} numbers: {self.params} for each of theirs."
            )
        return given.reshape(*z.shape[:-1], self.params, *self.event_shape)

    def _sum(self, terms: Tensor, x: Tensor, top: int) -> Tensor:
        """The terms' sum over the event; -inf for data that are not whole numbers from 0 to ``top``."""
        bad = x > top
        if x.is_floating_point():
            bad = bad | (x < 0) | ((x != x.floor()) & ~x.isnan())
        elif x.dtype != torch.uint8:
            bad = bad | (x < 0)
        dims = len(self.event_shape)
        outside = bad.flatten(x.dim() - dims).any(-1) if dims else bad
        return sum_event(terms, dims).masked_fill(outside, -torch.inf)


class Bernoulli(_NetDecoder):
    """Each number is 0 or 1, independently given z: binary images.

    Formula: ``log p(x | z) = sum_i x_i l_i - log(1 + exp l_i)``, l being the net's logits. Other numbers
    than 0 and 1 score -inf.

    Args:
        net: any module from ``(rows, features)`` to a logit for each number of the data,
            ``(rows, *event_shape)`` or flat.
        event_shape: shape of one data point.
        features: L, numbers of a latent vector.

    References: Kingma and Welling 2014, appendix C.1.

    Example:
        >>> import torch
        >>> from diffeo.nets import MLP
        >>> decoder = Bernoulli(MLP(2, 6), (2, 3), 2)
        >>> decoder.log_prob(torch.ones(5, 2, 3), torch.zeros(5, 2))[0] / 6
        tensor(-0.6931, grad_fn=<DivBackward0>)
    """

    def __init__(self, net: nn.Module, event_shape: Sequence[int], features: int):
        super().__init__(net, event_shape, features, 1)

    def _logits(self, z: Tensor) -> Tensor:
        return self.numbers(z).squeeze(z.dim() - 1)

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        logits = self._logits(z)
        return self._sum(x.to(logits.dtype) * logits - F.softplus(logits), x, 1)

    def sample(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        mean = self.mean(z)
        uniform = torch.rand(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return (uniform < mean).to(torch.uint8)

    def mean(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        return self._logits(z).sigmoid()


class DiscretizedLogistic(_NetDecoder):
    """Each number is a whole one of 0 .. levels - 1, a logistic variable rounded: pixels of 8 bits.

    Formula: with t the data on a scale from -1 to 1, half a cell ``h = 1 / (levels - 1)``, and the net's
    mean m and scale s, a number has the logistic mass ``S(b) - S(a)`` of its cell, ``b = (t + h - m) / s``
    and ``a = (t - h - m) / s``; the first and the last cell go on to infinity, so that all masses
    sum to one. Computed as ``S(b) S(-a) (1 - exp(a - b))``, which loses no digits however far the cell is
    from m. Limits: scales stay within (1e-3, 1e3) of half the range, by a soft clip of their logarithm.
    Anything but these whole numbers scores -inf.

    Args:
        net: any module from ``(rows, features)`` to two numbers for each of the data's: all means first,
            then all logarithms of scales, ``(rows, 2, *event_shape)`` or flat.
        event_shape: shape of one data point.
        features: L, numbers of a latent vector.
        levels: from 2 to 256.

    Raises:
        ConfigError: for levels outside these limits.

    References: Kingma et al. 2016 (IAF), section 5.2 and appendix; Salimans et al. 2017 (PixelCNN++),
    section 2.1.

    Example:
        >>> import torch
        >>> from diffeo.nets import MLP
        >>> decoder = DiscretizedLogistic(MLP(2, 2), (1,), 2)
        >>> x, z = torch.arange(256).unsqueeze(-1), torch.zeros(256, 2)
        >>> round(decoder.log_prob(x, z).exp().sum().item(), 5)
        1.0
    """

    def __init__(self, net: nn.Module, event_shape: Sequence[int], features: int, levels: int = 256):
        super().__init__(net, event_shape, features, 2)
        if type(levels) is not int or not 2 <= levels <= 256:
            raise ConfigError(f"levels must be a whole number from 2 to 256, not {levels!r}.")
        self.levels = levels

    def _mean_and_log_scale(self, z: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.numbers(z).unbind(z.dim() - 1)
        return mean, soft_clip(raw, MAX_LOG_SCALE)

    def seen(self, x: Tensor) -> Tensor:
        x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        return x * (2 / (self.levels - 1)) - 1

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        mean, log_scale = self._mean_and_log_scale(z)
        rate, half = torch.exp(-log_scale), 1 / (self.levels - 1)
        t = 2 * half * x.to(mean.dtype) - 1 - mean
        below = torch.where(x > 0, F.logsigmoid((half - t) * rate), 0.0)  # log S(-a)
        above = torch.where(x < self.levels - 1, F.logsigmoid((half + t) * rate), 0.0)  # log S(b)
        inside = (x > 0) & (x < self.levels - 1)
        width = torch.where(inside, torch.log(-torch.expm1(-2 * half * rate)), 0.0)
        return self._sum(below + above + width, x, self.levels - 1)

    def sample(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        mean, log_scale = self._mean_and_log_scale(z)
        uniform = torch.rand(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        t = mean + log_scale.exp() * torch.logit(uniform, eps=torch.finfo(mean.dtype).tiny)
        return self._level(t).round().to(torch.uint8)

    def mean(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        """The level of the logistic's own mean, between 0 and ``levels - 1``."""
        return self._level(self._mean_and_log_scale(z)[0])

    def _level(self, t: Tensor) -> Tensor:
        return ((t + 1) * (0.5 * (self.levels - 1))).clamp(0, self.levels - 1)


class FlowDecoder(Decoder, Initializable):
    """Data are what a flow makes of z: the numbers of x depend on each other given z, as they do in pictures.

    The flow's context is z. With a flow this flexible z may end up unused: watch how far the posteriors are
    from the prior.

    Args:
        flow: a conditional one, of context shape ``(L,)``.

    Raises:
        ShapeError: for a flow whose context is not a vector.

    References: Chen et al. 2017, "Variational lossy autoencoder", section 3.1; Morrow and Chiu 2020,
    "Variational autoencoders with normalizing flow decoders".

    Example:
        >>> import torch, diffeo
        >>> decoder = FlowDecoder(diffeo.presets.MAF(features=3, context=2).build())
        >>> decoder.log_prob(torch.zeros(5, 3), torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, flow: Flow):
        if flow.context_shape is None or len(flow.context_shape) != 1:
            shape = None if flow.context_shape is None else tuple(flow.context_shape)
            raise ShapeError(
                f"a decoder's flow has the latent vector for its context, but this one's context shape is "
                f"{shape}; build it with context=L, the numbers of a latent vector."
            )
        super().__init__(flow.event_shape, flow.context_shape[0])
        self.flow = flow
        if flow.encoding is not None:
            self.data_dtype = flow.encoding.data_dtype

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        return self.flow.log_prob(x if self.flow.encoding is not None else x.to(z.dtype), z)

    def sample(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        return self.flow.sample((), z, generator=generator)

    def mean(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        """The mean of 16 draws, since a flow's own has no closed form."""
        draws = self.flow.sample(16, z, generator=generator)
        return draws.to(z.dtype).mean(0)

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set the flow from training rows and latent vectors of theirs, which are the context."""
        dtype = x.dtype if context is None or self.flow.encoding is not None else context.dtype
        self.flow.initialize(x.to(dtype), context)
