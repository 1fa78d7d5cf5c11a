"""From a log-density to a flow: its fit and objectives, importance weights, Markov chains, diagnostics."""

from diffeo.inference.annealing import Annealing
from diffeo.inference.arviz import datatree, save_netcdf
from diffeo.inference.chains import Chains
from diffeo.inference.columns import columns
from diffeo.inference.coverage import Coverage, coverage
from diffeo.inference.fit import TargetReport, fit_target
from diffeo.inference.importance import Importance, importance
from diffeo.inference.metropolis import independence_metropolis
from diffeo.inference.objectives import (
    AlphaDivergence,
    ChiSquare,
    ImportanceBound,
    OfTarget,
    ReplayLikelihood,
    ReverseKL,
    SymmetricKL,
)
from diffeo.inference.sources import Annealed, Population, Source
from diffeo.inference.transitions import Hamiltonian, Points, RandomWalk, Transition
from diffeo.inference.transport import neural_transport

__all__ = [
    "fit_target",
    "TargetReport",
    "AlphaDivergence",
    "ChiSquare",
    "ImportanceBound",
    "OfTarget",
    "ReplayLikelihood",
    "ReverseKL",
    "SymmetricKL",
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
    "columns",
    "datatree",
    "save_netcdf",
]
