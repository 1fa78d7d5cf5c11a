"""Objectives: what the one training loop minimizes."""

from diffeo.objectives.augment import Flipped
from diffeo.objectives.base import Batch, Objective
from diffeo.objectives.divergences import AlphaDivergence, ChiSquare, ImportanceBound
from diffeo.objectives.evidence import ELBO
from diffeo.objectives.likelihood import Likelihood, RegularizedLikelihood
from diffeo.objectives.matching import FlowMatching, Independent, OptimalTransport, Pairing
from diffeo.objectives.mirror import BothKL, LayerByLayer
from diffeo.objectives.noisy import NoisyLikelihood
from diffeo.objectives.replay import ReplayLikelihood
from diffeo.objectives.reverse_kl import ReverseKL, SymmetricKL

__all__ = [
    "ELBO",
    "AlphaDivergence",
    "Batch",
    "BothKL",
    "ChiSquare",
    "Flipped",
    "FlowMatching",
    "ImportanceBound",
    "Independent",
    "LayerByLayer",
    "Likelihood",
    "NoisyLikelihood",
    "Objective",
    "OptimalTransport",
    "Pairing",
    "RegularizedLikelihood",
    "ReplayLikelihood",
    "ReverseKL",
    "SymmetricKL",
]
