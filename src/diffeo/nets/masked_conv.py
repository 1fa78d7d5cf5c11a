"""Masked convolutions: the parameters of each pixel from the pixels before it, in raster order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffeo.contracts import Stepper
from diffeo.errors import ConfigError, ShapeError
from diffeo.nets.bounded import ANY_UNITS, Bounded
from diffeo.nets.conv import SpatialContext
from diffeo.nets.mlp import check_sizes, linear, zero_


class _Causal(nn.Module):
    """A convolution that sees the pixels before in raster order, and the pixel itself unless ``strict``.

    Of a k x k kernel only the first places in raster order are seen: they are the weights, and the rows of
    the kernel below the middle are never multiplied.
    """

    def __init__(self, channels: int, out: int, kernel: int, dilation: int = 1, *, strict: bool = False):
        super().__init__()
        self.kernel, self.dilation = kernel, dilation
        self.places = kernel * (kernel // 2) + kernel // 2 + (0 if strict else 1)
        self.weight = nn.Parameter(torch.empty(out, channels, self.places))
        self.bias = nn.Parameter(torch.zeros(out))
        if self.places:
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, h: Tensor) -> Tensor:
        """``(N, H, W, channels)`` to ``(N, H, W, out)``."""
        k, side = self.kernel, self.dilation * (self.kernel // 2)
        weight = F.pad(self.weight, (0, k * (k // 2 + 1) - self.places)).unflatten(-1, (-1, k))
        padded = F.pad(h, (0, 0, side, side, side, 0)).movedim(-1, 1)
        return F.conv2d(padded, weight, self.bias, dilation=self.dilation).movedim(1, -1)


class _Block(nn.Module):
    """``h + a sigmoid(b)``: to half the channels, a masked convolution, and both a and b from it.

    To the convolution is added what the mean over all rows above says: it sees as far as the image goes, and
    what lies in the convolutions' blind spot at the upper right.
    """

    def __init__(self, hidden: int, dilation: int):
        super().__init__()
        half = (hidden + 1) // 2
        self.narrow = nn.Linear(hidden, half)
        self.wide = _Causal(half, half, 3, dilation)
        self.above = nn.Linear(half, half, bias=False)
        self.gate = nn.Linear(half, 2 * hidden)

    def forward(self, h: Tensor) -> Tensor:
        n = self.narrowed(h)
        rows = F.pad(n.mean(2)[:, :-1].cumsum(1), (0, 0, 1, 0))  # the sum of those above each
        count = torch.arange(h.shape[1], device=h.device).clamp(min=1).to(n.dtype)
        above = self.above(rows / count[:, None])
        return self.widen(h, self.wide(n) + above.unsqueeze(2))

    def narrowed(self, h: Tensor) -> Tensor:
        return F.relu(self.narrow(F.relu(h)))

    def widen(self, h: Tensor, seen: Tensor) -> Tensor:
        return h + F.glu(self.gate(F.relu(seen)), -1)


EMBEDDED = 8
"""Numbers that stand for a level of gray."""


class MaskedConvNet(Bounded):
    """A net of masked convolutions over an image of one channel, for ``AutoregressiveTokens``: PixelCNN.

    The parameters of each pixel see the pixels before it in raster order. A first masked convolution, a
    learned bias for every pixel (nothing else would tell where in the image a pixel lies), residual gated
    blocks, and two layers of single pixels. A block sees its neighbors, and the mean over all rows above.
    The output layer starts at zero: a flow built on it starts neutral. The context enters after the first
    layer.

    Cost: about ``3 h^2`` multiplications a pixel and block, and ``h^2 + h params`` a pixel. ``stepper``
    keeps what each convolution has seen of earlier pixels: its steps together do one pass's multiplications.

    Args:
        height: of the image; a token is a pixel.
        width: of the image.
        params: parameters for each pixel (a family's ``num_params``).
        hidden: h, channels throughout.
        blocks: how many.
        kernel: side of the first convolution, odd.
        levels: into how many equal parts of [-1/2, 1/2] pixels fall, each with a learned embedding that the
            net sees next to the pixel's value; 0 for none. Values alone hardly tell neighboring gray levels
            apart: on handwritten digits the embedding is worth 0.1 bits per dimension.
        context_shape: a vector ``(n,)``, an image ``(c, h, w)`` of any size, or None.
        reach: how far it sees, as in ``Bounded``.

    Shape: ``(*batch, T, 1)`` and ``(*batch, *context_shape)`` to ``(*batch, T, 1, params)``; T is height
    times width.

    Raises:
        ConfigError: for sizes that are not positive, or an even kernel.
        ShapeError: for a context that is neither vector nor image.

    References: van den Oord et al. 2016, "Pixel recurrent neural networks", section 3; van den Oord et al.
    2016, "Conditional image generation with PixelCNN decoders" (the gate).

    Example:
        >>> import torch
        >>> net = MaskedConvNet(4, 4, 3, hidden=8, blocks=1)
        >>> net(torch.randn(5, 16, 1)).shape
        torch.Size([5, 16, 1, 3])
    """

    def __init__(
        self,
        height: int,
        width: int,
        params: int,
        hidden: int = 64,
        blocks: int = 6,
        kernel: int = 7,
        *,
        levels: int = 0,
        context_shape: Sequence[int] | None = None,
        reach: float = ANY_UNITS,
    ):
        super().__init__(reach)
        check_sizes(height=height, width=width, params=params, hidden=hidden, kernel=kernel)
        if kernel % 2 == 0:
            raise ConfigError(f"kernel must be odd, so that it has a middle, not {kernel}.")
        self.size = torch.Size((height, width))
        self.length, self.width, self.params = height * width, 1, params
        self.context_shape = None if context_shape is None else torch.Size(context_shape)
        self.given = None if context_shape is None else SpatialContext(context_shape, hidden, self.size)
        self.levels = (
            nn.Parameter(nn.init.normal_(torch.empty(levels, EMBEDDED), std=0.5)) if levels else None
        )
        self.first = _Causal(1 + (EMBEDDED if levels else 0), hidden, kernel, strict=True)
        self.position = nn.Parameter(torch.zeros(height, width, hidden))
        self.blocks = nn.ModuleList(_Block(hidden, 2 ** (i % 3)) for i in range(blocks))
        self.single = nn.Linear(hidden, hidden)
        self.output = linear(hidden, params)
        zero_(self.output)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = self.first(self._features(x.reshape(-1, *self.size, 1)))
        h = h + self._offset(context).to(h.dtype)  # under autocast all feature maps are small
        for block in self.blocks:
            h = block(h)
        return self._head(h).reshape(*x.shape, self.params)

    def _features(self, x: Tensor) -> Tensor:
        """What the first convolution sees of pixels ``(*, 1)``."""
        x = self.see(x)
        if self.levels is None:
            return x
        count = len(self.levels)
        level = ((x.detach().squeeze(-1) + 0.5) * count).nan_to_num(0.0).clamp(0, count - 1).long()
        return torch.cat([x, F.embedding(level, self.levels)], -1)

    def _offset(self, context: Tensor | None) -> Tensor:
        """What is added to the first feature maps: ``(1 or N, H, W, hidden)``."""
        if self.given is None or self.context_shape is None:
            return self.position.unsqueeze(0)
        if context is None:
            raise ShapeError(f"this net needs a context of shape {tuple(self.context_shape)}; pass one.")
        return self.position + self.given(self.see(context.reshape(-1, *self.context_shape))).movedim(1, -1)

    def _head(self, h: Tensor) -> Tensor:
        return self.output(F.relu(self.single(F.relu(h))))

    def stepper(self, context: Tensor | None, batch_shape: torch.Size) -> Stepper:
        """The same pass, a pixel at a time, on what the convolutions have seen of earlier pixels."""
        return _Steps(self, context, batch_shape)


class _Seen:
    """A masked convolution at one pixel after the other: the maps it sees, pixel by pixel.

    Every pixel's features are a tensor of their own, so that no step writes to what derivatives need.
    """

    def __init__(self, conv: _Causal, size: torch.Size, blank: Tensor):
        (self.height, self.width), self.blank, k = size, blank, conv.kernel
        middle = k // 2
        self.offsets = [
            (conv.dilation * (n // k - middle), conv.dilation * (n % k - middle)) for n in range(conv.places)
        ]
        self.weight, self.bias = conv.weight.movedim(-1, 1).flatten(1), conv.bias
        self.pixels: list[Tensor] = []

    def append(self, pixel: Tensor) -> None:
        """The next pixel's features, ``(N, channels)``."""
        self.pixels.append(pixel)

    def at(self, t: int) -> Tensor:
        """The convolution's output there, ``(N, out)``."""
        if not self.offsets:
            return self.bias.expand(len(self.blank), -1)
        row, column = divmod(t, self.width)
        seen = [self._pixel(row + i, column + j) for i, j in self.offsets]
        return F.linear(torch.cat(seen, -1), self.weight, self.bias)

    def _pixel(self, row: int, column: int) -> Tensor:
        if row < 0 or not 0 <= column < self.width:
            return self.blank
        return self.pixels[row * self.width + column]


class _Above:
    """What the mean over all rows above says, row by row."""

    def __init__(self, layer: nn.Linear, seen: _Seen):
        self.layer, self.seen = layer, seen
        self.rows, self.now = seen.blank, seen.blank

    def at(self, t: int) -> Tensor:
        row, column = divmod(t, self.seen.width)
        if column == 0:
            if row:
                last = self.seen.pixels[t - self.seen.width : t]
                self.rows = self.rows + torch.stack(last).mean(0)
            self.now = self.layer(self.rows / max(1, row))
        return self.now


class _Steps:
    def __init__(self, net: MaskedConvNet, context: Tensor | None, batch_shape: torch.Size):
        self.net, self.batch_shape, self.step = net, batch_shape, 0
        self.offset = net._offset(context).flatten(1, 2)
        self.blocks = [block for block in net.blocks if isinstance(block, _Block)]
        rows, weight = math.prod(batch_shape), net.first.weight
        self.image = _Seen(net.first, net.size, weight.new_zeros(rows, weight.shape[1]))
        self.maps = [
            _Seen(block.wide, net.size, weight.new_zeros(rows, block.wide.weight.shape[1]))
            for block in self.blocks
        ]
        self.above = [_Above(block.above, seen) for block, seen in zip(self.blocks, self.maps, strict=True)]

    def __call__(self, previous: Tensor | None) -> Tensor:
        net, t = self.net, self.step
        self.step += 1
        if previous is not None:
            self.image.append(net._features(previous.reshape(-1, 1)))
        h = self.image.at(t) + self.offset[:, t]
        for block, seen, above in zip(self.blocks, self.maps, self.above, strict=True):
            seen.append(block.narrowed(h))
            h = block.widen(h, seen.at(t) + above.at(t))
        return net._head(h).reshape(*self.batch_shape, 1, net.params)
