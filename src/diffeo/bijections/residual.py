"""The residual block of RevNet."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from diffeo.bijections.base import Bijection
from diffeo.bijections.chain import Chain
from diffeo.bijections.coupling import Coupling
from diffeo.contracts import Net
from diffeo.elementwise.additive import Additive
from diffeo.errors import ConfigError
from diffeo.functional import stages
from diffeo.functional.exact import exactly


class AdditiveResidual(Bijection):
    """Two halves of the columns, each moved in turn by a net of the other: RevNet's residual block.

    A residual block that is inverted by subtraction, whatever its nets are, so that every column
    changes in one layer. It is two additive couplings one after the other, and built of them.

    Formula: ``y1 = x1 + f1(x2, context)``, ``y2 = x2 + f2(y1, context)``; back ``x2 = y2 - f2(y1)``,
    ``x1 = y1 - f1(x2)``. Domain: the whole line. log-det: 0. Limits: it keeps volume, so scales have to
    come from elsewhere (``ActNorm``). Cost: one pass of each net, either way.

    Args:
        mask: D booleans, some of each: True for the columns of x1, False for those of x2.
        first: f1, takes x2 and gives a shift for each column of x1.
        second: f2, takes y1 and gives a shift for each column of x2.

    Shape: ``(*batch, D)``; context ``(*batch, context_features)`` where a net takes one.

    Raises:
        ConfigError: when all columns are in one half; what is left then is a ``Coupling``.
        ShapeError: when a net's sizes do not fit; it names the sizes needed.

    References: Gomez et al. 2017 (RevNet), section 3.1; Prince 2023, section 16.3.6 and figure 16.8.

    Example:
        >>> import torch
        >>> from diffeo.nets import MLP
        >>> block = AdditiveResidual([True, False, False], MLP(2, 1), MLP(1, 2))
        >>> y, log_det = block(torch.ones(5, 3))
        >>> torch.equal(block.inverse(y)[0], torch.ones(5, 3)), log_det.tolist()
        (True, [0.0, 0.0, 0.0, 0.0, 0.0])
    """

    def __init__(self, mask: Sequence[bool] | Tensor, first: Net, second: Net):
        mask = [bool(m) for m in mask]
        if len(set(mask)) != 2:
            raise ConfigError(
                "the mask puts every column into one half, and the other half's net has nothing to move; "
                "use a Coupling with Additive."
            )
        other = [not m for m in mask]
        pair = Chain([Coupling(other, first, Additive()), Coupling(mask, second, Additive())])
        super().__init__(pair.event_shape, context_shape=pair.context_shape)
        self.traits = pair.traits
        self.pair = pair

    def as_stages(self, context: Tensor | None = None) -> list[stages.Stage] | None:
        return self.pair.as_stages(context) if exactly(self, AdditiveResidual) else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.pair(x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.pair.inverse(y, context)
