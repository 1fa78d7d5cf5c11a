"""New images drawn from a flow fitted to images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffeo.errors import ConfigError
from diffeo.flow import Flow, in_parts
from diffeo.functional.seeding import generator
from diffeo.images.model import class_names, contexts_for, image_encoding
from diffeo.latents import sample_denoised, tempered
from diffeo.objectives import NoisyLikelihood
from diffeo.presets import Preset


def sample_images(
    flow: Flow,
    n: int,
    *,
    given: Any = None,
    temperature: float = 1.0,
    seed: int | None = None,
    batch_size: int = 64,
) -> Tensor:
    """Draw ``n`` images from a flow, in evaluation mode.

    Where the preset trained on noisy images (``TarFlow(noise=...)``) the noise is taken out.

    Args:
        flow: fitted to images.
        n: images, at least 1.
        given: a class by name or number, classes, or contexts as ``contexts_for`` takes them. By default each
            image of a flow with classes is of the next class.
        temperature: below 1, images are cleaner and less varied; see ``latents.tempered``.
        seed: makes the draw repeatable; None draws anew each time.
        batch_size: images drawn at a time.

    Shape:
        Answer: uint8, ``(n, C, H, W)``.

    Raises:
        ConfigError: for a flow of something else, or a temperature that its base cannot have.
        ContextError: for a class that there is not, and a context that is missing or not wanted.

    Example:
        >>> import diffeo
        >>> flow, _ = diffeo.fit_images(torch.randint(0, 256, (40, 1, 4, 4)).byte(), max_steps=1)
        >>> sample_images(flow, 3, temperature=0.7).shape
        torch.Size([3, 1, 4, 4])
    """
    image_encoding(flow)
    if n < 1:
        raise ConfigError(f"n must be at least 1, got {n}.")
    if given is None and (classes := len(class_names(flow))):
        given = torch.arange(n) % classes
    context = contexts_for(flow, given, n)
    source = flow if temperature == 1 else tempered(flow, temperature)
    sigma = _noise(flow)
    draws = generator(seed, next((p.device for p in flow.parameters()), "cpu"))

    def draw(index: Tensor, some: Tensor | None) -> Tensor:
        shape = (len(index),) if some is None else ()
        if sigma > 0:
            return sample_denoised(source, sigma, shape, some, generator=draws)
        return source.sample(shape, some, generator=draws)

    return in_parts(source, draw, torch.arange(n), context, batch_size=batch_size)


def _noise(flow: Flow) -> float:
    """Sigma of the noise that the flow's preset trained with, in units of the encoded pixels."""
    objective = flow.preset.objective() if isinstance(flow.preset, Preset) else None
    return objective.sigma if isinstance(objective, NoisyLikelihood) else 0.0
