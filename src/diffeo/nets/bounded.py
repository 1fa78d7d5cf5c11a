"""Nets that see no further than they were taught to see.

A net of rectified units goes on linearly where it has seen nothing, and what it gives are scales and shifts
of the next layer's input. Over 17 couplings of a trained Glow the largest number of an inverted image grew
30, 140, 340, 2.5e3, 1.5e5, ... 7e22, then to infinity, and a difference of infinities is NaN. So nets see
their input within a bound.
"""

from __future__ import annotations

from abc import ABC

import torch
from torch import Tensor, nn

from diffeo.errors import ConfigError

ANY_UNITS = 1e4
"""How far a net sees unless told otherwise: it may be given data in any units."""


class Bounded(nn.Module, ABC):
    """Base class of nets that see every number of x and of the context within +-``reach``.

    Beyond it a net is constant, so that its parameters are bounded, and with them what a layer may do to a
    far point. Within it nothing changes, bit for bit. Only the net's view is cut: what a coupling passes on
    it passes unchanged, and maps, inverses and log-determinants stay exact.

    Growth: with parameters bounded, a layer of scales within ``(1 / c, c)`` and shifts within T gives
    ``|y| <= c |x| + T`` either way, whatever x; L layers give ``c^L |x| + T (c^L - 1) / (c - 1)``, times the
    norms of what mixes columns between them. So a flow's latent grows linearly far out, and its density falls
    as that of its base at a multiple of x. (Unbounded, T itself grows as x, and scales reach c on the way.)

    Args:
        reach: above 0; ``inf`` for no bound. A buffer, saved with the weights; files of before have none, and
            load without a bound. Presets, whose nets see standardized data, take 10 (deviations). A net on
            its own takes 10,000, as its data may be in any units: standardize, then take 10.

    Raises:
        ConfigError: for a reach that is not above 0.

    Example:
        >>> from diffeo.nets import MLP
        >>> net = MLP(1, 1, hidden=(), reach=10.0)
        >>> _ = nn.init.ones_(net.output.weight)
        >>> net(torch.tensor([[3.0], [-3e38]])).flatten().tolist()
        [3.0, -10.0]
    """

    reach: Tensor

    def __init__(self, reach: float = ANY_UNITS):
        super().__init__()
        if not reach > 0:
            raise ConfigError(f"reach must be above 0, or inf for no bound, not {reach}.")
        self.register_buffer("reach", torch.tensor(float(reach)))

    def see(self, x: Tensor) -> Tensor:
        """``x`` within +-``reach``; NaN stays. Its gradient is 0 beyond."""
        return x.clamp(-self.reach, self.reach)
