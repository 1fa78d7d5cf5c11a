"""Stages made of a smooth net of all columns: residual blocks, and transport along a field.

The net's Jacobian goes along with its value, one tangent a column, which the kernels do for few columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from diffeo.errors import ConfigError
from diffeo.functional.linearize import Product, trace
from diffeo.functional.log_dets import exact_log_det
from diffeo.functional.programs import Program, applies
from diffeo.functional.stages import RESIDUAL, TRANSPORT, Stage, solid

SINE, TANH, SILU = range(3)
"""The activations the kernels know."""
MAX_COLUMNS = 8
"""The most columns whose Jacobian the kernels compute in full."""

REACH = ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1))
WEIGHT = (1 / 8, 3 / 8, 3 / 8, 1 / 8)
"""Kutta's 3/8 rule."""

WithSlope = Callable[[Tensor], tuple[Tensor, Tensor]]


def squash(x: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """``x / sqrt(1 + (x / reach)^2)``, which stays below ``reach``, and its slope."""
    square = 1 + (x / reach).square()
    return x * square.rsqrt(), square.rsqrt() / square


def _silu(h: Tensor) -> tuple[Tensor, Tensor]:
    s = h.sigmoid()
    return h * s, s * (1 + h * (1 - s))


WITH_SLOPE: tuple[WithSlope, ...] = (
    lambda h: (h.sin(), h.cos()),
    lambda h: (h.tanh(), 1 - h.tanh().square()),
    _silu,
)
"""They and their slopes in PyTorch."""


class SmoothStack(NamedTuple):
    """A net of all columns to all columns: dense layers with one smooth activation between them.

    The net sees ``squash(x, reach)``; all of x where ``reach`` is 0.
    ``extra``, ``(*batch, out)``: what the context adds to the first layer. ``lasting``: whether these are the
    parameters themselves, so that the description holds after they change.
    """

    weights: Sequence[Tensor]
    biases: Sequence[Tensor | None]
    extra: Tensor | None
    activation: int
    lasting: bool
    reach: float = 0.0

    @property
    def features(self) -> int:
        return self.weights[0].shape[1]

    def fits(self) -> bool:
        """Whether the kernels take it."""
        return len(self.weights) >= 2 and self.features == len(self.weights[-1]) <= MAX_COLUMNS


def residual(net: SmoothStack, goal: float, iterations: int) -> Stage:
    """``x + net(x)``, a contraction; the log-determinant is exact.

    Args:
        net: the contraction.
        goal: the inverse is done with a row y when its residual is at most ``goal (1 + |y|)``.
        iterations: the most of the inverse; a row that is not done by then becomes NaN.
    """

    def plain(x: Tensor, tensors: Any, seed: int) -> tuple[Tensor, Tensor]:
        value, product = _linearize(net, x, tensors[0::3], tensors[1::3], tensors[2])
        return x + value, exact_log_det(product, x, 1)

    return _stage(RESIDUAL, net, [], iterations, goal, plain)


def value(net: SmoothStack, x: Tensor) -> Tensor | None:
    """``net(x)`` by the kernels; None where they cannot."""

    def plain(x: Tensor, tensors: Any, seed: int) -> tuple[Tensor, Tensor]:
        value = _linearize(net, x, tensors[0::3], tensors[1::3], tensors[2])[0]
        return value, x.new_zeros(x.shape[:-1])

    done = Program([_stage(RESIDUAL, net, [], 1, 0.0, plain, traced=False)]).run(x) if applies(x) else None
    return None if done is None else done[0]


def transport(net: SmoothStack, biases: Tensor, span: float, traced: bool = True) -> Stage:
    """Kutta's 3/8 rule, of order 4, for ``dx/dt = net(x, t)``, with the integral of the trace.

    Args:
        net: the field; its first bias is not used.
        biases: the first layer's, ``(3 steps + 1, out)``, at times 0, 1/3, 2/3, 1, 4/3, ... steps.
        span: of time, over all steps; negative for backwards.
        traced: whether the trace is wanted; its integral is 0 otherwise.
    """
    steps, rest = divmod(len(biases) - 1, 3)
    if rest or steps < 1:
        raise ConfigError(
            f"biases must be at the thirds of each step, 3 steps + 1 of them, not {len(biases)}."
        )

    def plain(x: Tensor, tensors: Any, seed: int) -> tuple[Tensor, Tensor]:
        table, *tensors = tensors
        total, h = x.new_zeros(x.shape[:-1]), span / steps
        for n in range(steps):
            rates: list[Tensor] = []
            traces: list[Tensor] = []
            for e, reach in enumerate(REACH):
                point = x + h * sum(r * k for r, k in zip(reach, rates, strict=True))
                own = [table[3 * n + e], *tensors[4::3]]
                rate, product = _linearize(net, point, tensors[0::3], own, tensors[2])
                rates.append(rate)
                traces.append(trace(product, x) if traced else total)
            x = x + h * sum(w * k for w, k in zip(WEIGHT, rates, strict=True))
            if traced:
                total = total + h * sum(w * k for w, k in zip(WEIGHT, traces, strict=True))
        return x, total

    return _stage(TRANSPORT, net, [biases.contiguous()], steps, span, plain, traced)


def _stage(
    kind: int, net: SmoothStack, first: list[Tensor], steps: int, span: float, plain: Any, traced: bool = True
) -> Stage:
    ints = [kind, net.activation, traced, steps, len(net.weights)]
    tensors: list[Tensor | None] = [*first]
    for i, (w, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        weight = w if w.stride(1) == 1 else w.contiguous()
        ints += [weight.shape[1], weight.shape[0], weight.stride(0)]
        tensors += [weight, solid(bias), solid(net.extra) if i == 0 else None]
    by_row = () if net.extra is None else (net.extra,)
    return Stage(
        net.features,
        tuple(ints),
        (span, net.reach),
        tuple(tensors),
        plain,
        by_row=by_row,
        lasting=net.lasting,
    )


def _linearize(
    net: SmoothStack, x: Tensor, weights: Any, biases: Any, extra: Tensor | None
) -> tuple[Tensor, Product]:
    seen, dim = squash(x, net.reach) if net.reach else (x, None)
    slopes: list[Tensor] = []
    h = F.linear(seen, weights[0], biases[0])
    h = h if extra is None else h + extra
    for weight, bias in zip(weights[1:], biases[1:], strict=True):
        h, slope = WITH_SLOPE[net.activation](h)
        slopes.append(slope)
        h = F.linear(h, weight, bias)

    def product(tangents: Tensor) -> Tensor:
        t = F.linear(tangents if dim is None else dim * tangents, weights[0])
        for slope, weight in zip(slopes, weights[1:], strict=True):
            t = F.linear(slope * t, weight)
        return t

    return h, product
