"""Masked conditioners: MADE and ResMADE, and their one-pass steppers.

Hidden units carry a degree m: a unit of degree m sees features 0 .. m - 1 (and the context) only.
Units are *sorted* by degree, so every mask is a staircase and the units that become computable when
feature m - 1 is known are one slice. That makes the stepper a masked pass cut into D slices: the D
steps together cost the multiplications of one pass.

``FullPasses`` is the plain reference that the tests hold the steppers to.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffeo.contracts import MaskedNet, Stepper
from diffeo.functional.exact import exactly
from diffeo.functional.layers import Layers
from diffeo.functional.stages import Dense, Stacked
from diffeo.nets.bounded import ANY_UNITS, Bounded
from diffeo.nets.mlp import check_sizes, zero_


def degrees(units: int, features: int, context_features: int) -> Tensor:
    """Sorted degrees, spread evenly over those of use; 0 (context only) where there is a context."""
    first = _first_degree(features, context_features)
    return first + torch.arange(units) * (features - first) // units


def _first_degree(features: int, context_features: int) -> int:
    return 0 if context_features or features == 1 else 1


class MaskedLinear(nn.Linear):
    """A linear layer with a fixed binary mask on its weights."""

    mask: Tensor
    limits: Tensor

    def __init__(self, out_degrees: Tensor, in_degrees: Tensor):
        super().__init__(len(in_degrees), len(out_degrees))
        mask = (in_degrees <= out_degrees[:, None]).to(self.weight.dtype)
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("limits", mask.sum(1, dtype=torch.int32), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight * self.mask, self.bias)

    def dense(
        self,
        extra: Tensor | None = None,
        *,
        relu: bool = False,
        add: int = -1,
        drop: float = 0.0,
        reach: Tensor | None = None,
    ) -> Dense:
        """The layer as the kernels take it."""
        return Dense(self.weight, self.bias, relu, add, self.limits, extra, drop, reach)

    def rows(self, start: int, stop: int, x: Tensor) -> Tensor:
        """Units ``start:stop``, which see exactly the ``x.shape[-1]`` first inputs."""
        return F.linear(x, self.weight[start:stop, : x.shape[-1]], self.bias[start:stop])


def _all_masked(layers: Iterable[nn.Module]) -> bool:
    return all(exactly(layer, MaskedLinear) for layer in layers)


class _Masked(Bounded, Stacked):
    """Base class of MADE and ResMADE: sizes, degrees, the output layer."""

    def __init__(self, features: int, params: int, context_features: int, reach: float):
        super().__init__(reach)
        check_sizes(features=features, params=params)
        self.features, self.params, self.context_features = features, params, context_features

    @abstractmethod
    def _intact(self) -> bool:
        """Whether it computes what its weights say, with nothing hooked, wrapped or overridden."""

    def _layer(self, out_units: int, in_units: int | None = None) -> MaskedLinear:
        """A hidden layer; from the features themselves when ``in_units`` is None."""
        D, C = self.features, self.context_features
        from_degrees = torch.arange(1, D + 1) if in_units is None else degrees(in_units, D, C)
        return MaskedLinear(degrees(out_units, D, C), from_degrees)

    def _output(self, in_units: int) -> MaskedLinear:
        out_degrees = torch.arange(self.features).repeat_interleave(self.params)
        layer = MaskedLinear(out_degrees, degrees(in_units, self.features, self.context_features))
        zero_(layer)
        return layer

    def _context_layer(self, units: int) -> nn.Linear | None:
        return nn.Linear(self.context_features, units, bias=False) if self.context_features else None

    def _cuts(self, units: int) -> list[int]:
        """How many units have degree below 0, 1, ..., features: slice d is ``cuts[d]:cuts[d + 1]``."""
        first = _first_degree(self.features, self.context_features)
        span = self.features - first
        # Unit i has degree first + i * span // units; plain integers, for torch.compile's sake.
        return [max(0, min(units, -((first - d) * units // span))) for d in range(self.features + 1)]


class MADE(_Masked):
    """Masked autoencoder for distribution estimation: the parameters of feature i see features < i.

    One pass gives the parameters of every feature, for ``Autoregressive``. The output layer starts at
    zero, so a flow built on it starts neutral.

    Args:
        features: D, columns.
        params: parameters per column (a family's ``num_params``).
        hidden: widths of the hidden layers; at least D - 1 lets every column have units of its own.
        context_features: length of the context vector, 0 for none; every unit sees all of it.
        activation: an elementwise function.
        reach: how far it sees, as in ``Bounded``.

    Shape: ``(*batch, D)`` and ``(*batch, context_features)`` to ``(*batch, D, params)``.

    References: Germain et al. 2015, eqs. 8-12 (degrees spread evenly here, not drawn).

    Example:
        >>> import torch
        >>> MADE(3, 2)(torch.randn(5, 3)).shape
        torch.Size([5, 3, 2])
    """

    def __init__(
        self,
        features: int,
        params: int,
        hidden: Sequence[int] = (64, 64),
        *,
        context_features: int = 0,
        activation: Callable[[Tensor], Tensor] = F.relu,
        reach: float = ANY_UNITS,
    ):
        super().__init__(features, params, context_features, reach)
        check_sizes(layers=len(hidden), **{f"hidden[{i}]": h for i, h in enumerate(hidden)})
        self.activation = activation
        self.hidden = tuple(hidden)
        self.layers: Layers[MaskedLinear] = Layers(
            self._layer(n, m) for n, m in zip(self.hidden, (None, *self.hidden), strict=False)
        )
        self.context_layer = self._context_layer(self.hidden[0])
        self.output = self._output(self.hidden[-1])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = _plus(self.layers[0](self.see(x)), self._from_context(context))
        for layer in list(self.layers)[1:]:
            h = layer(self.activation(h))
        return self.output(self.activation(h)).unflatten(-1, (self.features, self.params))

    def _intact(self) -> bool:
        return exactly(self, MADE) and _all_masked([*self.layers, self.output])

    def stack(self, context: Tensor | None) -> list[Dense] | None:
        """The layers as the kernels take them."""
        if not (self._intact() and self.activation is F.relu):
            return None
        first, *others = [*self.layers, self.output]
        entry = first.dense(self._from_context(context), reach=self.reach)
        return [entry, *(layer.dense(relu=True) for layer in others)]

    def _from_context(self, context: Tensor | None) -> Tensor | None:
        if self.context_layer is None:
            return None
        assert context is not None, "this net was built with a context"
        return self.context_layer(self.see(context))

    def stepper(self, context: Tensor | None, batch_shape: torch.Size) -> Stepper:
        """The same pass, a column at a time."""
        kind = _MADEStepper if self._intact() else FullPasses
        return kind(self, context, batch_shape)


class _Known:
    """The columns of one layer that are known so far: grows to the right."""

    def __init__(self, batch_shape: torch.Size, like: Tensor):
        self.value = like.new_empty((*batch_shape, 0))

    def append(self, columns: Tensor) -> Tensor:
        self.value = torch.cat([self.value, columns], -1)
        return self.value


class _MADEStepper:
    def __init__(self, net: MADE, context: Tensor | None, batch_shape: torch.Size):
        self.net, self.step = net, 0
        self.from_context = net._from_context(context)
        self.x = _Known(batch_shape, net.output.weight)
        self.hidden = [_Known(batch_shape, net.output.weight) for _ in net.hidden]
        self.cuts = [net._cuts(n) for n in net.hidden]

    def __call__(self, previous: Tensor | None) -> Tensor:
        net, d = self.net, self.step
        self.step += 1
        below = self.x.value if previous is None else self.x.append(net.see(previous.unsqueeze(-1)))
        for i, (layer, known, cuts) in enumerate(zip(net.layers, self.hidden, self.cuts, strict=True)):
            start, stop = cuts[d], cuts[d + 1]
            if stop > start:
                new = layer.rows(start, stop, below)
                if i == 0 and self.from_context is not None:
                    new = new + self.from_context[..., start:stop]
                known.append(net.activation(new))
            below = known.value
        return net.output.rows(d * net.params, (d + 1) * net.params, below)


class ResMADE(_Masked):
    """MADE with residual blocks: the conditioner that made the largest difference on real tables.

    The context enters at the input and in every block; dropout acts inside the blocks. The output
    layer starts at zero.

    Args:
        features: D, columns.
        params: parameters per column (a family's ``num_params``).
        hidden: width of the residual stream.
        blocks: number of two-layer pre-activation blocks.
        context_features: length of the context vector, 0 for none.
        dropout: probability of zeroing a hidden unit in training, in [0, 1).
        activation: an elementwise function.
        reach: how far it sees, as in ``Bounded``.

    Shape: ``(*batch, D)`` and ``(*batch, context_features)`` to ``(*batch, D, params)``.

    References: Nash and Durkan 2019, "Autoregressive energy machines", section 4.2; Durkan et al.
    2019, appendix B.1.
    """

    def __init__(
        self,
        features: int,
        params: int,
        hidden: int = 128,
        blocks: int = 2,
        *,
        context_features: int = 0,
        dropout: float = 0.0,
        activation: Callable[[Tensor], Tensor] = F.relu,
        reach: float = ANY_UNITS,
    ):
        super().__init__(features, params, context_features, reach)
        check_sizes(hidden=hidden)
        self.hidden, self.dropout, self.activation = hidden, dropout, activation
        self.input = self._layer(hidden)
        self.context_layers = nn.ModuleList(
            nn.Linear(context_features, hidden, bias=False) for _ in range(blocks + 1) if context_features
        )
        self.first: Layers[MaskedLinear] = Layers(self._layer(hidden, hidden) for _ in range(blocks))
        self.second: Layers[MaskedLinear] = Layers(self._layer(hidden, hidden) for _ in range(blocks))
        self.output = self._output(hidden)

    def _from_context(self, context: Tensor | None) -> list[Tensor | None]:
        if not self.context_layers:
            return [None] * (len(self.first) + 1)
        assert context is not None, "this net was built with a context"
        seen = self.see(context)
        return [layer(seen) for layer in self.context_layers]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        at_input, *at_blocks = self._from_context(context)
        h = _plus(self.input(self.see(x)), at_input)
        for first, second, c in zip(self.first, self.second, at_blocks, strict=True):
            u = self.activation(_plus(first(self.activation(h)), c))
            h = h + second(F.dropout(u, self.dropout, self.training))
        return self.output(h).unflatten(-1, (self.features, self.params))

    def _intact(self) -> bool:
        return exactly(self, ResMADE) and _all_masked([self.input, *self.first, *self.second, self.output])

    def stack(self, context: Tensor | None) -> list[Dense] | None:
        """The layers as the kernels take them."""
        if not (self._intact() and self.activation is F.relu):
            return None
        drop = self.dropout if self.training else 0.0
        at_input, *at_blocks = self._from_context(context)
        layers = [self.input.dense(at_input, reach=self.reach)]
        for first, second, c in zip(self.first, self.second, at_blocks, strict=True):
            stream = len(layers) - 1
            layers += [first.dense(c, relu=True), second.dense(relu=True, add=stream, drop=drop)]
        return [*layers, self.output.dense()]

    def stepper(self, context: Tensor | None, batch_shape: torch.Size) -> Stepper:
        """The same pass, a column at a time."""
        kind = _ResMADEStepper if self._intact() else FullPasses
        return kind(self, context, batch_shape)


class _ResMADEStepper:
    def __init__(self, net: ResMADE, context: Tensor | None, batch_shape: torch.Size):
        self.net, self.step = net, 0
        self.from_context = net._from_context(context)
        self.cuts = net._cuts(net.hidden)

        def known() -> _Known:
            return _Known(batch_shape, net.output.weight)

        self.x, self.last = known(), known()
        self.active = [(known(), known()) for _ in net.first]

    def __call__(self, previous: Tensor | None) -> Tensor:
        net, d = self.net, self.step
        self.step += 1
        x = self.x.value if previous is None else self.x.append(net.see(previous.unsqueeze(-1)))
        start, stop = self.cuts[d], self.cuts[d + 1]
        if stop > start:

            def plus(rows: Tensor, i: int) -> Tensor:
                c = self.from_context[i]
                return rows if c is None else rows + c[..., start:stop]

            h = plus(net.input.rows(start, stop, x), 0)
            for i, (before, between) in enumerate(self.active):
                first, second = net.first[i], net.second[i]
                u = first.rows(start, stop, before.append(net.activation(h)))
                u = net.activation(plus(u, i + 1))
                u = F.dropout(u, net.dropout, net.training)
                h = h + second.rows(start, stop, between.append(u))
            self.last.append(h)
        return net.output.rows(d * net.params, (d + 1) * net.params, self.last.value)


class FullPasses:
    """A stepper for any masked net: one full pass a column. The plain reference; D times the work.

    Args:
        net: any net whose parameters for feature i see features < i only.
        context: as ``net`` takes it.
        batch_shape: of the values to come.
    """

    def __init__(self, net: MaskedNet, context: Tensor | None, batch_shape: torch.Size):
        self.net, self.context, self.batch_shape = net, context, batch_shape
        self.columns: list[Tensor] = []

    def __call__(self, previous: Tensor | None) -> Tensor:
        if previous is not None:
            self.columns.append(previous)
        d = len(self.columns)
        parameter = next(iter(self.net.parameters()))  # type: ignore[attr-defined]
        blank = parameter.new_zeros((*self.batch_shape, self.net.features - d))
        known = torch.stack(self.columns, -1) if self.columns else blank[..., :0]
        return self.net(torch.cat([known, blank], -1), self.context)[..., d, :]


def _plus(h: Tensor, c: Tensor | None) -> Tensor:
    return h if c is None else h + c
