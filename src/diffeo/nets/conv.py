"""Convolutional conditioners of images, with context."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffeo.errors import ShapeError
from diffeo.functional.convolutions import three_convolutions
from diffeo.functional.exact import exactly
from diffeo.nets.bounded import ANY_UNITS, Bounded
from diffeo.nets.mlp import check_sizes


class SpatialContext(nn.Module):
    """A context as feature maps, to be added to a net's own: a vector the same at every pixel, an image
    averaged or repeated to the net's size.

    Args:
        context_shape: ``(n,)`` or ``(c, h, w)``.
        channels: of the feature maps.
        size: height and width of the feature maps.

    Shape: ``(batch, *context_shape)`` to ``(batch, channels, 1 or height, 1 or width)``.

    Raises:
        ShapeError: for a context that is neither vector nor image.
    """

    def __init__(self, context_shape: Sequence[int], channels: int, size: Sequence[int]):
        super().__init__()
        if len(context_shape) not in (1, 3):
            raise ShapeError(
                f"a context of shape {tuple(context_shape)} is neither a vector (n,) nor an image (c, h, w)."
            )
        self.size, self.dims = (size[0], size[1]), len(context_shape)
        self.map = nn.Conv2d(context_shape[0], channels, 1, bias=False)

    def forward(self, context: Tensor) -> Tensor:
        if self.dims == 1:
            return self.map(context[..., None, None])
        own = context.shape[-2:] == self.size  # pooling to its own size would copy
        return self.map(context if own else F.adaptive_avg_pool2d(context, self.size))


class _ConvNet(Bounded, ABC):
    """Base class of this file's nets: shapes, batch axes, and how the context enters."""

    def __init__(
        self,
        in_shape: Sequence[int],
        out_channels: int,
        hidden: int,
        context_shape: Sequence[int] | None,
        reach: float,
    ):
        super().__init__(reach)
        self.in_shape = torch.Size(in_shape)
        if len(self.in_shape) != 3:
            raise ShapeError(f"in_shape must be (channels, height, width), not {tuple(in_shape)}.")
        channels, *size = self.in_shape
        sizes = {"channels": channels, "height": size[0], "width": size[1]}
        check_sizes(**sizes, out_channels=out_channels, hidden=hidden)
        self.out_shape = torch.Size((out_channels, *size))
        self.context_shape = None if context_shape is None else torch.Size(context_shape)
        self.given = None if context_shape is None else SpatialContext(context_shape, hidden, size)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        batch = x.shape[:-3]
        given = None
        if self.given is not None:
            assert context is not None
            assert self.context_shape is not None
            given = self.given(self.see(context.reshape(-1, *self.context_shape)))
        y = self._compute(self.see(x.reshape(-1, *self.in_shape)), given)
        return y if len(batch) == 1 else y.reshape(*batch, *self.out_shape)

    @abstractmethod
    def _compute(self, x: Tensor, given: Tensor | None) -> Tensor:
        """One batch axis in, one out; ``given`` is added to the first feature maps."""


class ConvNet(_ConvNet):
    """Three convolutions, of 3 x 3, 1 x 1 and 3 x 3 pixels, with ReLU between: the net of Glow.

    The output layer starts at zero: a flow built on it starts neutral. The context enters the first layer.
    Cost: ``9 C h + h^2 + 9 h C'`` multiplications a pixel.

    Args:
        in_shape: ``(C, height, width)``.
        out_channels: C'.
        hidden: h, channels of both hidden layers.
        context_shape: a vector ``(n,)``, an image ``(c, h, w)`` of any size, or None.
        reach: how far it sees, as in ``Bounded``.

    Shape: ``(*batch, C, H, W)`` and ``(*batch, *context_shape)`` to ``(*batch, C', H, W)``.

    References: Kingma and Dhariwal 2018 (Glow), section 5 and appendix B.

    Example:
        >>> import torch
        >>> ConvNet((2, 4, 4), 6, 8)(torch.randn(5, 2, 4, 4)).shape
        torch.Size([5, 6, 4, 4])
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_channels: int,
        hidden: int = 64,
        *,
        context_shape: Sequence[int] | None = None,
        reach: float = ANY_UNITS,
    ):
        super().__init__(in_shape, out_channels, hidden, context_shape, reach)
        self.first = nn.Conv2d(in_shape[0], hidden, 3, padding=1)
        self.middle = nn.Conv2d(hidden, hidden, 1)
        self.last = zeroed(nn.Conv2d(hidden, out_channels, 3, padding=1))

    def _compute(self, x: Tensor, given: Tensor | None) -> Tensor:
        layers = self.first, self.middle, self.last
        if given is None and exactly(self, ConvNet) and all(exactly(layer, nn.Conv2d) for layer in layers):
            own = (p for layer in layers for p in (layer.weight, layer.bias))
            return three_convolutions(x, tuple(p for p in own if p is not None))
        h = self.first(x)
        h = h if given is None else h + given
        return self.last(F.relu(self.middle(F.relu(h))))


class ResidualConvNet(_ConvNet):
    """A residual net of gated convolution blocks: ``h + a sigmoid(b)``, both from a bottleneck of h.

    Sees further than ``ConvNet``, one more 3 x 3 convolution a block, and trains well when deep. The output
    layer starts at zero. The context enters the first layer. Cost: ``9 C h + blocks 11 h^2 + 9 h C'``
    multiplications a pixel.

    Args:
        in_shape: ``(C, height, width)``.
        out_channels: C'.
        hidden: h, channels throughout.
        blocks: how many.
        context_shape: a vector ``(n,)``, an image ``(c, h, w)`` of any size, or None.
        reach: how far it sees, as in ``Bounded``.

    Shape: ``(*batch, C, H, W)`` and ``(*batch, *context_shape)`` to ``(*batch, C', H, W)``.

    References: Dinh et al. 2017, section 4.1; Ho et al. 2019 (Flow++), section 3.3, without attention.

    Example:
        >>> import torch
        >>> ResidualConvNet((2, 4, 4), 6, 8)(torch.randn(5, 2, 4, 4)).shape
        torch.Size([5, 6, 4, 4])
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_channels: int,
        hidden: int = 64,
        blocks: int = 2,
        *,
        context_shape: Sequence[int] | None = None,
        reach: float = ANY_UNITS,
    ):
        super().__init__(in_shape, out_channels, hidden, context_shape, reach)
        self.first = nn.Conv2d(in_shape[0], hidden, 3, padding=1)
        self.blocks = nn.ModuleList(_Gated(hidden) for _ in range(blocks))
        self.last = zeroed(nn.Conv2d(hidden, out_channels, 3, padding=1))

    def _compute(self, x: Tensor, given: Tensor | None) -> Tensor:
        h = self.first(x)
        h = h if given is None else h + given
        for block in self.blocks:
            h = block(h)
        return self.last(F.relu(h))


class _Gated(nn.Module):
    def __init__(self, hidden: int):
        super().__init__()
        self.wide = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.gate = nn.Conv2d(hidden, 2 * hidden, 1)

    def forward(self, h: Tensor) -> Tensor:
        a, b = self.gate(F.relu(self.wide(F.relu(h)))).chunk(2, 1)
        return h + a * torch.sigmoid(b)


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with weights and bias zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
