"""Diagonal normal densities: fixed, learned, from context, tempered."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from diffeo.bases.base import Base
from diffeo.contracts import Net
from diffeo.errors import ConfigError
from diffeo.functional.affine import soft_clip
from diffeo.functional.shapes import sum_event

MAX_LOG_SCALE = math.log(1000.0)
"""Bound of a learned log-scale: scales stay within (1e-3, 1e3) of one."""


class DiagonalNormal(Base, ABC):
    """A normal density with independent features; subclasses say where loc and log-scale come from.

    Formula: ``log p(z) = -1/2 sum ((z - loc) / scale)^2 - sum log scale - D/2 log 2 pi``.
    """

    @abstractmethod
    def loc_and_log_scale(self, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, each broadcastable to ``(*batch, *event_shape)``."""

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        loc, log_scale = self.loc_and_log_scale(context)
        standard = (z - loc) * torch.exp(-log_scale)
        terms = -0.5 * (standard.square() + math.log(2 * math.pi)) - log_scale
        return sum_event(terms, len(self.event_shape))

    def sample(
        self,
        batch_shape: Sequence[int] = (),
        context: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> Tensor:
        loc, log_scale = self.loc_and_log_scale(context)
        shape = (*batch_shape, *self.event_shape)
        noise = torch.randn(shape, generator=generator, dtype=loc.dtype, device=loc.device)
        return loc + log_scale.exp() * noise


class Normal(DiagonalNormal):
    """The standard normal: mean 0 and standard deviation 1 for every feature.

    The usual base of a flow. Support: the whole line. Cost: one square a feature.

    Args:
        event_shape: shape of one latent point.

    Shape:
        ``z``: ``(*batch, *event_shape)``, log-density: ``(*batch,)``.

    Example:
        >>> import torch
        >>> from diffeo.bases import Normal
        >>> Normal((2,)).log_prob(torch.zeros(3, 2))
        tensor([-1.8379, -1.8379, -1.8379])
    """

    zero: Tensor

    def __init__(self, event_shape: Sequence[int]):
        super().__init__(event_shape)
        # Carries dtype and device, so that ``flow.double()`` samples in float64.
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    # As DiagonalNormal's, without the operations that do nothing: beside a small flow each one counts.

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        constant = 0.5 * math.log(2 * math.pi) * self.event_shape.numel()
        return sum_event(z.square(), len(self.event_shape)).mul(-0.5).sub(constant)

    def sample(
        self,
        batch_shape: Sequence[int] = (),
        context: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> Tensor:
        shape = (*batch_shape, *self.event_shape)
        return torch.randn(shape, generator=generator, dtype=self.zero.dtype, device=self.zero.device)

    def loc_and_log_scale(self, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.zero, self.zero


class LearnedNormal(DiagonalNormal):
    """A normal whose mean and scale are learned, one pair a feature.

    Use it where the bijection keeps volume (NICE) and the base must carry the scales. Starts as the
    standard normal. Limits: scales stay within (1e-3, 1e3), by a soft clip of their logarithm.

    Args:
        event_shape: shape of one latent point.

    Shape:
        ``z``: ``(*batch, *event_shape)``, log-density: ``(*batch,)``.

    References:
        Dinh, Krueger and Bengio (2015), *NICE*, has the scale in the flow instead.

    Example:
        >>> from diffeo.bases import LearnedNormal
        >>> base = LearnedNormal((2,))
        >>> [name for name, _ in base.named_parameters()]
        ['loc', 'log_scale']
    """

    def __init__(self, event_shape: Sequence[int]):
        super().__init__(event_shape)
        self.loc = nn.Parameter(torch.zeros(self.event_shape))
        self.log_scale = nn.Parameter(torch.zeros(self.event_shape))

    def loc_and_log_scale(self, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.loc, soft_clip(self.log_scale, MAX_LOG_SCALE)


class ContextNormal(DiagonalNormal):
    """A normal whose mean and scale a net computes from the context.

    The conditional location and spread are then the base's business and the bijection is left with
    the shape. Limits: scales stay within (1e-3, 1e3), by a soft clip of their logarithm.

    Args:
        event_shape: shape of one latent point, of D elements.
        net: takes a context of ``net.in_features`` to 2 D numbers: D means, then D raw log-scales.
            A net of output zero gives the standard normal.

    Shape:
        ``z``: ``(*batch, *event_shape)``, ``context``: ``(*batch, net.in_features)``, log-density:
        ``(*batch,)``.

    Raises:
        ConfigError: when the net does not give 2 D numbers, or wants a context of its own.

    Example:
        >>> import torch
        >>> from diffeo.bases import ContextNormal
        >>> from diffeo.nets import MLP
        >>> base = ContextNormal((2,), MLP(3, 4, hidden=(8,)))
        >>> base.log_prob(torch.zeros(5, 2), torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(self, event_shape: Sequence[int], net: Net):
        super().__init__(event_shape, context_shape=(net.in_features,))
        size = self.event_shape.numel()
        if net.out_features != 2 * size:
            raise ConfigError(
                f"the net gives {net.out_features} numbers, but a normal of event shape "
                f"{tuple(self.event_shape)} needs {2 * size}: a mean and a log-scale for each feature."
            )
        if net.context_features:
            raise ConfigError(
                f"the net wants {net.context_features} context features beside its input; the context "
                f"is the input here, so build it with none."
            )
        self.net = net

    def loc_and_log_scale(self, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert context is not None, "Flow checks that the context is there"
        loc, raw = self.net(context).chunk(2, -1)
        shape = (*context.shape[:-1], *self.event_shape)
        return loc.reshape(shape), soft_clip(raw, MAX_LOG_SCALE).reshape(shape)


class Tempered(DiagonalNormal):
    """A diagonal normal at another temperature: ``p(z)^(1 / T)``, renormalized.

    Below one it draws closer to the mode (cleaner, less varied samples); above one it spreads, for
    annealing and importance sampling. For a normal this is exact: every scale is multiplied by
    ``sqrt(T)``. Other bases have no such closed form, so they are not accepted.

    Note that some papers give the factor of the scale itself as the temperature; theirs squared is T.

    Args:
        base: the normal at temperature one; its parameters are shared, not copied.
        temperature: T, positive; 1 changes nothing.

    Shape:
        As ``base``.

    Raises:
        ConfigError: unless ``0 < temperature < inf``.

    References:
        Kingma and Dhariwal (2018), *Glow*, section 6, samples at reduced temperature.

    Example:
        >>> import torch
        >>> from diffeo.bases import Normal, Tempered
        >>> Tempered(Normal((1,)), 4.0).loc_and_log_scale()[1].exp().item()
        2.0
    """

    def __init__(self, base: DiagonalNormal, temperature: float):
        super().__init__(base.event_shape, context_shape=base.context_shape)
        if not 0 < temperature < math.inf:
            raise ConfigError(f"temperature must be positive and finite, got {temperature}.")
        self.base = base
        self.temperature = temperature

    def loc_and_log_scale(self, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        loc, log_scale = self.base.loc_and_log_scale(context)
        return loc, log_scale + 0.5 * math.log(self.temperature)
