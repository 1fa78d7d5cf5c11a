"""Encodings of the context: from what the user conditions on to the vector the layers see.

Moments stay float64 when a flow is cast, so that a timestamp of 1.7e9 keeps its unit noise.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffeo.contracts import Initializable
from diffeo.errors import ConfigError, DataError
from diffeo.functional.shapes import image_shape


class ContextEncoding(nn.Module, Initializable):
    """Takes a context of ``event_shape`` to a vector of ``latent_shape``."""

    event_shape: torch.Size
    latent_shape: torch.Size

    @abstractmethod
    def forward(self, context: Tensor) -> Tensor: ...


class StandardizedContext(ContextEncoding):
    """Shifts and scales a context vector to mean 0 and standard deviation 1 over training rows.

    A column that does not vary keeps scale 1. Until ``initialize`` it passes contexts unchanged. The
    moments are float64 whatever the flow's dtype is cast to, so that a large offset (a timestamp) costs
    no precision; they are stored as their bits, which no cast touches.
    """

    moment_bits: Tensor
    initialized: Tensor
    dtype_buffer: Tensor

    def __init__(self, features: int):
        super().__init__()
        self.event_shape = self.latent_shape = torch.Size((features,))
        moments = torch.stack([torch.zeros(features), torch.ones(features)]).double()
        self.register_buffer("moment_bits", moments.view(torch.int64))
        self.register_buffer("initialized", torch.tensor(False))
        self.register_buffer("dtype_buffer", torch.zeros(()), persistent=False)  # carries the dtype

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set the moments from training contexts ``x``; does nothing where they were set before."""
        if bool(self.initialized):
            return
        rows = x.reshape(-1, *self.event_shape).double()
        std = rows.std(0, unbiased=False)
        varies = std > 1e-12 * rows.abs().amax(0)
        moments = torch.stack([rows.mean(0), torch.where(varies, std, torch.ones_like(std))])
        self.moment_bits.copy_(moments.view(torch.int64))
        self.initialized.fill_(True)

    def _moments(self) -> Tensor:
        if torch._C._get_tracing_state() is not None:  # its graphs know no view of another dtype
            bits = self.moment_bits.cpu().numpy()
            return torch.from_numpy(bits.view("float64").copy()).to(self.moment_bits.device)
        return self.moment_bits.view(torch.float64)

    def forward(self, context: Tensor) -> Tensor:
        loc, scale = self._moments()
        return ((context.double() - loc) / scale).to(self.dtype_buffer.dtype)


class OneHotContext(ContextEncoding):
    """Turns a class number 0 .. classes - 1 into a one-hot vector; any other number into zeros.

    Args:
        classes: how many.
        drop: in training, the probability of forgetting a row's class, which then is zeros too; above 0,
            the flow also learns the density without a class, which ``diffeo.latents`` needs.
    """

    classes: Tensor
    dtype_buffer: Tensor

    def __init__(self, classes: int, drop: float = 0.0):
        super().__init__()
        if not 0 <= drop < 1:
            raise ConfigError(f"drop is a probability below 1, not {drop}.")
        self.drop = drop
        self.event_shape, self.latent_shape = torch.Size(()), torch.Size((classes,))
        self.register_buffer("classes", torch.arange(classes), persistent=False)
        self.register_buffer("dtype_buffer", torch.zeros(()), persistent=False)  # carries the dtype

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Nothing to learn from data; refuses numbers that are not classes."""
        bad = ~(x.unsqueeze(-1) == self.classes).any(-1)
        if bool(bad.any()):
            raise DataError(
                f"the context holds {x[bad][0].item()}, but the classes are 0 to {len(self.classes) - 1}."
            )

    def forward(self, context: Tensor) -> Tensor:
        one_hot = (context.unsqueeze(-1) == self.classes).to(self.dtype_buffer.dtype)
        if self.training and self.drop > 0:
            kept = torch.rand(context.shape, device=context.device) >= self.drop
            one_hot = one_hot * kept.unsqueeze(-1)
        return one_hot


class ImageContext(ContextEncoding):
    """Centers and scales the pixels of an image: 0..255 to [-1, 1], by ``c / 127.5 - 1``.

    The map is fixed, so that a pixel means the same in every data set. Pixels may be of any real dtype; those
    outside 0..255 land outside [-1, 1].

    Args:
        shape: ``(channels, height, width)`` of one context.

    Shape:
        ``(*batch, channels, height, width)``, before and after.

    Raises:
        ShapeError: unless the shape is three positive numbers.
        DataError: in ``initialize``, for pixels that are not finite.

    Example:
        >>> ImageContext((1, 1, 3))(torch.tensor([[[0, 51, 255]]], dtype=torch.uint8))
        tensor([[[-1.0000, -0.6000,  1.0000]]])
    """

    dtype_buffer: Tensor

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.event_shape = self.latent_shape = image_shape(shape)
        self.register_buffer("dtype_buffer", torch.zeros(()), persistent=False)  # carries the dtype

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Nothing to learn from data; refuses pixels that are not finite."""
        bad = ~x.isfinite()
        if bool(bad.any()):
            raise DataError(
                f"the context holds {x[bad][0].item()} at index {tuple(bad.nonzero()[0].tolist())}, but its "
                f"pixels must be finite, 0 to 255."
            )

    def forward(self, context: Tensor) -> Tensor:
        return context.to(self.dtype_buffer.dtype) / 127.5 - 1
