"""Objectives of data: what the one training loop minimizes."""

from diffeo.objectives.augment import Flipped
from diffeo.objectives.base import Batch, Objective
from diffeo.objectives.evidence import ELBO
from diffeo.objectives.likelihood import Likelihood, RegularizedLikelihood
from diffeo.objectives.matching import FlowMatching, Independent, OptimalTransport, Pairing
from diffeo.objectives.noisy import NoisyLikelihood
from diffeo.objectives.subsets import AnySubset

__all__ = [
    "ELBO",
    "AnySubset",
    "Batch",
    "Flipped",
    "FlowMatching",
    "Independent",
    "Likelihood",
    "NoisyLikelihood",
    "Objective",
    "OptimalTransport",
    "Pairing",
    "RegularizedLikelihood",
]
