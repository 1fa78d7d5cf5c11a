"""Masked conditioners for angles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffeo.contracts import MaskedNet, Stepper
from diffeo.errors import ConfigError


class OnAngles(nn.Module):
    """A masked net of angles: it sees each as its cosine and sine, so nothing jumps at the seam.

    The inner net has 2 D - 1 features, ``cos x_1, sin x_1, ..., cos x_D``: what it gives for a cosine
    are the angle's parameters, which so see both coordinates of every angle before it; what it gives
    for a sine is not used, and nothing sees the last angle.

    Args:
        net: a masked net of an odd number of features.

    Shape: ``(*batch, D)`` in radians and ``(*batch, context_features)`` to ``(*batch, D, params)``.

    Raises:
        ConfigError: for a net of an even number of features.

    Example:
        >>> import math, torch
        >>> from diffeo.nets import MADE
        >>> net, x = OnAngles(MADE(3, 4)), torch.tensor([[1.0, 2.0]])
        >>> torch.allclose(net(x), net(x + 2 * math.pi)), net(x).shape
        (True, torch.Size([1, 2, 4]))
    """

    def __init__(self, net: MaskedNet):
        super().__init__()
        if net.features % 2 == 0:
            raise ConfigError(f"D angles need a net of 2 D - 1 features, which is odd; got {net.features}.")
        self.net = net
        self.features, self.params = (net.features + 1) // 2, net.params
        self.context_features = net.context_features

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        seen = torch.stack([x.cos(), x.sin()], -1).flatten(-2)[..., :-1]
        return self.net(seen, context)[..., ::2, :]

    def stepper(self, context: Tensor | None, batch_shape: torch.Size) -> Stepper:
        """The same pass, an angle at a time: two steps of the inner net."""
        inner = self.net.stepper(context, batch_shape)

        def step(previous: Tensor | None) -> Tensor:
            if previous is None:
                return inner(None)
            inner(previous.cos())
            return inner(previous.sin())

        return step
