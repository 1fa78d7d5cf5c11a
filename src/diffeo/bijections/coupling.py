"""Coupling layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffeo.bijections.base import Bijection, check_family, shelter
from diffeo.contracts import Net
from diffeo.elementwise.base import Elementwise
from diffeo.errors import ConfigError, ShapeError
from diffeo.functional import matmul_precision, stages
from diffeo.functional.exact import exactly
from diffeo.functional.programs import run_alone
from diffeo.functional.shapes import sum_event


class Coupling(Bijection):
    """Columns under the mask pass unchanged and give the parameters for the others.

    One net pass either way, so sampling is as fast as scoring. Alternate masks, or mix columns
    between layers, or the passing columns never change.

    Args:
        mask: D booleans; True passes unchanged.
        net: takes the passing columns, ``in_features = mask.sum()``, to
            ``out_features = (D - mask.sum()) * family.num_params``.
        family: the scalar map of the other columns; of ``Mixed``, which has one for every column, those
            of the passing columns say only where they live.

    Shape: ``(*batch, D)``; context ``(*batch, net.context_features)`` where the net takes one.

    Raises:
        ShapeError: when the net's sizes do not fit; it names the sizes needed.

    References: Dinh et al. 2015 (NICE), section 3.2; Dinh et al. 2017, eqs. 4-8; Prince 2023, section 16.3.3.

    Example:
        >>> import torch
        >>> from diffeo.elementwise import Affine
        >>> from diffeo.nets import MLP
        >>> layer = Coupling([True, False, False], MLP(1, 2 * Affine().num_params), Affine())
        >>> layer(torch.randn(5, 3))[1].shape
        torch.Size([5])
    """

    passing: Tensor
    changing: Tensor
    back: Tensor
    seen: Tensor
    changed: Tensor

    def __init__(self, mask: Sequence[bool] | Tensor, net: Net, family: Elementwise):
        mask = tuple(bool(m) for m in mask)
        if all(mask):
            raise ConfigError("the mask passes every column unchanged; make at least one entry False.")
        context = (net.context_features,) if net.context_features else None
        super().__init__((len(mask),), context_shape=context)
        passing = [i for i, m in enumerate(mask) if m]
        changing = [i for i, m in enumerate(mask) if not m]
        check_family(family, len(mask))
        wanted = len(passing), len(changing) * family.num_params
        if (net.in_features, net.out_features) != wanted:
            raise ShapeError(
                f"the net takes {net.in_features} and gives {net.out_features} features, but this mask and "
                f"family need in_features={wanted[0]}, out_features={wanted[1]}."
            )
        self.mask, self.net, self.family = mask, net, family
        self.applied = (family.columns(changing),)  # a tuple: a family with weights is registered once
        self.domain, self.codomain, self.traits = family.domain, family.codomain, family.traits
        back = sorted(range(len(mask)), key=[*passing, *changing].__getitem__)
        self.register_buffer("passing", torch.tensor(passing, dtype=torch.long), persistent=False)
        self.register_buffer("changing", torch.tensor(changing), persistent=False)
        self.register_buffer("back", torch.tensor(back), persistent=False)
        self.register_buffer("seen", self.passing.int(), persistent=False)
        self.register_buffer("changed", self.changing.int(), persistent=False)

    def _params(self, passing: Tensor, context: Tensor | None) -> Tensor:
        context = context if self.net.context_features else None
        return matmul_precision.run_net(self.net, passing, context).unflatten(
            -1, (len(self.changing), self.family.num_params)
        )

    def as_stages(self, context: Tensor | None = None) -> list[stages.Stage] | None:
        if not exactly(self, Coupling) or self.family.scalar is None:
            return None
        stack = None
        if isinstance(self.net, stages.Stacked):
            stack = self.net.stack(context if self.net.context_features else None)
        if stack is None:
            return None
        columns = self.seen, self.changed
        return [stages.conditional(len(self.mask), stack, self.family, *columns, autoregressive=False)]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return run_alone(self.as_stages, x, context) or self._forward(x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return run_alone(self.as_stages, y, context, inverse=True) or self._inverse(y, context)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._apply_family(self.applied[0].forward, *shelter(x, self.domain), context)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._apply_family(self.applied[0].inverse, *shelter(y, self.codomain), context)

    def _apply_family(
        self,
        scalar_map: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        x: Tensor,
        outside: Tensor | None,
        context: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        passing, changing = x[..., self.passing], x[..., self.changing]
        y, log_slope = scalar_map(changing, self._params(passing, context))
        log_det = sum_event(log_slope, 1)
        if outside is not None:
            log_det = torch.where(outside.any(-1), -math.inf, log_det)
        return torch.cat([passing, y], -1)[..., self.back], log_det

    def extra_repr(self) -> str:
        return f"{self.family}, mask={''.join('01'[m] for m in self.mask)}"
