"""Chains of layers as data: what the kernels run in one call, and the same in plain PyTorch.

A layer that the kernels know describes itself by a ``Stage``, and each stage carries its plain meaning too:
what the tests hold the kernels to, and what second derivatives go through. ``programs`` runs them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo.functional.scalar import Scalar

Map = Callable[[Tensor], tuple[Tensor, Tensor]]


CONDITIONAL, PERMUTE, NORMALIZE, LU = range(4)


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
    which is the output of the layer before. ``extra``: ``(*batch, out)``.
    """

    weight: Tensor
    bias: Tensor | None = None
    relu: bool = False
    add: int = -1
    limits: Tensor | None = None
    extra: Tensor | None = None


class Stacked(ABC):
    """A net that is a stack of dense layers."""

    @abstractmethod
    def stack(self, context: Tensor | None) -> list[Dense] | None:
        """The layers for this context; None where, as it is set now, the net is more than that."""


class Stage(NamedTuple):
    """One layer of a chain, for the kernels and for PyTorch.

    ``ints`` and ``reals`` are read by ``module.cpp`` in this order, as are ``tensors``; ``plain`` is the
    map itself, ``plain_inverse`` its inverse.
    """

    ints: tuple[int, ...]
    reals: tuple[float, ...]
    tensors: tuple[Tensor | None, ...]
    plain: Map
    plain_inverse: Map
    inverted: bool = False

    def invert(self) -> Stage:
        """The stage whose map is this one's inverse."""
        return self._replace(plain=self.plain_inverse, plain_inverse=self.plain, inverted=not self.inverted)


def dense(layers: Sequence[Dense], x: Tensor) -> Tensor:
    """A net's output in plain PyTorch."""
    outputs: list[Tensor] = []
    h = x
    for layer in layers:
        weight = layer.weight
        if layer.limits is not None:
            seen = torch.arange(weight.shape[1], device=weight.device) < layer.limits[:, None]
            weight = torch.where(seen, weight, 0.0)
        h = F.linear(F.relu(h) if layer.relu else h, weight, layer.bias)
        h = h if layer.extra is None else h + layer.extra
        h = h if layer.add < 0 else h + outputs[layer.add]
        outputs.append(h)
    return h


def conditional(
    layers: Sequence[Dense],
    family: Family,
    seen: Tensor,
    changed: Tensor,
    inverse: Map,
    *,
    autoregressive: bool,
) -> Stage:
    """Columns ``changed`` through a family whose parameters a net gives from columns ``seen``.

    Args:
        layers: the net, at most 64 layers.
        family: the scalar map, one the kernels know.
        seen: int32 columns the net sees, in order.
        changed: int32 columns it gives parameters for, in order.
        inverse: the plain inverse, of the layer itself.
        autoregressive: whether ``seen`` and ``changed`` are one order of all columns, the net masked.
    """
    scalar = family.scalar
    assert scalar is not None

    def plain(x: Tensor) -> tuple[Tensor, Tensor]:
        params = dense(layers, x[..., seen]).unflatten(-1, (len(changed), family.num_params))
        y, log_slope = family.forward(x[..., changed], params)
        return x.index_copy(-1, changed.long(), y), log_slope.sum(-1)

    ints = [autoregressive, len(seen), len(changed), scalar.kind, scalar.bins, scalar.ends, len(layers)]
    tensors: list[Tensor | None] = [seen, changed]
    for layer in layers:
        weight, bias, extra = layer.weight, layer.bias, layer.extra
        weight = weight if weight.stride(1) == 1 else weight.contiguous()
        ints += [weight.shape[1], weight.shape[0], weight.stride(0), layer.relu, layer.add]
        tensors += [weight, _solid(bias), _solid(extra), layer.limits]
    return Stage((CONDITIONAL, *ints), scalar[3:], tuple(tensors), plain, inverse)


def _solid(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.contiguous()


def permutation(index: Tensor, plain: Map, inverse: Map) -> Stage:
    """Column j of the output is column ``index[j]`` of the input, int32."""
    return Stage((PERMUTE,), (), (index,), plain, inverse)


def normalization(loc: Tensor, log_scale: Tensor, plain: Map, inverse: Map) -> Stage:
    """``(x - loc) exp(-log_scale)``."""
    return Stage((NORMALIZE,), (), (loc, log_scale), plain, inverse)


def lu(
    weight: Tensor, log_diagonal: Tensor, bias: Tensor | None, bound: float, plain: Map, inverse: Map
) -> Stage:
    """``L U x + bias``, both factors in one square, the log-diagonal softly clipped at ``bound``."""
    return Stage((LU,), (bound,), (weight, log_diagonal, bias), plain, inverse)
