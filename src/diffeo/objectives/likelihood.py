"""Maximum likelihood, plain and with penalties on the path."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.functional.path_penalties import PathPenalties, collecting
from diffeo.objectives.base import Batch, weighted_mean


@dataclass(frozen=True)
class Likelihood:
    """Maximum likelihood: ``-sum_i w_i log p(x_i | c_i) / sum_i w_i``, in nats a row.

    Example:
        >>> import torch, diffeo
        >>> flow = diffeo.presets.MAF(features=2).build()
        >>> batch = Batch(torch.zeros(4, 2), None, None, torch.arange(4))
        >>> round(Likelihood()(flow, batch).item(), 3)
        1.838
    """

    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        return weighted_mean(-flow(batch.x, batch.context), batch.weights)


@dataclass(frozen=True)
class RegularizedLikelihood:
    """Maximum likelihood of continuous layers whose paths are easy to solve.

    In training it adds, for every ``Continuous`` layer of the flow and every row,
    ``kinetic int |v|^2 dt + jacobian int |dv/dx|_F^2 dt + error sum_steps |e|^2``: straight paths, smooth
    fields, and small errors e of the steps in value and log-det. Without the last a field soon learns the
    errors of few steps, where the likelihood it reports is not its own. In evaluation it is the plain
    likelihood.

    Args:
        kinetic: weight of the kinetic energy.
        jacobian: weight of the squared Frobenius norm; exact, or by the layer's probes.
        error: weight of the steps' squared errors, as the solver of training estimates them.

    References: Finlay, Jacobsen, Nurbekyan and Oberman 2020, "How to train your neural ODE", eqs. 7-9;
    Pal, Ma, Shah and Rackauckas 2021, "Opening the blackbox", for errors as penalties.

    Example:
        >>> import torch, diffeo
        >>> flow = diffeo.presets.FFJORD(features=2, hidden=8).build()
        >>> batch = Batch(torch.zeros(4, 2), None, None, torch.arange(4))
        >>> round(RegularizedLikelihood(kinetic=0.01)(flow, batch).item(), 3)
        1.838
    """

    kinetic: float = 0.01
    jacobian: float = 0.0
    error: float = 1.0

    def __post_init__(self) -> None:
        for name in ("kinetic", "jacobian", "error"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be a number from 0 up, not {getattr(self, name)}.")

    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        if not flow.training:
            return Likelihood()(flow, batch)
        with collecting(PathPenalties(self.kinetic, self.jacobian, self.error)) as penalties:
            loss = -flow(batch.x, batch.context)
        for cost in penalties.rows:
            loss = loss + cost.reshape(-1, len(loss)).mean(0)  # an encoding's draws come first
        return weighted_mean(loss, batch.weights)
