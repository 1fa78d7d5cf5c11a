"""Bijections: invertible maps that know their log-determinant in both directions."""

from diffeo.bijections.autoregressive import Autoregressive
from diffeo.bijections.base import Bijection
from diffeo.bijections.chain import Chain, Inverse
from diffeo.bijections.columns import OnColumns
from diffeo.bijections.coupling import Coupling
from diffeo.bijections.fixed import Exp, LeakyReLU, Logit, Probit, Sigmoid, Softplus, Tanh
from diffeo.bijections.linear import LU, Orthogonal, Permute, Reverse, Triangular
from diffeo.bijections.marginal import LogTails, Marginal
from diffeo.bijections.normalize import ActNorm, Standardize
from diffeo.bijections.pointwise import Pointwise
from diffeo.bijections.reversible import Reversible
from diffeo.bijections.whiten import Whiten

__all__ = [
    "LU",
    "ActNorm",
    "Autoregressive",
    "Bijection",
    "Chain",
    "Coupling",
    "Exp",
    "Inverse",
    "LeakyReLU",
    "LogTails",
    "Logit",
    "Marginal",
    "OnColumns",
    "Orthogonal",
    "Permute",
    "Pointwise",
    "Probit",
    "Reverse",
    "Reversible",
    "Sigmoid",
    "Softplus",
    "Standardize",
    "Tanh",
    "Triangular",
    "Whiten",
]
