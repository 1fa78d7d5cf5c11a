"""``ContextParameters``: a layer's parameters, learned themselves or computed from the context."""

from __future__ import annotations

from torch import Tensor, nn

from diffeo.contracts import Net
from diffeo.errors import ShapeError
from diffeo.functional import matmul_precision


class ContextParameters(nn.Module):
    """P parameters that start at ``start``: learned themselves, or moved by a net of the context.

    Args:
        start: ``(P,)``.
        net: a net of the context alone, ``in_features=0`` and ``out_features=P``; None for numbers that are
            learned themselves.

    Shape: ``(P,)``, or with a net ``(*batch, P)``.

    Raises:
        ShapeError: when the net's sizes do not fit; it names the sizes needed.
    """

    start: Tensor

    def __init__(self, start: Tensor, net: Net | None = None):
        super().__init__()
        wanted = 0, len(start)
        if net is not None and ((net.in_features, net.out_features) != wanted or not net.context_features):
            raise ShapeError(
                f"the net takes {net.in_features} features, {net.context_features} of a context, and gives "
                f"{net.out_features}, but this layer needs one of a context alone: in_features=0, "
                f"out_features={len(start)}."
            )
        self.net = net
        if net is None:
            self.own = nn.Parameter(start)
        else:
            self.register_buffer("start", start)

    @property
    def context_shape(self) -> tuple[int] | None:
        """Shape of the context it takes, if any."""
        return None if self.net is None else (self.net.context_features,)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        if self.net is None:
            return self.own
        return self.start + matmul_precision.run_net(self.net, x[..., :0], context)
