"""Continuous flows: data carried to latent along a vector field."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo.bijections.base import Bijection
from diffeo.contracts import Net, Traits
from diffeo.errors import ConfigError, ShapeError
from diffeo.functional.far import within
from diffeo.functional.fields import transport
from diffeo.functional.path_penalties import PathPenalties, active
from diffeo.functional.programs import Program, applies
from diffeo.functional.solvers import STAGES, Adaptive, Dynamics, FixedSteps, Solver
from diffeo.functional.traces import ExactTrace, Trace, with_norm, with_trace
from diffeo.nets.smooth import SmoothLayers


@dataclass(frozen=True)
class Diagnosis:
    """How well a continuous layer is solved, on some rows.

    Args:
        evaluations: of the field, for a row, on average.
        value_error: largest error of the value, relative to ``1 + |z|``.
        log_det_error: largest error of the log-det, in nats.
        round_trip_error: largest distance of ``inverse(forward(x))`` from x, relative to ``1 + |x|``.
    """

    evaluations: float
    value_error: float
    log_det_error: float
    round_trip_error: float


class Continuous(Bijection):
    """``dx/dt = v(x, t, context)`` from data at t = 0 to latent at t = 1.

    ``log_det = int_0^1 tr(dv/dx) dt`` along the path (the instantaneous change of variables). The net may
    be any: the flow is invertible as long as v is Lipschitz. Nets with bounded activations move far points
    by a bounded amount and are the safest; with linear growth a field may stretch the tails a lot.

    Time enters through the net's context: first ``cos(k pi t)`` for k = 1 .. ``waves``, then the sines, then
    the layer's own context. Training takes ``solver``, with few steps; evaluation takes ``evaluation``,
    which holds its tolerance or raises. A field may learn to look good at the steps of training alone:
    ``diagnose`` tells, and ``objectives.RegularizedLikelihood`` prevents it.

    Cost: four evaluations of the net a step, each with its trace.

    Args:
        net: ``in_features = out_features = D``, ``context_features = 2 waves +`` the context's.
        solver: of training.
        evaluation: of evaluation.
        trace: of the Jacobian; see ``ExactTrace`` and ``Hutchinson``.
        waves: pairs of time features.

    Shape: ``(*batch, D)``, context ``(*batch, context_features)``.

    Raises:
        NotConverged: in evaluation, for rows that the solver cannot bring to its tolerance.
        ConfigError: without torchdiffeq, which is in the extra ``diffeo[continuous]``.

    References: Chen, Rubanova, Bettencourt and Duvenaud 2018, "Neural ordinary differential equations",
    eq. 8; Grathwohl et al. 2019, "FFJORD", eqs. 2-4.

    Example:
        >>> import torch
        >>> from diffeo.nets import VelocityMLP
        >>> z, log_det = Continuous(VelocityMLP(2, 2, (8, 8), context_features=2))(torch.ones(3, 2))
        >>> z[0].tolist(), log_det.tolist()  # neutral at the start
        ([1.0, 1.0], [0.0, 0.0, 0.0])
    """

    frequencies: Tensor
    probes: Tensor | None

    def __init__(
        self,
        net: Net,
        solver: Solver = FixedSteps(),  # noqa: B008 (frozen)
        evaluation: Adaptive = Adaptive(),  # noqa: B008 (frozen)
        trace: Trace = ExactTrace(),  # noqa: B008 (frozen)
        *,
        waves: int = 1,
    ):
        own = net.context_features - 2 * waves
        if net.in_features != net.out_features:
            raise ShapeError(
                f"a field gives as many numbers as it sees, but the net takes {net.in_features} and gives "
                f"{net.out_features}; give it in_features = out_features."
            )
        if waves < 1 or own < 0:
            raise ConfigError(
                f"the net's context is {2 * waves} time features (2 waves, waves={waves}) and then the "
                f"context's, but it has context_features={net.context_features}; build it with at least "
                f"{2 * max(waves, 1)}."
            )
        features = net.in_features
        super().__init__((features,), context_shape=(own,) if own else None)
        self.net, self.solver, self.evaluation, self.trace = net, solver, evaluation, trace
        self.register_buffer("frequencies", math.pi * torch.arange(1.0, waves + 1), persistent=False)
        self.register_buffer("probes", trace.fixed_probes(features))
        passes = STAGES * 3 * evaluation.first
        self.traits = Traits(
            closed_form=False,
            exact_log_det=trace.exact,
            capturable=False,
            tolerance=2 * evaluation.tolerance,  # of two solves that took other steps
            forward_passes=passes,
            inverse_passes=passes,
        )

    def extra_repr(self) -> str:
        return f"solver={self.solver}, evaluation={self.evaluation}, trace={self.trace}"

    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The field at points ``(rows, D)``, at one time, ``()``, or one each, ``(rows, 1)``."""
        return self.net(x, self.with_time(t, x, context))

    def with_time(self, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
        """What the net sees besides x: the time features, then the context."""
        angles = t * self.frequencies
        features = torch.cat([angles.cos(), angles.sin()], -1).expand(len(x), -1)
        return features if context is None else torch.cat([features, context], -1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._carried(x, context, 0.0, 1.0)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._carried(y, context, 1.0, 0.0)

    def push(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self._moved(x, context, 0.0, 1.0)

    def pull(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self._moved(y, context, 1.0, 0.0)

    def trajectory(
        self, x: Tensor, times: Tensor, context: Tensor | None = None, *, start: float = 0.0
    ) -> Tensor:
        """Where points are at each of ``times``: ``(times, *batch, D)``.

        Args:
            x: the points at ``start``: data for 0, latents for 1.
            times: each in [0, 1], in any order; sorted away from ``start`` costs least.
            context: one a point, where the layer takes one.
            start: the time of ``x``.
        """
        places, here = [], start
        for t in times.tolist():
            x = self._moved(x, context, here, t)
            here = t
            places.append(x)
        return torch.stack(places) if places else x.new_empty((0, *x.shape))

    @torch.no_grad()
    def diagnose(self, x: Tensor, context: Tensor | None = None, solver: Solver | None = None) -> Diagnosis:
        """Measure a solver on the rows ``x``, against float64 and a thirtieth of evaluation's tolerance.

        Args:
            x: rows, ``(rows, D)``.
            context: one a row, where the layer takes one.
            solver: which; by default that of evaluation.
        """
        rows, given = self._flat(x, context)
        solver, exact = solver or self.evaluation, self.evaluation.tightened()
        counted = _Field(self, rows, given, with_trace=True, probes=self.probes)
        found = solver.solve(counted, _with_zeros(rows, 1), 0.0, 1.0)
        evaluations = counted.evaluated[0] / max(1, len(rows))
        fine = copy.deepcopy(self).double()
        wide = rows.double(), None if given is None else given.double()
        wanted = exact.solve(
            _Field(fine, *wide, with_trace=True, probes=fine.probes), _with_zeros(wide[0], 1), 0.0, 1.0
        )
        z, log_det = found[:, :-1], found[:, -1]
        back = solver.solve(_Field(self, rows, given), z, 1.0, 0.0)
        return Diagnosis(
            evaluations,
            _largest((z - wanted[:, :-1]) / (1 + z.abs())),
            _largest(log_det - wanted[:, -1]),
            _largest((back - rows) / (1 + rows.abs())),
        )

    # -- inside -------------------------------------------------------------------------------

    def _flat(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.context_shape is None or context is None:
            return x.reshape(-1, x.shape[-1]), None
        return x.reshape(-1, x.shape[-1]), context.reshape(-1, context.shape[-1])

    def _moved(self, x: Tensor, context: Tensor | None, start: float, end: float) -> Tensor:
        if start == end:
            return x
        rows, given = self._flat(x, context)
        solver = self.solver if self.training else self.evaluation
        return solver.solve(_Field(self, rows, given), rows, start, end).reshape(x.shape)

    def _carried(self, x: Tensor, context: Tensor | None, start: float, end: float) -> tuple[Tensor, Tensor]:
        rows, given = self._flat(x, context)
        penalties = active()
        probes = self.trace.probes(rows) if self.training else self.probes
        field = _Field(self, rows, given, with_trace=True, probes=probes, penalties=penalties)
        state = _with_zeros(rows, field.columns - rows.shape[1])
        solver = self.solver if self.training else self.evaluation
        D, costs = rows.shape[1], None
        if penalties is not None and penalties.error:
            state, error = solver.solve_with_error(field, state, start, end, D + 1)
            costs = penalties.error * error
        else:
            state = solver.solve(field, state, start, end)
        if field.costly:  # the integral of a cost is positive, whichever way it was taken
            own = state[:, D + 1] * (1.0 if end > start else -1.0)
            costs = own if costs is None else costs + own
        if penalties is not None and costs is not None:
            penalties.rows.append(costs.reshape(x.shape[:-1]))
        return state[:, :D].reshape(x.shape), state[:, D].reshape(x.shape[:-1])


def _with_zeros(rows: Tensor, columns: int) -> Tensor:
    return torch.cat([rows, rows.new_zeros(len(rows), columns)], 1)


def _largest(error: Tensor) -> float:
    return float(error.abs().max()) if error.numel() else 0.0


class _Field(Dynamics):
    """The rates of a layer's rows: of x, then of log_det and of the costs, where these are asked for."""

    def __init__(
        self,
        layer: Continuous,
        x: Tensor,
        context: Tensor | None,
        *,
        with_trace: bool = False,
        probes: Tensor | None = None,
        penalties: PathPenalties | None = None,
        evaluated: list[int] | None = None,
    ):
        self.layer, self.x, self.context = layer, x, context
        self.with_trace, self.probes, self.penalties = with_trace, probes, penalties
        self.costly = penalties is not None and bool(penalties.kinetic or penalties.jacobian)
        self.columns = x.shape[1] + int(with_trace) + int(self.costly)
        self.evaluated = [0] if evaluated is None else evaluated

    def __call__(self, t: Tensor, state: Tensor) -> Tensor:
        state = (
            state if torch.is_grad_enabled() else state.detach()
        )  # its views would still ask for gradients
        x = state[:, : self.x.shape[1]]
        self.evaluated[0] += len(x)
        net, seen = self.layer.net, self.layer.with_time(t, x, self.context)
        if not self.with_trace:
            return net(x, seen)
        penalties, norm = self.penalties, None
        if penalties is not None and penalties.jacobian:
            v, tr, norm = with_norm(net, x, seen, self.probes)
        else:
            v, tr = with_trace(net, x, seen, self.probes)
        parts = [v, tr.unsqueeze(1)]
        if penalties is not None and self.costly:
            cost = penalties.kinetic * v.square().sum(1)
            parts.append((cost if norm is None else cost + penalties.jacobian * norm).unsqueeze(1))
        return torch.cat(parts, 1)

    def compiled(self, state: Tensor, start: float, end: float, steps: int) -> Tensor | None:
        net, x = self.layer.net, state[:, : self.x.shape[1]]
        estimated = self.with_trace and self.probes is not None
        if self.costly or estimated or not applies(x) or not isinstance(net, SmoothLayers):
            return None
        stack = net.smooth_stack()
        if stack is None or net.of_context is None or not stack.lasting:
            return None
        times = torch.linspace(start, end, 3 * steps + 1, dtype=x.dtype, device=x.device).unsqueeze(1)
        features = self.layer.with_time(times, times, None)
        of_time, of_context = net.of_context.weight.tensor_split([features.shape[1]], dim=1)
        table = F.linear(features, of_time, stack.biases[0])
        extra = None if self.context is None else F.linear(within(self.context), of_context)
        stack = stack._replace(extra=extra, lasting=False)
        done = Program([transport(stack, table, end - start, self.with_trace)]).run(x)
        if done is None:
            return None
        self.evaluated[0] += STAGES * steps * len(x)
        if not self.with_trace:
            return done[0]
        return torch.cat([done[0], (state[:, -1] + done[1]).unsqueeze(1)], 1)

    def rows(self, index: Tensor) -> Dynamics:
        probes = self.probes
        return _Field(
            self.layer,
            self.x[index],
            None if self.context is None else self.context[index],
            with_trace=self.with_trace,
            probes=probes if probes is None or probes.shape[1] == 1 else probes[:, index],
            penalties=self.penalties,
            evaluated=self.evaluated,
        )

    def tensors(self) -> tuple[Tensor, ...]:
        net: Any = self.layer.net
        return (*net.parameters(), *(() if self.context is None else (self.context,)))

    def spoiled(self) -> Tensor | None:
        return None if self.context is None else ~self.context.isfinite().all(1)
