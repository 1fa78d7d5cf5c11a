"""Families of increasing scalar maps."""

from diffeo.elementwise.additive import Additive
from diffeo.elementwise.affine import Affine
from diffeo.elementwise.base import Elementwise
from diffeo.elementwise.bernstein import Bernstein
from diffeo.elementwise.linear_spline import PiecewiseLinear
from diffeo.elementwise.location_scale import LocationScale
from diffeo.elementwise.mixed import Mixed
from diffeo.elementwise.mixture_cdf import MixtureCDF
from diffeo.elementwise.monotonic_net import MonotonicNet
from diffeo.elementwise.quadratic_spline import PiecewiseQuadratic
from diffeo.elementwise.rational_quadratic import (
    CircularRationalQuadratic,
    IntervalRationalQuadratic,
    RationalQuadratic,
)
from diffeo.elementwise.sigmoidal import DeepSigmoid
from diffeo.elementwise.sum_of_squares import SumOfSquares

__all__ = [
    "Additive",
    "Affine",
    "Bernstein",
    "CircularRationalQuadratic",
    "DeepSigmoid",
    "Elementwise",
    "IntervalRationalQuadratic",
    "LocationScale",
    "Mixed",
    "MixtureCDF",
    "MonotonicNet",
    "PiecewiseLinear",
    "PiecewiseQuadratic",
    "RationalQuadratic",
    "SumOfSquares",
]
