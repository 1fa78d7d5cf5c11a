"""From a log-density to a flow: its fit and objectives, importance weights, Markov chains, diagnostics.

Fits take a ``seed``, as every fit does. What draws takes a ``generator``, as ``Flow.sample`` does; without
one the numbers are torch's own.
"""

from diffeo.inference.annealing import Annealing
from diffeo.inference.arviz import save_netcdf, to_datatree
from diffeo.inference.chains import Chains
from diffeo.inference.counting import CountsEvaluations
from diffeo.inference.fit import TargetReport, fit_target
from diffeo.inference.forward import ForwardCheck, forward_check
from diffeo.inference.importance import Importance, importance
from diffeo.inference.metropolis import independence_metropolis
from diffeo.inference.objectives import (
    AlphaDivergence,
    ChiSquare,
    ImportanceBound,
    ReplayLikelihood,
    ReverseKL,
    SymmetricKL,
)
from diffeo.inference.parameters import columns
from diffeo.inference.sources import Annealed, Population, Source
from diffeo.inference.transitions import ChainState, Hamiltonian, RandomWalk, Transition
from diffeo.inference.transport import neural_transport

__all__ = [
    "fit_target",
    "TargetReport",
    "AlphaDivergence",
    "ChiSquare",
    "ImportanceBound",
    "ReplayLikelihood",
    "ReverseKL",
    "SymmetricKL",
    "Importance",
    "importance",
    "ForwardCheck",
    "forward_check",
    "Chains",
    "independence_metropolis",
    "neural_transport",
    "Annealing",
    "CountsEvaluations",
    "Source",
    "Annealed",
    "Population",
    "Transition",
    "Hamiltonian",
    "RandomWalk",
    "ChainState",
    "columns",
    "to_datatree",
    "save_netcdf",
]
