"""Chains of layers as data: what the kernels run in one call, and the same in plain PyTorch.

A layer that the kernels know describes itself by a ``Stage``, and each stage carries its plain meaning too:
what the tests hold the kernels to, and what second derivatives go through. ``programs`` runs them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo.functional import wire
from diffeo.functional.affine import soft_clip
from diffeo.functional.far import within
from diffeo.functional.wire import MAX_LAYERS, Scalar, StageKind

Plain = Callable[[Tensor, Any, int], tuple[Tensor, Tensor]]


class Family(Protocol):
    """What a stage needs of an ``Elementwise`` family."""

    @property
    def num_params(self) -> int: ...
    @property
    def scalar(self) -> Scalar | None: ...
    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]: ...
    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]: ...


class Dense(NamedTuple):
    """One layer of a net: ``weight @ act(input) + bias + extra``, plus the output of layer ``add``.

    ``limits``, int32 and ascending: unit o sees its first ``limits[o]`` inputs. ``relu`` is of the input,
    which is the output of the layer before. ``extra``: ``(*batch, out)``. ``drop``: probability with which
    an activation of the input is zeroed, the others growing by ``1 / (1 - drop)``; needs ``relu``.
    ``reach``, one number, of a net's first layer: its input is seen within +-``reach``.
    """

    weight: Tensor
    bias: Tensor | None = None
    relu: bool = False
    add: int = -1
    limits: Tensor | None = None
    extra: Tensor | None = None
    drop: float = 0.0
    reach: Tensor | None = None


class Stacked(ABC):
    """A net that is a stack of dense layers."""

    @abstractmethod
    def stack(self, context: Tensor | None) -> list[Dense] | None:
        """The layers for this context; None where, as it is set now, the net is more than that."""


class Stage(NamedTuple):
    """One layer of a chain, for the kernels and for PyTorch.

    ``records`` are what the kernels read of it. ``plain(x, records, seed)`` is the map in PyTorch, ``(value,
    log_det)``, with the tensors that the records hold. ``inverted``: in the chain stands the map's inverse.
    ``fits``: whether it is within the kernels' limits. ``draws``: whether it depends on the seed. ``by_row``:
    the tensors that have the points' batch axes. ``lasting``: whether the tensors are parameters and buffers
    themselves, not computed from them.
    """

    features: int
    kind: StageKind
    records: tuple[wire.Record, ...]
    plain: Plain
    inverted: bool = False
    fits: bool = True
    draws: bool = False
    by_row: tuple[Tensor, ...] = ()
    lasting: bool = True

    def invert(self) -> Stage:
        """The stage of the inverse map."""
        return self._replace(inverted=not self.inverted)


def dense(layers: Sequence[Dense], x: Tensor, seed: int = 0) -> Tensor:
    """A net's output in plain PyTorch."""
    outputs: list[Tensor] = []
    h = x
    for number, layer in enumerate(layers):
        weight = layer.weight
        if layer.limits is not None:
            seen = torch.arange(weight.shape[1], device=weight.device) < layer.limits[:, None]
            weight = torch.where(seen, weight, 0.0)
        h = h if layer.reach is None else h.clamp(-layer.reach, layer.reach)
        h = F.relu(h) if layer.relu else h
        h = h * kept(h, layer.drop, seed + number * 0x85EBCA6B) if layer.drop else h
        h = F.linear(h, weight, layer.bias)
        h = h if layer.extra is None else h + layer.extra
        h = h if layer.add < 0 else h + outputs[layer.add]
        outputs.append(h)
    return h


def kept(h: Tensor, drop: float, seed: int) -> Tensor:
    """What dropout multiplies activations by: 0 or ``1 / (1 - drop)``, by hashing where each one stands.

    Every pass over the same rows draws the same, which a backward pass that computes them again needs. The
    hash is a 32-bit finalizer of two multiplications; net.hpp has it, too.
    """
    word = 0xFFFFFFFF
    x = torch.arange(h.numel(), device=h.device).view(h.shape) & word
    x = x ^ (seed & word)
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & word
    x = ((x ^ (x >> 15)) * 0x846CA68B) & word
    x = x ^ (x >> 16)
    return (x >= int(drop * 2**32)).to(h.dtype) / (1 - drop)


def conditional(
    features: int,
    layers: Sequence[Dense],
    family: Family,
    seen: Tensor,
    changed: Tensor,
    *,
    autoregressive: bool,
) -> Stage:
    """Columns ``changed`` through a family whose parameters a net gives from columns ``seen``.

    Args:
        features: how many columns there are.
        layers: the net; the kernels take at most ``MAX_LAYERS``.
        family: the scalar map, one the kernels know.
        seen: int32 columns the net sees, in order.
        changed: int32 columns it gives parameters for, in order.
        autoregressive: whether ``seen`` and ``changed`` are one order of all columns, the net masked.
    """
    scalar = family.scalar
    assert scalar is not None

    head = wire.Conditional(autoregressive, len(seen), len(changed), len(layers), seen, changed)

    def plain(x: Tensor, records: Any, seed: int) -> tuple[Tensor, Tensor]:
        own = [
            layer._replace(weight=given.weight, bias=given.bias, extra=given.extra, reach=given.reach)
            for layer, given in zip(layers, records[2:], strict=True)
        ]
        params = dense(own, x[..., seen], seed).unflatten(-1, (len(changed), family.num_params))
        y, log_slope = family.forward(x[..., changed], params)
        return x.index_copy(-1, changed.long(), y), log_slope.sum(-1)

    return Stage(
        features,
        StageKind.CONDITIONAL,
        (head, scalar, *map(record, layers)),
        plain,
        fits=len(layers) <= MAX_LAYERS,
        draws=any(layer.drop for layer in layers),
        by_row=tuple(layer.extra for layer in layers if layer.extra is not None),
    )


def record(layer: Dense) -> wire.Dense:
    """The layer as the kernels read it: rows of the weight in one piece, all other tensors too."""
    weight, bias, relu, add, limits, extra, drop, reach = layer
    weight = weight if weight.stride(1) == 1 else weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    extra = None if extra is None else extra.contiguous()
    outputs, inputs = weight.shape
    sizes = inputs, outputs, weight.stride(0)
    return wire.Dense(*sizes, relu, add, drop, weight, bias, extra, limits, reach)


def permutation(index: Tensor) -> Stage:
    """Column j of the output is column ``index[j]`` of the input, int32."""

    def plain(x: Tensor, records: Any, seed: int) -> tuple[Tensor, Tensor]:
        return x[..., records[0].permutation], x.new_zeros(x.shape[:-1])

    return Stage(len(index), StageKind.PERMUTE, (wire.Permute(index),), plain)


def normalization(loc: Tensor, log_scale: Tensor) -> Stage:
    """``(x - loc) exp(-log_scale)``."""

    def plain(x: Tensor, records: Any, seed: int) -> tuple[Tensor, Tensor]:
        loc, log_scale = records[0]
        return (x - loc) * torch.exp(-log_scale), -log_scale.sum().expand(x.shape[:-1])

    return Stage(len(loc), StageKind.NORMALIZE, (wire.Normalize(loc, log_scale),), plain)


def lu(weight: Tensor, log_diagonal: Tensor, bias: Tensor | None, bound: float) -> Stage:
    """``L U x + bias``, both factors in one square, the log-diagonal softly clipped at ``bound``."""

    def plain(x: Tensor, records: Any, seed: int) -> tuple[Tensor, Tensor]:
        bound, weight, log_diagonal, bias = records[0]
        log_diagonal = soft_clip(log_diagonal, bound)
        x = within(x)
        u = x @ weight.triu(1).T + x * log_diagonal.exp()
        y = u @ weight.tril(-1).T + u
        return y if bias is None else y + bias, log_diagonal.sum().expand(x.shape[:-1])

    return Stage(len(weight), StageKind.LU, (wire.LU(bound, weight, log_diagonal, bias),), plain)
