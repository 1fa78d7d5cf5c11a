"""Encodings: the doors for data that are not real vectors yet."""

from diffeo.encodings.base import Encoding
from diffeo.encodings.columns import Column, Columns
from diffeo.encodings.context import ContextEncoding, OneHotContext, StandardizedContext

KINDS: dict[str, type[Encoding]] = {"Columns": Columns}
"""Encodings that a model file can hold, by class name."""

__all__ = [
    "KINDS",
    "Column",
    "Columns",
    "ContextEncoding",
    "Encoding",
    "OneHotContext",
    "StandardizedContext",
]
