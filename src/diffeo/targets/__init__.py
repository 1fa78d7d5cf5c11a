"""Densities to fit to: functions, constrained parameters, Stan models, and the standard test energies."""

from diffeo.targets.base import Parameters, Sampled, Target, named
from diffeo.targets.constrained import Constrained
from diffeo.targets.energies import Banana, Energy, Funnel, GaussianMixture40, ManyWell
from diffeo.targets.evaluator import Evaluator
from diffeo.targets.functions import FromNumPy, FromTorch, each_row
from diffeo.targets.lattice import Phi4
from diffeo.targets.stan import Stan
from diffeo.targets.supports import Above, Below, Bounded, Circular, Positive, Real, Simplex, Support
from diffeo.targets.toys import TOYS, Toy
from diffeo.targets.waves import U1, U2, U3, U4

__all__ = [
    "Target",
    "Parameters",
    "Sampled",
    "named",
    "Evaluator",
    "FromTorch",
    "FromNumPy",
    "each_row",
    "Constrained",
    "Support",
    "Real",
    "Positive",
    "Above",
    "Below",
    "Bounded",
    "Circular",
    "Simplex",
    "Energy",
    "U1",
    "U2",
    "U3",
    "U4",
    "GaussianMixture40",
    "ManyWell",
    "Funnel",
    "Banana",
    "Phi4",
    "TOYS",
    "Toy",
    "Stan",
]
