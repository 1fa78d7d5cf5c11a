"""Objectives: what the one training loop minimizes."""

from diffeo.objectives.base import Batch, Objective
from diffeo.objectives.likelihood import Likelihood, RegularizedLikelihood
from diffeo.objectives.matching import FlowMatching, Independent, OptimalTransport, Pairing

__all__ = [
    "Batch",
    "FlowMatching",
    "Independent",
    "Likelihood",
    "Objective",
    "OptimalTransport",
    "Pairing",
    "RegularizedLikelihood",
]
