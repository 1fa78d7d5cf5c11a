"""Uses of a trained flow's latent space: interpolation, attributes, guidance, denoising."""

from diffeo.latents.denoise import denoise, sample_denoised
from diffeo.latents.edits import (
    Linear,
    Path,
    Slerp,
    attribute_vector,
    interpolate,
    reconstruct,
    shift,
    tempered,
)
from diffeo.latents.guidance import Guided, guided

__all__ = [
    "Guided",
    "Linear",
    "Path",
    "Slerp",
    "attribute_vector",
    "denoise",
    "guided",
    "interpolate",
    "reconstruct",
    "sample_denoised",
    "shift",
    "tempered",
]
