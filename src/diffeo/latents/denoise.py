"""Denoising: the noise that a flow was trained with, taken out of samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from diffeo.errors import ConfigError
from diffeo.flow import Flow

__all__ = ["denoise", "sample_denoised"]


def denoise(flow: Flow, v: Tensor, sigma: float, context: Tensor | None = None) -> Tensor:
    """The mean of the clean data, given noisy ones: ``v + sigma^2 d log p(v | c) / dv`` (Tweedie's formula).

    Exact where p is the density of ``clean + sigma eps``; a flow trained by ``NoisyLikelihood(sigma)`` is an
    estimate of it. Cost: one ``log_prob`` and its gradient. Without gradients.

    Args:
        flow: of the vectors themselves, in evaluation mode; of one with an encoding give
            ``flow.without_encoding()``.
        v: noisy points, ``(*batch, *event_shape)``.
        sigma: the noise's standard deviation, above 0.
        context: as ``log_prob`` takes it.

    Raises:
        ConfigError: for a flow with an encoding, whose data have no gradients, or a sigma of 0.

    References: Zhai et al. 2025, "Normalizing flows are capable generative models" (TarFlow), eq. 8; Efron
    2011, "Tweedie's formula and selection bias".

    Example:
        >>> import torch, diffeo
        >>> flow = diffeo.presets.MAF(features=2).build().eval()  # untrained: standard normal
        >>> denoise(flow, torch.tensor([1.0, -2.0]), 0.5)
        tensor([ 0.7500, -1.5000])
    """
    if flow.encoding is not None:
        raise ConfigError(
            "this flow's data go through an encoding, behind which there is no gradient; pass "
            "flow.without_encoding() and vectors, or use sample_denoised."
        )
    if not 0 < sigma < float("inf"):
        raise ConfigError(f"sigma must be finite and above 0, not {sigma}.")
    with torch.enable_grad():
        v = v.detach().requires_grad_()
        (score,) = torch.autograd.grad(flow.log_prob(v, context).sum(), v)
    return v.detach() + sigma**2 * score


def sample_denoised(
    flow: Flow,
    sigma: float,
    sample_shape: int | Sequence[int] = (),
    context: Tensor | None = None,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """``flow.sample``, with the noise of ``NoisyLikelihood(sigma)`` taken out before decoding.

    Args:
        flow: in evaluation mode.
        sigma: the noise's standard deviation, in the units of what the encoding gives.
        sample_shape: as ``Flow.sample`` takes it.
        context: likewise.
        generator: likewise.

    Shape: ``(*sample, *batch, *event)``.

    Example:
        >>> import diffeo
        >>> flow = diffeo.presets.MAF(features=2).build().eval()
        >>> sample_denoised(flow, 0.1, 5).shape
        torch.Size([5, 2])
    """
    inner = flow.without_encoding()
    v = inner.sample(sample_shape, context, generator=generator)
    v = denoise(inner, v, sigma, context)
    return v if flow.encoding is None else flow.encoding.decode(v)
