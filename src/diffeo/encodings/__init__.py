"""Encodings: table rows, images and contexts as the real vectors that a flow needs."""

from diffeo.encodings.base import Encoding
from diffeo.encodings.cell_kinds import CellKind, Levels, Numbers
from diffeo.encodings.cells import Cells, Decided
from diffeo.encodings.columns import Column, Columns
from diffeo.encodings.context import ContextEncoding, ImageContext, OneHotContext, StandardizedContext
from diffeo.encodings.dequantization import Dequantization, bits_per_dim
from diffeo.encodings.noise import Noise, UniformNoise, VariationalNoise

ENCODINGS: dict[str, type[Encoding]] = {"Cells": Cells, "Columns": Columns, "Dequantization": Dequantization}
"""Encodings that a model file can hold, by class name."""

__all__ = [
    "ENCODINGS",
    "CellKind",
    "Cells",
    "Column",
    "Columns",
    "ContextEncoding",
    "Decided",
    "Dequantization",
    "Encoding",
    "Levels",
    "ImageContext",
    "Noise",
    "Numbers",
    "OneHotContext",
    "StandardizedContext",
    "UniformNoise",
    "VariationalNoise",
    "bits_per_dim",
]
