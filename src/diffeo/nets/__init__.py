"""Nets that compute a layer's parameters from features and context; they know nothing of flows.

Output layers start at zero in every net. So a flow built by hand starts neutral too, not only a preset.
"""

from diffeo.nets.angles import OnAngles
from diffeo.nets.bounded import Bounded
from diffeo.nets.conv import ConvNet, ResidualConvNet
from diffeo.nets.lipschitz import LipschitzConvNet, LipschitzMLP, LipschitzNet
from diffeo.nets.masked import MADE, FullPasses, MaskedLinear, ResMADE
from diffeo.nets.masked_conv import MaskedConvNet
from diffeo.nets.mlp import MLP, ResidualMLP
from diffeo.nets.smooth import ELU, Activation, LipSwish, SiLU, Sine, SmoothMLP, Tanh
from diffeo.nets.subsets import SubsetNet
from diffeo.nets.transformer import CausalTransformer, VisionTransformer
from diffeo.nets.velocity import VelocityMLP

__all__ = [
    "ELU",
    "MADE",
    "MLP",
    "Activation",
    "Bounded",
    "CausalTransformer",
    "ConvNet",
    "FullPasses",
    "LipSwish",
    "LipschitzConvNet",
    "LipschitzMLP",
    "LipschitzNet",
    "MaskedConvNet",
    "MaskedLinear",
    "OnAngles",
    "ResMADE",
    "ResidualConvNet",
    "ResidualMLP",
    "SiLU",
    "Sine",
    "SmoothMLP",
    "SubsetNet",
    "Tanh",
    "VelocityMLP",
    "VisionTransformer",
]
