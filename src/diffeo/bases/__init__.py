"""Base densities: what a flow carries onto the data."""

from diffeo.bases.base import Base
from diffeo.bases.cells import CellColumn, CellDensity
from diffeo.bases.mixture import MixtureOfNormals
from diffeo.bases.normal import ContextNormal, DiagonalNormal, LearnedNormal, Normal, Tempered
from diffeo.bases.student_t import StudentT
from diffeo.bases.uniform import Uniform

__all__ = [
    "Base",
    "CellColumn",
    "CellDensity",
    "ContextNormal",
    "DiagonalNormal",
    "LearnedNormal",
    "MixtureOfNormals",
    "Normal",
    "StudentT",
    "Tempered",
    "Uniform",
]
