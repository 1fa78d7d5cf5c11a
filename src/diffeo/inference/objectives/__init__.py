"""Objectives of targets: what is minimized where a density can only be evaluated."""

from diffeo.inference.objectives.divergences import AlphaDivergence, ChiSquare, ImportanceBound
from diffeo.inference.objectives.replay import ReplayLikelihood
from diffeo.inference.objectives.reverse_kl import ReverseKL, SymmetricKL

__all__ = [
    "AlphaDivergence",
    "ChiSquare",
    "ImportanceBound",
    "ReplayLikelihood",
    "ReverseKL",
    "SymmetricKL",
]
