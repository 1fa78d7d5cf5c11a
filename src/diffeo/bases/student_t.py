"""Student's t density, for heavy tails."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from diffeo.bases.base import Base
from diffeo.errors import ConfigError
from diffeo.functional.shapes import sum_event


class StudentT(Base):
    """Independent standard Student-t features, with fixed or learned degrees of freedom.

    A flow with bounded slopes keeps the tails of its base: over a normal it cannot model data whose
    tails fall as a power, over this it can.

    Formula: ``log p(z) = sum log G((df + 1) / 2) - log G(df / 2) - 1/2 log(pi df)
    - (df + 1) / 2 log(1 + z^2 / df)``, with G the gamma function. Support: the whole line. Limits:
    location 0 and scale 1 (the flow has its own); the variance is ``df / (df - 2)``, infinite for
    ``df <= 2``. Cost: one logarithm a feature.

    Samples are ``n / sqrt(c / df)`` with n normal and c chi-squared; both honor ``generator``, and the
    gradient with respect to df is PyTorch's implicit one.

    Args:
        event_shape: shape of one latent point.
        df: degrees of freedom, positive; where learned, the value every feature starts from.
        learned: whether df is learned, one a feature.

    Shape:
        ``z``: ``(*batch, *event_shape)``, log-density: ``(*batch,)``.

    Raises:
        ConfigError: unless ``0 < df < inf``.

    References:
        Jaini, Kobyzev, Yu and Brubaker (2020), *Tails of Lipschitz Triangular Flows*;
        Alexanderson and Henter (2020), *Robust model training and generalisation with Studentising
        flows*.

    Example:
        >>> import torch
        >>> from diffeo.bases import StudentT
        >>> StudentT((1,), df=1.0).log_prob(torch.zeros(1, 1)).exp()  # Cauchy: 1 / pi
        tensor([0.3183])
    """

    log_df: Tensor

    def __init__(self, event_shape: Sequence[int], df: float = 5.0, learned: bool = False):
        super().__init__(event_shape)
        if not 0 < df < math.inf:
            raise ConfigError(f"df must be positive and finite, got {df}.")
        log_df = torch.full(self.event_shape, math.log(df))
        if learned:
            self.log_df = nn.Parameter(log_df)
        else:
            self.register_buffer("log_df", log_df)

    @property
    def df(self) -> Tensor:
        """Degrees of freedom, of the event's shape."""
        return self.log_df.exp()

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        df = self.df
        half = 0.5 * df.double()  # in float32 the two log-gammas lose a nat in a thousand at df = 1e4
        constant = torch.lgamma(half + 0.5) - torch.lgamma(half) - 0.5 * torch.log(2 * math.pi * half)
        # beyond the border 1 is lost beside the square, which would leave the floats before z does
        border = df.sqrt() * torch.finfo(z.dtype).eps ** -0.5
        size = z.abs()
        near = torch.log1p(size.minimum(border).square() / df)
        far = 2 * size.maximum(border).log() - df.log()
        terms = constant.to(z.dtype) - 0.5 * (df + 1) * torch.where(size > border, far, near)
        return sum_event(terms, len(self.event_shape))

    def sample(
        self,
        batch_shape: Sequence[int] = (),
        context: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> Tensor:
        df = self.df.expand(*batch_shape, *self.event_shape)
        normal = torch.randn(df.shape, generator=generator, dtype=df.dtype, device=df.device)
        # The one gamma sampler of PyTorch that takes a generator; torch.distributions calls it too.
        gamma = torch._standard_gamma(0.5 * df, generator=generator)  # pyright: ignore[reportPrivateImportUsage]
        return normal * torch.sqrt(0.5 * df / gamma.clamp_min(torch.finfo(df.dtype).tiny))
