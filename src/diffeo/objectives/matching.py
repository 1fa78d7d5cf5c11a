"""Flow matching: a continuous flow trained by regression, without a solve."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from diffeo.bijections import Chain, Continuous
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.objectives.base import Batch, weighted_mean


def _transport() -> Any:
    try:
        import ot
    except ImportError:
        raise ConfigError("optimal transport needs POT: pip install 'diffeo[continuous]'") from None
    return ot


class Pairing(ABC):
    """Which data point flows to which draw of noise."""

    @abstractmethod
    def pair(
        self,
        data: Tensor,
        noise: Tensor,
        context: Tensor | None,
        weights: Tensor | None,
        generator: Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Rows of the data, rows of the noise, and the pairs' weights.

        Weighted by these, the noise stays normal, in each context, and the data keep their weights.
        """


@dataclass(frozen=True)
class Independent(Pairing):
    """Data and noise paired as they come."""

    def pair(
        self,
        data: Tensor,
        noise: Tensor,
        context: Tensor | None,
        weights: Tensor | None,
        generator: Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        every = torch.arange(len(data), device=data.device)
        return every, every, weights


@dataclass(frozen=True)
class OptimalTransport(Pairing):
    """The pairs of a batch that are nearest to each other altogether: straighter paths, fewer steps.

    Exact transport of the batch by POT, at the cost of squared distances. Rows are paired only with noise of
    equal contexts, else the noise would depend on the context; where each row has a context of its
    own, this is ``Independent``. With weights the pairs are drawn from the weighted plan.

    Cost: about the cube of the batch's rows; 512 rows take some 30 ms.

    References: Tong et al. 2024, "Improving and generalizing flow-based generative models with minibatch
    optimal transport", section 3.2.4 (proposition 3.4).
    """

    def pair(
        self,
        data: Tensor,
        noise: Tensor,
        context: Tensor | None,
        weights: Tensor | None,
        generator: Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        every = torch.arange(len(data), device=data.device)
        if context is None:
            groups = [every]
        else:
            group = torch.unique(context.reshape(len(context), -1), dim=0, return_inverse=True)[1]
            groups = list(every[group.argsort()].split(torch.bincount(group).tolist()))
        rows, partners, kept = [], [], []
        for members in groups:
            weight = None if weights is None else weights[members]
            row, partner = self._plan(data[members], noise[members], weight, generator)
            rows.append(members[row])
            partners.append(members[partner])
            if weight is not None:  # the group keeps its share; inside, the draw has seen to it
                kept.append(weight.mean().expand(len(members)))
        return torch.cat(rows), torch.cat(partners), torch.cat(kept) if kept else None

    def _plan(
        self, data: Tensor, noise: Tensor, weights: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        count = len(data)
        if count < 2:
            one = torch.arange(count, device=data.device)
            return one, one
        cost = torch.cdist(data.double(), noise.double()).square().cpu().numpy()
        even = torch.full((count,), 1 / count, dtype=torch.float64)
        share = even if weights is None else (weights.double() / weights.double().sum()).cpu()
        plan = torch.from_numpy(_transport().emd(share.numpy(), even.numpy(), cost)).to(data.device)
        if weights is None:
            return torch.arange(count, device=data.device), plan.argmax(1)
        pairs = torch.multinomial(plan.flatten(), count, replacement=True, generator=generator)
        return pairs // count, pairs % count


@dataclass(frozen=True)
class FlowMatching:
    """Conditional flow matching: ``E |v(t, x_t, c) - (z - x)|^2`` at ``x_t = (1 - t) x + t z``.

    x are data as the flow's ``Continuous`` layer, its last, sees them (behind encodings and
    standardization), z noise from the flow's base, ``t = u^power`` with u uniform on [0, 1]: data at 0
    and noise at 1, where most papers have them the other way round. No solve, no trace: a step is one
    pass of the net. The flow then is as any other: ``log_prob``, ``sample``, ``to_latent``. The layers
    before the last are not trained. The loss is squared speed, not nats; only its order means something.

    In evaluation the noise is drawn from a fixed seed: the same batch gets the same loss. In both the times
    are stratified, one in each of as many equal parts as there are rows.

    Args:
        pairing: ``Independent()`` or ``OptimalTransport()``.
        power: 1 for uniform times, as in the paper; above it, more of them near the data, where fields
            are roughest and the likelihood is most sensitive to their errors.

    Raises:
        ConfigError: for a flow that does not end in a ``Continuous`` layer.

    References: Lipman, Chen, Ben-Hamu, Nickel and Le 2023, "Flow matching for generative modeling",
    eqs. 9 and 20-23 (sigma_min = 0).

    Example:
        >>> import torch, diffeo
        >>> flow = diffeo.presets.FlowMatching(features=2, hidden=8).build().eval()
        >>> batch = Batch(torch.zeros(4000, 2), None, None, torch.arange(4000))
        >>> 1.9 < FlowMatching()(flow, batch).item() < 2.1  # E |z|^2
        True
    """

    pairing: Pairing = Independent()
    power: float = 1.0

    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        generator = None if flow.training else Generator(batch.x.device).manual_seed(0)
        with torch.no_grad():
            x, context, layer = _before_last(flow, batch)
            noise = flow.base.sample(x.shape[:1], context, generator=generator)
            rows, partners, weights = self.pairing.pair(x, noise, context, batch.weights, generator)
            x, noise = x[rows], noise[partners]
            context = None if context is None else context[rows]
            t = _times(x, generator) ** self.power
            here = torch.lerp(x, noise, t)
        error = layer.velocity(t, here, context if layer.context_shape is not None else None) - (noise - x)
        return weighted_mean(error.square().sum(-1), weights)


def _times(x: Tensor, generator: Generator | None) -> Tensor:
    """One time a row, stratified and in random order, ``(rows, 1)``."""
    count = len(x)
    part = torch.randperm(count, generator=generator, device=x.device)
    within = torch.rand(count, generator=generator, dtype=x.dtype, device=x.device)
    return ((part + within) / max(1, count)).unsqueeze(1)


def _before_last(flow: Flow, batch: Batch) -> tuple[Tensor, Tensor | None, Continuous]:
    """The batch as the last layer sees it, and that layer."""
    x, context = batch.x, batch.context
    if context is not None and flow.context_encoding is not None:
        context = flow.context_encoding(context)
    if flow.encoding is not None:
        x = flow.encoding.encode(x)[0][0]
    *before, last = flow.bijection.parts if isinstance(flow.bijection, Chain) else [flow.bijection]
    if not isinstance(last, Continuous):
        raise ConfigError(
            f"flow matching trains the field of a Continuous layer, but this flow ends in "
            f"{type(last).__name__}; put a Continuous layer last, or use another objective."
        )
    for part in before:
        x = part.push(x, context)  # type: ignore[operator, union-attr]
    return x, context, last
