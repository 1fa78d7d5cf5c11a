"""Stages made of a smooth net of all columns: residual blocks, and transport along a field.

The net's Jacobian goes along with its value, one tangent a column, which the kernels do for few columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from diffeo.errors import ConfigError
from diffeo.functional import wire
from diffeo.functional.far import within
from diffeo.functional.linearize import Product, trace
from diffeo.functional.log_dets import exact_log_det
from diffeo.functional.programs import Program, applies
from diffeo.functional.solvers import REACH, WEIGHT
from diffeo.functional.stages import Dense, Plain, Stage, record
from diffeo.functional.wire import (
    MAX_COLUMNS,
    MAX_ITERATIONS,
    MAX_LAYERS,
    MAX_STEPS,
    Activation,
    StageKind,
)

_BEYOND = 2.0**30
"""Multiples of the reach, at which what is seen has become the reach to the last bit."""
WithSlope = Callable[[Tensor], tuple[Tensor, Tensor]]


def squash(x: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """``x / sqrt(1 + (x / reach)^2)``, which stays below ``reach``, and its slope."""
    x = x.clamp(-_BEYOND * reach, _BEYOND * reach)
    square = 1 + (x / reach).square()
    return x * square.rsqrt(), square.rsqrt() / square


def _silu(h: Tensor) -> tuple[Tensor, Tensor]:
    s = h.sigmoid()
    return h * s, s * (1 + h * (1 - s))


WITH_SLOPE: dict[Activation, WithSlope] = {
    Activation.SINE: lambda h: (h.sin(), h.cos()),
    Activation.TANH: lambda h: (h.tanh(), 1 - h.tanh().square()),
    Activation.SILU: _silu,
}
"""The activations and their derivatives, in PyTorch."""


class SmoothStack(NamedTuple):
    """A net of all columns to all columns: dense layers with one smooth activation between them.

    The net sees ``squash(x, reach)``; all of x where ``reach`` is 0.
    ``extra``, ``(*batch, out)``: what the context adds to the first layer. ``lasting``: whether these are the
    parameters themselves, so that the description holds after they change.
    """

    weights: Sequence[Tensor]
    biases: Sequence[Tensor | None]
    extra: Tensor | None
    activation: Activation
    lasting: bool
    reach: float = 0.0

    @property
    def features(self) -> int:
        return self.weights[0].shape[1]

    def fits(self) -> bool:
        """Whether the kernels take it."""
        few = 2 <= len(self.weights) <= MAX_LAYERS
        return few and self.features == len(self.weights[-1]) <= MAX_COLUMNS


def residual(net: SmoothStack, goal: float, iterations: int) -> Stage:
    """``x + net(x)``, a contraction; the log-determinant is exact.

    Args:
        net: the contraction.
        goal: the inverse is done with a row y when its residual is at most ``goal (1 + |y|)``.
        iterations: the most of the inverse; a row that is not done by then becomes NaN.
    """

    def plain(x: Tensor, records: Any, seed: int) -> tuple[Tensor, Tensor]:
        value, product = _linearize(net, x, records[2:])
        return x + value, exact_log_det(product, x, 1)

    return _stage(StageKind.RESIDUAL, wire.Residual(True, min(iterations, MAX_ITERATIONS), goal), net, plain)


def value(net: SmoothStack, x: Tensor) -> Tensor | None:
    """``net(x)`` by the kernels; None where they cannot."""

    def plain(x: Tensor, records: Any, seed: int) -> tuple[Tensor, Tensor]:
        return _linearize(net, x, records[2:])[0], x.new_zeros(x.shape[:-1])

    if not applies(x):
        return None
    alone = wire.Residual(with_x=False, iterations=1, goal=0.0)
    done = Program([_stage(StageKind.RESIDUAL, alone, net, plain)]).run(x)
    return None if done is None else done[0]


def transport(net: SmoothStack, biases: Tensor, span: float, traced: bool = True) -> Stage:
    """Kutta's 3/8 rule, of order 4, for ``dx/dt = net(x, t)``, with the integral of the trace.

    Args:
        net: the field; its first bias is not used.
        biases: the first layer's, ``(3 steps + 1, out)``, at times 0, 1/3, 2/3, 1, 4/3, ... steps;
            the kernels take at most ``MAX_STEPS`` steps.
        span: of time, over all steps; negative for backwards.
        traced: whether the trace is wanted; its integral is 0 otherwise.
    """
    steps, rest = divmod(len(biases) - 1, 3)
    if rest or steps < 1:
        raise ConfigError(
            f"biases must be at the thirds of each step, 3 steps + 1 of them, not {len(biases)}."
        )

    def plain(x: Tensor, records: Any, seed: int) -> tuple[Tensor, Tensor]:
        head, _, first, *others = records
        total, h = x.new_zeros(x.shape[:-1]), span / steps
        for n in range(steps):
            rates: list[Tensor] = []
            traces: list[Tensor] = []
            for e, reach in enumerate(REACH):
                point = x + h * sum(r * k for r, k in zip(reach, rates, strict=True))
                now = first._replace(bias=head.biases[3 * n + e])
                rate, product = _linearize(net, point, [now, *others])
                rates.append(rate)
                traces.append(trace(product, x) if traced else total)
            x = x + h * sum(w * k for w, k in zip(WEIGHT, rates, strict=True))
            if traced:
                total = total + h * sum(w * k for w, k in zip(WEIGHT, traces, strict=True))
        return x, total

    head = wire.Transport(traced, steps, span, biases.contiguous())
    return _stage(StageKind.TRANSPORT, head, net, plain)._replace(fits=steps <= MAX_STEPS)


def _stage(kind: StageKind, head: wire.Record, net: SmoothStack, plain: Plain) -> Stage:
    extras = [net.extra] + [None] * (len(net.weights) - 1)
    layers = [
        record(Dense(weight, bias, extra=extra))
        for weight, bias, extra in zip(net.weights, net.biases, extras, strict=True)
    ]
    smooth = wire.SmoothNet(net.activation, len(layers), net.reach)
    by_row = () if net.extra is None else (net.extra,)
    return Stage(net.features, kind, (head, smooth, *layers), plain, by_row=by_row, lasting=net.lasting)


def _linearize(net: SmoothStack, x: Tensor, layers: Sequence[wire.Dense]) -> tuple[Tensor, Product]:
    seen, dim = squash(x, net.reach) if net.reach else (within(x), None)
    slopes: list[Tensor] = []
    first, *others = layers
    h = F.linear(seen, first.weight, first.bias)
    h = h if first.extra is None else h + first.extra
    for layer in others:
        h, slope = WITH_SLOPE[net.activation](h)
        slopes.append(slope)
        h = F.linear(h, layer.weight, layer.bias)

    def product(tangents: Tensor) -> Tensor:
        t = F.linear(tangents if dim is None else dim * tangents, first.weight)
        for slope, layer in zip(slopes, others, strict=True):
            t = F.linear(slope * t, layer.weight)
        return t

    return h, product
