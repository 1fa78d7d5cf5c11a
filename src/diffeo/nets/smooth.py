"""Smooth nets that know their own derivative: for residual and continuous flows.

A field sees a bounded x (``reach``). Far from the data a net of sines oscillates ever faster, relative to
rounding, and no solver can follow it; within the reach the net sees x as it is.

First layers of sines start at several scales (``frequencies``), from the usual size to so many times it,
evenly in the logarithm. With one scale for all, either fine or coarse features were slow to come.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffeo.functional import fields, wire
from diffeo.functional.convergence import captured
from diffeo.functional.exact import exactly
from diffeo.functional.far import within
from diffeo.functional.linearize import Linearizable, Product
from diffeo.functional.programs import applies
from diffeo.nets.mlp import check_sizes, linear, zero_


class Activation(nn.Module, ABC):
    """An elementwise function that gives its slope along with its value.

    ``lipschitz`` bounds the slope's absolute value everywhere. To write one: ``forward``, ``slope`` and
    ``curve``, its first and second derivative, in terms of what is known by then.
    """

    lipschitz: float = 1.0
    number: wire.Activation | None = None
    """What the kernels know it by, up to ``scales``."""

    @abstractmethod
    def forward(self, h: Tensor) -> Tensor:
        """``a(h)``."""

    @abstractmethod
    def slope(self, h: Tensor, value: Tensor) -> Tensor:
        """``a'(h)``, given ``value = a(h)``."""

    @abstractmethod
    def curve(self, h: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        """``a''(h)``, given value and slope."""

    def scales(self) -> tuple[Tensor, Tensor] | None:
        """``(b, c)`` where ``a(h) = c k(b h)`` and k is what the kernels know; None for 1 and 1."""
        return None

    def with_slope(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """``(a(h), a'(h))``, elementwise; differentiable, by few operations."""
        if h.requires_grad and not captured():
            return _WithSlope.apply(h, self)
        value = self(h)
        return value, self.slope(h, value)


class _WithSlope(torch.autograd.Function):
    """Value and slope; their gradient takes the slope and the second derivative, without another sine."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, activation: Activation) -> tuple[Tensor, Tensor]:
        value = activation(h)
        slope = activation.slope(h, value)
        ctx.activation = activation
        ctx.save_for_backward(h, value, slope)
        ctx.set_materialize_grads(False)
        return value, slope

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        of_value, of_slope = grads
        h, value, slope = ctx.saved_tensors
        total = None if of_value is None else of_value * slope
        if of_slope is not None:
            curve = ctx.activation.curve(h, value, slope)
            total = of_slope * curve if total is None else torch.addcmul(total, of_slope, curve)
        return total, None


class Tanh(Activation):
    """The hyperbolic tangent."""

    number = wire.Activation.TANH

    def forward(self, h: Tensor) -> Tensor:
        return h.tanh()

    def slope(self, h: Tensor, value: Tensor) -> Tensor:
        return 1 - value.square()

    def curve(self, h: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        return -2 * value * slope


class Sine(Activation):
    """``sin(h)``: 1-Lipschitz, and its slope reaches -1 and 1 again and again, so that gradients pass."""

    number = wire.Activation.SINE

    def forward(self, h: Tensor) -> Tensor:
        return h.sin()

    def slope(self, h: Tensor, value: Tensor) -> Tensor:
        return h.cos()

    def curve(self, h: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        return -value


class ELU(Activation):
    """``h`` above 0, ``exp(h) - 1`` below; its slope is continuous."""

    def forward(self, h: Tensor) -> Tensor:
        return F.elu(h)

    def slope(self, h: Tensor, value: Tensor) -> Tensor:
        return value.clamp_max(0) + 1

    def curve(self, h: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        return torch.where(h > 0, 0.0, slope)


class SiLU(Activation):
    """``h sigmoid(h)``, also called Swish."""

    lipschitz = 1.0998394
    number = wire.Activation.SILU

    def forward(self, h: Tensor) -> Tensor:
        return F.silu(h)

    def slope(self, h: Tensor, value: Tensor) -> Tensor:
        s = h.sigmoid()
        return torch.addcmul(s, value, 1 - s)

    def curve(self, h: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        s = h.sigmoid()
        return (s - s.square()) * (2 + h - 2 * value)


class LipSwish(Activation):
    """``h sigmoid(b h) / 1.1`` with a learned b > 0: smooth, 1-Lipschitz, and its slope does not die out.

    References: Chen, Behrmann, Duvenaud and Jacobsen 2019, "Residual flows", section 3.3.
    """

    SCALE = 1.1
    number = wire.Activation.SILU

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.5))
        self.swish = SiLU()

    def forward(self, h: Tensor) -> Tensor:
        return self.with_slope(h)[0]

    def slope(self, h: Tensor, value: Tensor) -> Tensor:
        return self.with_slope(h)[1]

    def curve(self, h: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        rate = F.softplus(self.rate)
        u, s = rate * h, (rate * h).sigmoid()
        return (rate / self.SCALE) * (s - s.square()) * (2 + u * (1 - 2 * s))

    def scales(self) -> tuple[Tensor, Tensor]:
        rate = F.softplus(self.rate)
        return rate, 1 / (self.SCALE * rate)

    def with_slope(self, h: Tensor) -> tuple[Tensor, Tensor]:
        rate = F.softplus(self.rate)
        value, slope = self.swish.with_slope(rate * h)
        return value / (self.SCALE * rate), slope / self.SCALE


KNOWN = Tanh, Sine, SiLU, LipSwish
"""What the kernels know; not what derives from it."""


class SmoothLayers(nn.Module, Linearizable, ABC):
    """Base class of nets of dense layers with smooth activations, with the arguments of ``SmoothMLP``."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: Sequence[int] = (64, 64),
        *,
        context_features: int = 0,
        activation: Callable[[], Activation] = SiLU,
        frequencies: tuple[float, float] = (1.0, 1.0),
        reach: float = 0.0,
    ):
        super().__init__()
        check_sizes(**{f"hidden[{i}]": h for i, h in enumerate(hidden)}, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.context_features, self.reach = context_features, reach
        widths = [in_features, *hidden, out_features]
        self.layers = nn.ModuleList(linear(a, b) for a, b in pairwise(widths))
        self.activations = nn.ModuleList(activation() for _ in hidden)
        self.of_context = nn.Linear(context_features, widths[1], bias=False) if context_features else None
        first = self.linears[0]
        with torch.no_grad():
            low, high = (math.log(f) for f in frequencies)
            scales = torch.linspace(low, high, first.out_features).exp()
            first.weight.mul_(scales.unsqueeze(1))
            first.bias.mul_(scales)
        zero_(self.linears[-1])

    @property
    def linears(self) -> list[nn.Linear]:
        """The layers, from the first to the last."""
        return cast("list[nn.Linear]", list(self.layers))

    @property
    def bends(self) -> list[Activation]:
        """The activations between them."""
        return cast("list[Activation]", list(self.activations))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        stack = self.smooth_stack(context) if applies(x) else None
        done = None if stack is None else fields.value(stack, x)
        return self._forward(x, context) if done is None else done

    def _forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        h = self._first(self._seen(x)[0], context)
        for activation, layer in zip(self.bends, self.linears[1:], strict=True):
            h = layer(activation(h))
        return h

    def linearize(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Product]:
        first, *others = self.linears
        seen, dim = self._seen(x)
        h = self._first(seen, context)
        slopes: list[Tensor] = []
        for activation, layer in zip(self.bends, others, strict=True):
            h, slope = activation.with_slope(h)
            slopes.append(slope)
            h = layer(h)

        def product(tangents: Tensor) -> Tensor:
            t = F.linear(tangents if dim is None else dim * tangents, first.weight)
            for slope, layer in zip(slopes, others, strict=True):
                t = F.linear(slope * t, layer.weight)
            return t

        return h, product

    def intact(self) -> bool:
        layers = [*self.linears, *([] if self.of_context is None else [self.of_context])]
        return (
            exactly(self, type(self))
            and type(self).forward is SmoothLayers.forward
            and all(exactly(layer, nn.Linear) for layer in layers)
            and all(exactly(a, type(a)) for a in self.bends)
        )

    def _seen(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return fields.squash(x, self.reach) if self.reach else (within(x), None)

    def smooth_stack(self, context: Tensor | None = None) -> fields.SmoothStack | None:
        """The layers as the kernels take them; None where they do not know the activation."""
        known = {a.number if exactly(a, *KNOWN) else None for a in self.bends}
        number = known.pop() if len(known) == 1 else None
        if number is None or not self.intact():
            return None
        weights: list[Tensor] = [layer.weight for layer in self.linears]
        biases: list[Tensor] = [layer.bias for layer in self.linears]
        extra = None if self.of_context is None or context is None else self.of_context(within(context))
        scales = [a.scales() for a in self.bends]
        for i, pair in enumerate(scales):
            if pair is not None:  # the layers around it take the scales
                weights[i], biases[i] = pair[0] * weights[i], pair[0] * biases[i]
                weights[i + 1] = pair[1] * weights[i + 1]
                extra = pair[0] * extra if i == 0 and extra is not None else extra
        lasting = extra is None and not any(scales)
        stack = fields.SmoothStack(weights, biases, extra, number, lasting, self.reach)
        return stack if stack.fits() else None

    def _first(self, x: Tensor, context: Tensor | None) -> Tensor:
        h = self.linears[0](x)
        if self.of_context is not None:
            assert context is not None, "this net was built with a context"
            h = h + self.of_context(within(context))
        return h


class SmoothMLP(SmoothLayers):
    """A multilayer perceptron with smooth activations; products with its Jacobian are forward passes.

    The first layer also sees the context. The output layer starts at zero: a flow built on it starts
    neutral.

    Args:
        in_features: features seen.
        out_features: features given.
        hidden: widths of the hidden layers.
        context_features: length of the context vector, 0 for none.
        activation: makes the activation of one layer: an ``Activation`` class.
        frequencies: how many times the usual size the first layer's weights and biases start with: from the
            first number to the second, evenly in the logarithm. Some units are for coarse features then,
            some for fine ones.
        reach: the net sees ``x / sqrt(1 + (x / reach)^2)``, which is about x up to ``reach`` and never
            beyond it: far out, where it has seen nothing, it is flat. 0 for x itself.

    Shape: ``(*batch, in_features)`` and ``(*batch, context_features)`` to ``(*batch, out_features)``.

    Example:
        >>> import torch
        >>> net = SmoothMLP(2, 2, (16,))
        >>> value, product = net.linearize(torch.zeros(5, 2))
        >>> product(torch.ones(3, 5, 2)).shape  # three tangents at each of five points
        torch.Size([3, 5, 2])
    """
