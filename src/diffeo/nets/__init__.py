"""Nets: parameters from features and context. They know nothing of flows."""

from diffeo.nets.angles import OnAngles
from diffeo.nets.lipschitz import LipschitzConvNet, LipschitzMLP, LipschitzNet
from diffeo.nets.masked import MADE, FullPasses, MaskedLinear, ResMADE
from diffeo.nets.mlp import MLP, ResidualMLP
from diffeo.nets.smooth import ELU, Activation, LipSwish, SiLU, Sine, SmoothMLP, Tanh
from diffeo.nets.velocity import VelocityMLP

__all__ = [
    "ELU",
    "MADE",
    "MLP",
    "Activation",
    "FullPasses",
    "LipSwish",
    "LipschitzConvNet",
    "LipschitzMLP",
    "LipschitzNet",
    "MaskedLinear",
    "OnAngles",
    "ResMADE",
    "ResidualMLP",
    "SiLU",
    "Sine",
    "SmoothMLP",
    "Tanh",
    "VelocityMLP",
]
