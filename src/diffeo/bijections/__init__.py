"""Bijections: invertible maps that know their log-determinant in both directions."""

from diffeo.bijections.autoregressive import Autoregressive
from diffeo.bijections.base import Bijection
from diffeo.bijections.chain import Chain, Inverse
from diffeo.bijections.columns import OnColumns
from diffeo.bijections.continuous import Continuous, Diagnosis
from diffeo.bijections.contractive import Contractive
from diffeo.bijections.coupling import Coupling
from diffeo.bijections.fixed import Exp, LeakyReLU, Logit, Probit, Sigmoid, Softplus, Tanh
from diffeo.bijections.linear import LU, Orthogonal, Permute, Reverse, Triangular
from diffeo.bijections.marginal import LogTails, Marginal
from diffeo.bijections.normalize import ActNorm, Standardize
from diffeo.bijections.planar import Planar, Sylvester
from diffeo.bijections.pointwise import Pointwise
from diffeo.bijections.radial import Radial
from diffeo.bijections.residual import AdditiveResidual
from diffeo.bijections.reversible import Reversible
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
    "LU",
    "ActNorm",
    "AdditiveResidual",
    "Autoregressive",
    "Bijection",
    "Chain",
    "Contractive",
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
    "Planar",
    "Pointwise",
    "Probit",
    "Radial",
    "Reverse",
    "Reversible",
    "Sigmoid",
    "Softplus",
    "Standardize",
    "Sylvester",
    "Tanh",
    "Triangular",
    "Whiten",
]
