"""Dense conditioners: MLP and residual MLP, both with context."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffeo.errors import ConfigError
from diffeo.functional.exact import exactly
from diffeo.functional.stages import Dense, Stacked
from diffeo.nets.bounded import ANY_UNITS, Bounded


def zero_(linear: nn.Linear) -> None:
    """Zero a layer, so that the net behind it starts as the zero parameters of every family."""
    nn.init.zeros_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear layer; without inputs it is its bias alone, and PyTorch's warning is silenced."""
    with warnings.catch_warnings():
        if not in_features:
            warnings.simplefilter("ignore")
        return nn.Linear(in_features, out_features)


def check_sizes(**sizes: int) -> None:
    """Refuse sizes that are not positive integers, by name."""
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{name} must be at least 1, not {size}.")


class MLP(Bounded, Stacked):
    """A multilayer perceptron whose first layer also sees the context.

    The output layer starts at zero: a flow built on it starts neutral.

    Args:
        in_features: features seen; 0 makes a net of the context alone.
        out_features: parameters given.
        hidden: widths of the hidden layers.
        context_features: length of the context vector, 0 for none.
        activation: an elementwise function.
        reach: how far it sees, as in ``Bounded``.

    Shape: ``(*batch, in_features)`` and ``(*batch, context_features)`` to ``(*batch, out_features)``.

    Example:
        >>> import torch
        >>> MLP(3, 4, context_features=2)(torch.randn(5, 3), torch.randn(5, 2)).shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: Sequence[int] = (64, 64),
        *,
        context_features: int = 0,
        activation: Callable[[Tensor], Tensor] = F.relu,
        reach: float = ANY_UNITS,
    ):
        super().__init__(reach)
        check_sizes(**{f"hidden[{i}]": h for i, h in enumerate(hidden)}, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.context_features = context_features
        self.activation = activation
        widths = [in_features + context_features, *hidden]
        self.layers = nn.ModuleList(linear(a, b) for a, b in pairwise(widths))
        self.output = linear(widths[-1], out_features)
        zero_(self.output)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = self.see(join(x, context if self.context_features else None))
        for layer in self.layers:
            h = self.activation(layer(h))
        return self.output(h)

    def stack(self, context: Tensor | None) -> list[Dense] | None:
        """The layers as the kernels take them."""
        layers = [*self.layers, self.output]
        if not (exactly(self, MLP) and self.activation is F.relu and _all_linear(layers)):
            return None
        first, *others = layers
        entry = _dense(first, _seen(self, context), reach=self.reach)
        return [entry, *(_dense(layer, relu=True) for layer in others)]


class ResidualMLP(Bounded, Stacked):
    """A residual network of pre-activation blocks; the context enters at the input and every block.

    Deeper conditioners train more surely than with a plain MLP. The output layer starts at zero.

    Args:
        in_features: features seen.
        out_features: parameters given.
        hidden: width of the residual stream.
        blocks: number of two-layer blocks.
        context_features: length of the context vector, 0 for none.
        dropout: probability of zeroing a hidden unit in training, in [0, 1).
        activation: an elementwise function.
        reach: how far it sees, as in ``Bounded``.

    Shape: ``(*batch, in_features)`` and ``(*batch, context_features)`` to ``(*batch, out_features)``.

    References: He et al. 2016, "Identity mappings in deep residual networks"; Durkan et al. 2019, B.1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: int = 128,
        blocks: int = 2,
        *,
        context_features: int = 0,
        dropout: float = 0.0,
        activation: Callable[[Tensor], Tensor] = F.relu,
        reach: float = ANY_UNITS,
    ):
        super().__init__(reach)
        check_sizes(out_features=out_features, hidden=hidden)
        self.in_features, self.out_features = in_features, out_features
        self.context_features = context_features
        self.dropout, self.activation = dropout, activation
        self.input = linear(in_features + context_features, hidden)
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.Linear(hidden + context_features, hidden), nn.Linear(hidden, hidden)])
            for _ in range(blocks)
        )
        self.output = nn.Linear(hidden, out_features)
        zero_(self.output)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = _seen(self, context)
        h = self.input(join(self.see(x), context))
        for first, second in self.blocks:  # type: ignore[misc]
            u = self.activation(first(join(self.activation(h), context)))
            h = h + second(F.dropout(u, self.dropout, self.training))
        return self.output(h)

    def stack(self, context: Tensor | None) -> list[Dense] | None:
        """The layers as the kernels take them."""
        layers = [self.input, *(layer for block in self.blocks for layer in block), self.output]  # type: ignore[attr-defined]
        if not (exactly(self, ResidualMLP) and self.activation is F.relu and _all_linear(layers)):
            return None
        drop = self.dropout if self.training else 0.0
        context = _seen(self, context)
        layers = [_dense(self.input, context, reach=self.reach)]
        for first, second in self.blocks:  # type: ignore[misc]
            stream = len(layers) - 1
            layers += [_dense(first, context, relu=True), _dense(second, relu=True, add=stream, drop=drop)]
        return [*layers, _dense(self.output)]


def _seen(net: MLP | ResidualMLP, context: Tensor | None) -> Tensor | None:
    return None if context is None or not net.context_features else net.see(context)


def _all_linear(layers: Iterable[nn.Module]) -> bool:
    return all(exactly(layer, nn.Linear) for layer in layers)


def _dense(
    layer: nn.Linear,
    context: Tensor | None = None,
    *,
    relu: bool = False,
    add: int = -1,
    drop: float = 0.0,
    reach: Tensor | None = None,
) -> Dense:
    """A layer whose last inputs, if any context, are the context's."""
    weight, extra = layer.weight, None
    if context is not None:
        weight, of_context = weight.split([weight.shape[1] - context.shape[-1], context.shape[-1]], 1)
        extra = F.linear(context, of_context)
    return Dense(weight, layer.bias, relu, add, extra=extra, drop=drop, reach=reach)


def join(x: Tensor, context: Tensor | None) -> Tensor:
    """``x`` with the context's columns behind its own."""
    return x if context is None else torch.cat([x, context], -1)
