"""Draws of a density by way of a flow: importance weights, Markov chains, annealing, diagnostics."""

from diffeo.inference.annealing import Annealing
from diffeo.inference.arviz import datatree, save_netcdf
from diffeo.inference.chains import Chains
from diffeo.inference.coverage import Coverage, coverage
from diffeo.inference.importance import Importance, importance
from diffeo.inference.metropolis import independence_metropolis
from diffeo.inference.sources import Annealed, Population, Source
from diffeo.inference.transitions import Hamiltonian, Points, RandomWalk, Transition
from diffeo.inference.transport import neural_transport

__all__ = [
    "Importance",
    "importance",
    "Coverage",
    "coverage",
    "Chains",
    "independence_metropolis",
    "neural_transport",
    "Annealing",
    "Source",
    "Annealed",
    "Population",
    "Transition",
    "Hamiltonian",
    "RandomWalk",
    "Points",
    "datatree",
    "save_netcdf",
]
