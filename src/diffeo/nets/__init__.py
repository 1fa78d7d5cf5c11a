"""Nets: parameters from features and context. They know nothing of flows."""

from diffeo.nets.angles import OnAngles
from diffeo.nets.masked import MADE, FullPasses, MaskedLinear, ResMADE
from diffeo.nets.mlp import MLP, ResidualMLP

__all__ = ["MADE", "MLP", "FullPasses", "MaskedLinear", "OnAngles", "ResMADE", "ResidualMLP"]
