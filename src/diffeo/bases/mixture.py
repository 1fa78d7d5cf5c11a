"""A mixture of normals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from diffeo.bases.base import Base
from diffeo.bases.normal import MAX_LOG_SCALE
from diffeo.errors import ConfigError
from diffeo.functional.affine import soft_clip
from diffeo.functional.seeding import generator
from diffeo.functional.shapes import sum_event


class MixtureOfNormals(Base):
    """K diagonal normals with learned weights, means and scales.

    A continuous flow cannot tear one mode into several; a base that has several modes need not be
    torn.

    Formula: ``log p(z) = logsumexp_k (log w_k + log N(z; m_k, s_k))`` with ``w`` a softmax,
    ``m_k = offset_k + loc_k`` and every scale within a factor 1000 of where it starts. Components that
    start equal would stay equal, so each has an offset: fixed, distinct, the same in every run, and
    part of the state. With those and scales that start at ``sqrt(1/2)`` the untrained mixture has mean
    0 and variance 1 in every feature (one component alone is the standard normal). Support: the whole
    line. Cost: K squares a feature, and memory K times that of z.

    Samples are reparameterized in means and scales; the choice of component carries no gradient to
    the weights.

    Args:
        event_shape: shape of one latent point.
        components: K, at least 1.

    Shape:
        ``z``: ``(*batch, *event_shape)``, log-density: ``(*batch,)``.

    Raises:
        ConfigError: for fewer than one component.

    References:
        Izmailov, Kirichenko, Finzi and Wilson (2020), *Semi-Supervised Learning with Normalizing
        Flows*.

    Example:
        >>> import torch
        >>> from diffeo.bases import MixtureOfNormals
        >>> base = MixtureOfNormals((2,), components=4)
        >>> base.sample((5,)).shape, base.log_prob(torch.zeros(5, 2)).shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    offset: Tensor

    def __init__(self, event_shape: Sequence[int], components: int):
        super().__init__(event_shape)
        if components < 1:
            raise ConfigError(f"components must be at least 1, got {components}.")
        spread = 0.0 if components == 1 else math.sqrt(0.5)
        self.components = components
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.zeros(components, *self.event_shape))
        self.log_scale = nn.Parameter(torch.zeros(components, *self.event_shape))
        self._log_spread_within = 0.5 * math.log(1 - spread**2)
        self.register_buffer("offset", spread * _standard_points(components, self.event_shape))

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        log_weight = torch.log_softmax(self.logits, -1)
        log_scale = self._log_spread_within + soft_clip(self.log_scale, MAX_LOG_SCALE)
        return log_weight, self.offset + self.loc, log_scale

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        log_weight, loc, log_scale = self._parts()
        dims = len(self.event_shape)
        standard = (z.unsqueeze(-1 - dims) - loc) * torch.exp(-log_scale)
        terms = -0.5 * (standard.square() + math.log(2 * math.pi)) - log_scale
        return torch.logsumexp(log_weight + sum_event(terms, dims), -1)

    def sample(
        self,
        batch_shape: Sequence[int] = (),
        context: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> Tensor:
        log_weight, loc, log_scale = self._parts()
        shape = torch.Size(batch_shape)
        # By inversion: multinomial refuses zero draws, and its weights would be float32.
        edges = log_weight.detach().exp().cumsum(-1)[:-1]
        u = torch.rand(shape, generator=generator, dtype=loc.dtype, device=loc.device)
        k = (u.unsqueeze(-1) >= edges).sum(-1)
        noise = torch.randn(
            (*shape, *self.event_shape), generator=generator, dtype=loc.dtype, device=loc.device
        )
        return loc[k] + log_scale[k].exp() * noise


def _standard_points(count: int, event_shape: Sequence[int]) -> Tensor:
    """``count`` distinct points with mean 0 and variance 1 in every feature; always the same ones."""
    if count == 1:
        return torch.zeros(1, *event_shape)
    points = torch.randn((count, *event_shape), generator=generator(0))
    return (points - points.mean(0)) / points.std(0, correction=0)
