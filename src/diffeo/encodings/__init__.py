"""Encodings: table rows, images and contexts as the real vectors that a flow needs."""

from diffeo.encodings.base import Encoding
from diffeo.encodings.columns import Column, Columns
from diffeo.encodings.context import ContextEncoding, ImageContext, OneHotContext, StandardizedContext
from diffeo.encodings.dequantization import Dequantization, bits_per_dim
from diffeo.encodings.noise import Noise, UniformNoise, VariationalNoise

ENCODINGS: dict[str, type[Encoding]] = {"Columns": Columns, "Dequantization": Dequantization}
"""Encodings that a model file can hold, by class name."""

__all__ = [
    "ENCODINGS",
    "Column",
    "Columns",
    "ContextEncoding",
    "Dequantization",
    "Encoding",
    "ImageContext",
    "Noise",
    "OneHotContext",
    "StandardizedContext",
    "UniformNoise",
    "VariationalNoise",
    "bits_per_dim",
]
