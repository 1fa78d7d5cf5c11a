"""Continuous presets: FFJORD, FlowMatching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from diffeo import objectives
from diffeo._fields import Layers, Scale, Size, Whole
from diffeo.bijections import Chain, Continuous, Standardize
from diffeo.bijections.base import Bijection
from diffeo.functional.solvers import FixedSteps
from diffeo.functional.traces import ExactTrace, Hutchinson
from diffeo.nets import Sine, VelocityMLP
from diffeo.objectives import Objective
from diffeo.presets.base import REACH, VectorPreset

EXACT = 16
"""Up to so many features training takes the exact trace."""


def _field(
    preset: FFJORD | FlowMatching, context: int, waves: int, frequencies: tuple[float, float]
) -> VelocityMLP:
    return VelocityMLP(
        preset.features,
        preset.features,
        (preset.hidden,) * preset.layers,
        context_features=2 * waves + context,
        activation=Sine,
        frequencies=frequencies,
        reach=REACH,
    )


@dataclass(frozen=True)
class FFJORD(VectorPreset):
    """A continuous flow by maximum likelihood: free-form fields, exact density.

    Departures from the paper: data are standardized first; training takes a few fixed steps of fourth
    order where the paper solves adaptively (evaluation holds a tolerance; ``error`` keeps a field from
    learning to look good at the steps of training alone); the gradient is that of the steps, not of the
    adjoint equation; the trace is exact for up to 16 features, else Hutchinson's with random signs;
    activations are sines, the first layer's starting at frequencies from one to thirty times the usual;
    it sees time as a cosine and a sine, and the context.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: hidden layers of the field.
        hidden: their width.
        steps: of the solver in training; evaluation takes as many as its tolerance needs.
        kinetic: weight of the paths' kinetic energy, as in RNODE.
        jacobian: weight of the field's squared Frobenius norm, as in RNODE.
        error: weight of the steps' squared errors.

    References: Grathwohl et al. 2019, "FFJORD: free-form continuous dynamics for scalable reversible
    generative models"; Finlay et al. 2020, "How to train your neural ODE".

    Example:
        >>> FFJORD(features=3).build().sample(4).shape
        torch.Size([4, 3])
    """

    learning_rate: ClassVar[float] = 5e-3
    layers: Layers = 2
    hidden: Size = 64
    steps: Annotated[int, Whole(1, 4096)] = 8
    kinetic: Scale = 0.0
    jacobian: Scale = 0.0
    error: Scale = 0.0

    def bijection(self, context_features: int) -> Bijection:
        net = _field(self, context_features, 1, (1.0, 30.0))
        trace = ExactTrace() if self.features <= EXACT else Hutchinson()
        return Chain([Standardize((self.features,)), Continuous(net, FixedSteps(self.steps), trace=trace)])

    def objective(self) -> Objective:
        return objectives.RegularizedLikelihood(self.kinetic, self.jacobian, self.error)


@dataclass(frozen=True)
class FlowMatching(VectorPreset):
    """A continuous flow by flow matching: trained by regression, without a solve.

    A step is one pass of the net, so that it trains fast at any D; the density, exact as FFJORD's, is not
    what it optimizes, and takes more steps to solve.

    Departures from the paper: data are standardized first; paths are straight lines with sigma_min = 0;
    data are at time 0 and noise at 1; more times are drawn near the data; the net is an MLP of sines, the
    first layer's starting at frequencies from two to twelve times the usual; it sees time as cosines and
    sines, and the context.

    Args:
        features: D, columns.
        context: what is conditioned on.
        layers: hidden layers of the field.
        hidden: their width.

    References: Lipman et al. 2023, "Flow matching for generative modeling".

    Example:
        >>> FlowMatching(features=3).build().sample(4).shape
        torch.Size([4, 3])
    """

    learning_rate: ClassVar[float] = 5e-3
    layers: Layers = 3
    hidden: Size = 64

    def bijection(self, context_features: int) -> Bijection:
        net = _field(self, context_features, 4, (2.0, 12.0))
        return Chain([Standardize((self.features,)), Continuous(net, waves=4)])

    def objective(self) -> Objective:
        return objectives.FlowMatching(power=2.0)
