"""Autoregressive layers, with an inverse in one pass's work.

A masked net always sees its columns in natural order, and the layer permutes around it. So any masked net
works with any order, and ``order`` comes last among the arguments because it is rarely given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from diffeo.bijections.base import Bijection, check_family, shelter
from diffeo.contracts import MaskedNet
from diffeo.elementwise.base import Elementwise
from diffeo.errors import ConfigError, ShapeError
from diffeo.functional import matmul_precision, stages
from diffeo.functional.exact import exactly
from diffeo.functional.programs import run_alone
from diffeo.functional.shapes import sum_event


class Autoregressive(Bijection):
    """Column i through a map whose parameters see the columns before it.

    The most expressive layer a pass: one masked net pass gives all columns' parameters in
    ``forward``. ``inverse`` goes column by column, but computes only what each new column makes
    computable (the net's ``stepper``), so that its D steps together do the multiplications of one
    pass. It agrees with D full passes to round-off and is differentiable.

    Args:
        net: a masked net, ``net.features = D`` and ``net.params = family.num_params``.
        family: the scalar map.
        order: a permutation of 0 .. D - 1: the column that goes first, second, ... Default: as they stand.

    Shape: ``(*batch, D)``; context ``(*batch, net.context_features)`` where the net takes one.

    Raises:
        ShapeError: when the net's sizes do not fit.
        ConfigError: for an order that is not a permutation.

    References: Papamakarios et al. 2017 (MAF), eqs. 2-5; Kingma et al. 2016 (IAF); Prince
    2023, section 16.3.4.

    Example:
        >>> import torch
        >>> from diffeo.elementwise import Affine
        >>> from diffeo.nets import MADE
        >>> layer = Autoregressive(MADE(3, 2), Affine(), order=[2, 0, 1])
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(layer.inverse(layer(x)[0])[0], x)
        True
    """

    order: Tensor
    back: Tensor
    columns: Tensor

    def __init__(self, net: MaskedNet, family: Elementwise, order: Sequence[int] | None = None):
        context = (net.context_features,) if net.context_features else None
        super().__init__((net.features,), context_shape=context)
        if net.params != family.num_params:
            raise ShapeError(
                f"the net gives {net.params} parameters a column, but {family} takes {family.num_params}; "
                f"build the net with params={family.num_params}."
            )
        natural = list(range(net.features))
        chosen = natural if order is None else [int(i) for i in order]
        if sorted(chosen) != natural:
            raise ConfigError(f"order must be a permutation of 0 .. {net.features - 1}, not {chosen}.")
        check_family(family, net.features)
        self.net, self.family = net, family
        # in tuples: a family with weights is registered once
        self.ordered = (family.columns(chosen),)
        self.families = tuple(family.columns([i]) for i in chosen)
        self.domain, self.codomain = family.domain, family.codomain
        self.traits = replace(family.traits, forward_passes=1, inverse_passes=1)
        self.chosen, self.natural = chosen, chosen == natural
        back = sorted(natural, key=chosen.__getitem__)
        self.register_buffer("order", torch.tensor(chosen), persistent=False)
        self.register_buffer("back", torch.tensor(back), persistent=False)
        self.register_buffer("columns", torch.tensor(chosen, dtype=torch.int32), persistent=False)

    def _context(self, context: Tensor | None) -> Tensor | None:
        return context if self.net.context_features else None

    def as_stages(self, context: Tensor | None = None) -> list[stages.Stage] | None:
        if not exactly(self, Autoregressive) or self.family.scalar is None:
            return None
        stack = self.net.stack(self._context(context)) if isinstance(self.net, stages.Stacked) else None
        if stack is None:
            return None
        order = self.columns
        stage = stages.conditional(len(order), stack, self.family, order, order, autoregressive=True)
        return [stage]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return run_alone(self.as_stages, x, context) or self._forward(x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return run_alone(self.as_stages, y, context, inverse=True) or self._inverse(y, context)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        seen = shelter(x, self.domain)[0]
        x, seen = (x, seen) if self.natural else (x[..., self.order], seen[..., self.order])
        y, log_slope = self.ordered[0].forward(
            x, matmul_precision.run_net(self.net, seen, self._context(context))
        )
        return y if self.natural else y[..., self.back], sum_event(log_slope, 1)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        y = y if self.natural else y[..., self.order]
        step = self.net.stepper(self._context(context), y.shape[:-1])
        columns: list[Tensor] = []
        log_slopes: list[Tensor] = []
        previous = None
        for family, column in zip(self.families, y.split(1, -1), strict=True):
            column, log_slope = family.inverse(column, step(previous).unsqueeze(-2))
            previous = column.squeeze(-1)
            columns.append(column)
            log_slopes.append(log_slope)
        x = torch.cat(columns, -1)
        log_det = torch.cat(log_slopes, -1).sum(-1)
        return x if self.natural else x[..., self.back], log_det

    def extra_repr(self) -> str:
        return f"{self.family}" + ("" if self.natural else f", order={self.chosen}")
