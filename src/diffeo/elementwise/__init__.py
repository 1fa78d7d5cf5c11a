"""Families of increasing scalar maps."""

from diffeo.elementwise.additive import Additive
from diffeo.elementwise.affine import Affine
from diffeo.elementwise.base import Elementwise
from diffeo.elementwise.linear_spline import PiecewiseLinear
from diffeo.elementwise.mixed import Mixed
from diffeo.elementwise.quadratic_spline import PiecewiseQuadratic
from diffeo.elementwise.rational_quadratic import (
    CircularRationalQuadratic,
    IntervalRationalQuadratic,
    RationalQuadratic,
)

__all__ = [
    "Additive",
    "Affine",
    "CircularRationalQuadratic",
    "Elementwise",
    "IntervalRationalQuadratic",
    "Mixed",
    "PiecewiseLinear",
    "PiecewiseQuadratic",
    "RationalQuadratic",
]
