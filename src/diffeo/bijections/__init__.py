"""Bijections: invertible maps that know their log-determinant in both directions."""

from diffeo.bijections.autoregressive import Autoregressive
from diffeo.bijections.base import Bijection
from diffeo.bijections.chain import Chain, Inverse
from diffeo.bijections.channels import OnChannels, channel_mask, checkerboard
from diffeo.bijections.columns import OnColumns
from diffeo.bijections.continuous import Continuous, Diagnosis
from diffeo.bijections.contractive import Contractive
from diffeo.bijections.coupling import Coupling
from diffeo.bijections.dense import Dense
from diffeo.bijections.fixed import Exp, LeakyReLU, Logit, Probit, Sigmoid, Softplus, Tanh
from diffeo.bijections.identity import Identity
from diffeo.bijections.image_coupling import ImageCoupling
from diffeo.bijections.interleave import Interleave
from diffeo.bijections.linear import LU, Orthogonal, Permute, Reverse, Triangular
from diffeo.bijections.marginal import LogTails, Marginal
from diffeo.bijections.multiscale import Multiscale
from diffeo.bijections.normalize import ActNorm, Standardize
from diffeo.bijections.planar import Planar, Sylvester
from diffeo.bijections.pointwise import Pointwise
from diffeo.bijections.radial import Radial
from diffeo.bijections.residual import AdditiveResidual
from diffeo.bijections.reversible import Reversible
from diffeo.bijections.squeeze import Haar, Squeeze
from diffeo.bijections.token_samplers import Jacobi, Solution, Stepwise, TokenSampler, Uncached
from diffeo.bijections.tokens import AutoregressiveTokens, Tokens
from diffeo.bijections.whiten import Whiten
from diffeo.functional.log_dets import ExactLogDet, LogDet, RouletteLogDet, SeriesLogDet
from diffeo.functional.solvers import Adaptive, Adjoint, Direct, FixedSteps, Gradient, Solver
from diffeo.functional.traces import ExactTrace, Hutchinson, Trace

__all__ = [
    "SeriesLogDet",
    "RouletteLogDet",
    "LogDet",
    "ExactLogDet",
    "Adaptive",
    "Adjoint",
    "Continuous",
    "Diagnosis",
    "Direct",
    "ExactTrace",
    "FixedSteps",
    "Gradient",
    "Hutchinson",
    "Solver",
    "Trace",
    "Jacobi",
    "LU",
    "ActNorm",
    "AdditiveResidual",
    "Autoregressive",
    "AutoregressiveTokens",
    "Bijection",
    "Chain",
    "Contractive",
    "Coupling",
    "Dense",
    "Exp",
    "Haar",
    "ImageCoupling",
    "Identity",
    "Interleave",
    "Inverse",
    "LeakyReLU",
    "LogTails",
    "Logit",
    "Marginal",
    "Multiscale",
    "OnChannels",
    "OnColumns",
    "Orthogonal",
    "Permute",
    "Planar",
    "Pointwise",
    "Probit",
    "Radial",
    "Reverse",
    "Reversible",
    "Sigmoid",
    "Softplus",
    "Solution",
    "Squeeze",
    "Standardize",
    "Stepwise",
    "Sylvester",
    "Tanh",
    "TokenSampler",
    "Tokens",
    "Triangular",
    "Uncached",
    "Whiten",
    "channel_mask",
    "checkerboard",
]
