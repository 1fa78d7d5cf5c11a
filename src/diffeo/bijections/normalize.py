"""Maps to mean zero and variance one, set from data."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffeo.bijections.set_from_data import SetFromData
from diffeo.functional import stages
from diffeo.functional.exact import exactly


class _Normalize(SetFromData, ABC):
    """``z = (x - loc) exp(-log_scale)``; subclasses say whether the two are learned."""

    loc: Tensor
    log_scale: Tensor

    def as_stages(self, context: Tensor | None = None) -> list[stages.Stage] | None:
        if len(self.event_shape) != 1 or not exactly(self, ActNorm, Standardize):
            return None
        return [stages.normalization(self.loc, self.log_scale)]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x - self.loc) * torch.exp(-self.log_scale), -self._log_det(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y * torch.exp(self.log_scale) + self.loc, self._log_det(y)

    def _log_det(self, like: Tensor) -> Tensor:
        dims = len(self.event_shape)
        return self.log_scale.sum().expand(like.shape[: like.dim() - dims])

    def set_from(self, rows: Tensor) -> None:
        """Mean and standard deviation of each element; one that does not vary keeps scale 1."""
        mean = rows.mean(0)
        scale = (rows - mean).square().mean(0).sqrt()
        # sqrt(tiny) keeps exp(+-log_scale) and products with it away from overflow.
        varies = (rows.amax(0) > rows.amin(0)) & (scale > torch.finfo(self.loc.dtype).tiny ** 0.5)
        self.loc.copy_(mean)
        self.log_scale.copy_(torch.where(varies, scale, 1.0).log())


class ActNorm(_Normalize):
    """Learned shift and scale of each feature, set once so that the output has mean 0 and variance 1.

    Keeps deep flows well scaled at the start without a batch statistic in the density.

    Formula: ``z = (x - loc) exp(-log_scale)``, ``log|det| = -sum log_scale``. The identity until
    ``initialize``. Domain: the whole line. Cost: one multiplication a feature.

    Args:
        event_shape: shape of one point; every element has its own pair.

    Shape:
        ``x``: ``(*batch, *event_shape)``, log-det: ``(*batch,)``.

    References:
        Kingma and Dhariwal (2018), *Glow*, section 3.1.

    Example:
        >>> import torch
        >>> from diffeo.bijections import ActNorm
        >>> layer = ActNorm((2,))
        >>> layer.initialize(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
        >>> layer(torch.tensor([3.0, 5.0]))[0].tolist()
        [1.0, 0.0]
    """

    def __init__(self, event_shape: Sequence[int]):
        super().__init__(event_shape)
        self.loc = nn.Parameter(torch.zeros(self.event_shape))
        self.log_scale = nn.Parameter(torch.zeros(self.event_shape))


class Standardize(_Normalize):
    """Fixed shift and scale of each feature: the data's mean 0 and variance 1.

    The first layer of a flow on a table, so that everything behind it sees standardized data while
    densities stay in the data's own units.

    Formula: ``z = (x - loc) exp(-log_scale)``, ``log|det| = -sum log_scale``. The identity until
    ``initialize``; never learned. Domain: the whole line. Cost: one multiplication a feature.

    Args:
        event_shape: shape of one point; every element has its own pair.

    Shape:
        ``x``: ``(*batch, *event_shape)``, log-det: ``(*batch,)``.

    Example:
        >>> import torch
        >>> from diffeo.bijections import Standardize
        >>> layer = Standardize((1,))
        >>> layer.initialize(torch.tensor([[10.0], [30.0]]))
        >>> z, log_det = layer(torch.tensor([[30.0]]))
        >>> round(z.item(), 4), round(log_det.item(), 4)
        (1.0, -2.3026)
    """

    def __init__(self, event_shape: Sequence[int]):
        super().__init__(event_shape)
        self.register_buffer("loc", torch.zeros(self.event_shape))
        self.register_buffer("log_scale", torch.zeros(self.event_shape))
