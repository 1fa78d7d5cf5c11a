"""A flow in the clothes of ``torch.distributions``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

if TYPE_CHECKING:
    from diffeo.flow import Flow


class FlowDistribution(Distribution):
    """``log_prob``, ``sample`` and ``rsample`` of a flow at a fixed context."""

    arg_constraints: dict[str, constraints.Constraint] = {}  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    has_rsample = True

    def __init__(self, flow: Flow, context: Tensor | None = None, batch_shape: Sequence[int] = ()):
        self.flow, self.context = flow, context
        batch = torch.Size(batch_shape)
        if context is not None and flow.context_shape is not None:
            batch = context.shape[: context.dim() - len(flow.context_shape)]
        super().__init__(batch, flow.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        domain = None if self.flow.encoding is not None else self.flow.bijection.domain
        return constraints.independent(domain or constraints.real, len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        log_prob = self.flow.log_prob(value, self.context)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.flow.sample(self._shape(sample_shape), self.context)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.flow.sample_and_log_prob(self._shape(sample_shape), self.context)[0]

    def _shape(self, sample_shape: Sequence[int]) -> torch.Size:
        """What the flow is asked for: with a context it adds the batch itself."""
        return torch.Size(sample_shape) + (torch.Size() if self.context is not None else self.batch_shape)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> FlowDistribution:
        context = self.context
        if context is not None and self.flow.context_shape is not None:
            context = context.expand((*batch_shape, *self.flow.context_shape))
        return FlowDistribution(self.flow, context, batch_shape)
