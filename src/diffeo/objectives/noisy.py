"""Maximum likelihood of noisy data.

Noise is an objective, for it changes what is learned and not the flow. A forgotten class is an encoding
(``OneHotContext(drop=)``), which draws in training only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.objectives.base import Batch, weighted_mean


@dataclass(frozen=True)
class NoisyLikelihood:
    """Maximum likelihood of the data with Gaussian noise on them, ``v + sigma eps``.

    Makes flows of images that sample well: the noise fills the space between the few numbers that pixels
    take, so that no capacity goes into them. ``diffeo.latents`` takes the noise out of samples again. v is
    what the encoding, if any, gives: for ``Dequantization`` pixels between -1/2 and 1/2. The loss is nats
    per noisy point, in v's units. It does not bound the likelihood of the data themselves, and larger sigmas
    give smaller densities: compare losses of one sigma only.

    In evaluation the noise is drawn from a fixed seed: the same batch gets the same loss.

    Args:
        sigma: standard deviation of the noise in v's units, above 0. The paper's 0.05 on pixels between -1
            and 1 is 0.025 here.

    Raises:
        ConfigError: for a sigma that is not positive and finite.

    References: Zhai et al. 2025, "Normalizing flows are capable generative models" (TarFlow), section 3.2.

    Example:
        >>> import torch, diffeo
        >>> flow = diffeo.presets.MAF(features=2).build().eval()
        >>> batch = Batch(torch.zeros(4000, 2), None, None, torch.arange(4000))
        >>> 1.838 < NoisyLikelihood(0.1)(flow, batch).item() < 1.858  # log 2 pi + sigma^2
        True
    """

    sigma: float

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise ConfigError(f"sigma must be finite and above 0, not {self.sigma}.")

    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        if flow.encoding is not None and any(p.requires_grad for p in flow.encoding.parameters()):
            raise ConfigError(
                "noise that is learned belongs to the likelihood, which NoisyLikelihood does not train; "
                "use an encoding with uniform noise."
            )
        v = batch.x if flow.encoding is None else flow.encoding.encode(batch.x)[0][0]
        generator = None if flow.training else Generator(v.device).manual_seed(0)
        noise = torch.randn(v.shape, generator=generator, dtype=v.dtype, device=v.device)
        log_prob = flow.without_encoding().log_prob(v + self.sigma * noise, batch.context)
        return weighted_mean(-log_prob, batch.weights)
