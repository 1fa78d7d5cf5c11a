"""Amortized posteriors: flows of the latent vector whose context is what an encoder makes of the data.

All sample in closed form, since a sample and its own density are all that is asked of a posterior: the
layers run in their papers' direction, behind ``Inverse`` here. All start as the diagonal normal of scale 1,
whose means are a random linear map of the context.

The means depend on x from the start, against the rule of neutral starts. With encoder, means and decoder all
at zero only the noise has a gradient: on a toy of eight binary columns 1,200 steps moved nothing, and with
random means 400 did (one run each).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from diffeo.bases import ContextNormal
from diffeo.bijections import Autoregressive, Chain, Inverse, Permute, Planar, Reverse, Sylvester
from diffeo.bijections.base import Bijection
from diffeo.elementwise import Affine
from diffeo.flow import Flow
from diffeo.nets import MADE, MLP


def posterior(features: int, context_features: int, layers: Sequence[Bijection]) -> Flow:
    """A normal whose means and scales are linear in the context, carried on by any layers.

    Args:
        features: L, numbers of a latent vector.
        context_features: numbers that the encoder gives.
        layers: bijections of L features, the one next to the latent vector first; none for the normal itself.

    Example:
        >>> import torch
        >>> from diffeo.bijections import Radial
        >>> flow = posterior(3, 8, [Inverse(Radial(3))])
        >>> flow.sample((), torch.zeros(5, 8)).shape
        torch.Size([5, 3])
    """
    net = MLP(context_features, 2 * features, hidden=())
    with torch.no_grad():  # at zero, too, encoder, means and decoder would wait for each other
        net.output.weight[:features].uniform_(-1, 1).div_(math.sqrt(context_features))
    return Flow(Chain(layers) if layers else Permute(range(features)), ContextNormal((features,), net))


def diagonal(features: int, context_features: int) -> Flow:
    """Independent normal numbers: the posterior without a flow.

    Args:
        features: L, numbers of a latent vector.
        context_features: numbers that the encoder gives.

    References: Kingma and Welling 2014, "Auto-encoding variational Bayes", section 3.

    Example:
        >>> import torch
        >>> diagonal(3, 8).log_prob(torch.zeros(3), torch.zeros(8))
        tensor(-2.7568, grad_fn=<AddBackward0>)
    """
    return posterior(features, context_features, [])


def planar(features: int, context_features: int, layers: int = 4) -> Flow:
    """Planar layers whose numbers are linear in the context.

    Args:
        features: L, numbers of a latent vector.
        context_features: numbers that the encoder gives.
        layers: how many.

    References: Rezende and Mohamed 2015, section 4.1; amortized as in van den Berg et al. 2018, section 5.

    Example:
        >>> import torch
        >>> planar(3, 8).sample((), torch.zeros(5, 8)).shape
        torch.Size([5, 3])
    """
    numbers = Planar.num_params(features)
    return posterior(
        features,
        context_features,
        [Inverse(Planar(features, _linear(numbers, context_features))) for _ in range(layers)],
    )


def sylvester(
    features: int, context_features: int, layers: int = 4, rank: int = 16, reflections: int | None = None
) -> Flow:
    """Sylvester layers whose numbers, the directions among them, are linear in the context.

    Args:
        features: L, numbers of a latent vector.
        context_features: numbers that the encoder gives.
        layers: how many.
        rank: directions of each, at most L.
        reflections: Householder reflections that make them; by default as many as the rank.

    References: van den Berg, Hasenclever, Tomczak and Welling 2018, section 4 (H-SNF).

    Example:
        >>> import torch
        >>> sylvester(3, 8, rank=2).sample((), torch.zeros(5, 8)).shape
        torch.Size([5, 3])
    """
    numbers = Sylvester.num_params(features, rank, rank if reflections is None else reflections)
    return posterior(
        features,
        context_features,
        [
            Inverse(Sylvester(features, rank, reflections, _linear(numbers, context_features)))
            for _ in range(layers)
        ],
    )


def iaf(features: int, context_features: int, layers: int = 2, hidden: Sequence[int] = (256,)) -> Flow:
    """Inverse autoregressive layers, the order of the columns reversed from one to the next.

    Args:
        features: L, numbers of a latent vector.
        context_features: numbers that the encoder gives.
        layers: how many.
        hidden: widths of each masked net.

    References: Kingma et al. 2016, "Improved variational inference with inverse autoregressive flow".

    Example:
        >>> import torch
        >>> iaf(3, 8).sample((), torch.zeros(5, 8)).shape
        torch.Size([5, 3])
    """
    family = Affine()
    parts: list[Bijection] = []
    for i in range(layers):
        net = MADE(features, family.num_params, hidden, context_features=context_features)
        parts += [Reverse(features)] if i else []
        parts.append(Inverse(Autoregressive(net, family)))
    return posterior(features, context_features, parts)


def _linear(numbers: int, context_features: int) -> MLP:
    return MLP(0, numbers, hidden=(), context_features=context_features)
