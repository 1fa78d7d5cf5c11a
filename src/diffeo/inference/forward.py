"""What exact draws of a target say of a flow."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from diffeo.errors import ShapeError
from diffeo.flow import Flow, in_parts
from diffeo.inference.importance import as_evaluator, working_copy
from diffeo.targets import Target


@dataclass(frozen=True)
class ForwardCheck:
    """How much of the target the flow covers, seen from exact draws of the target.

    The weights of a flow's own draws say nothing of modes that it never visits; here such a mode shows up
    with its full share of the draws.

    Args:
        log_flow: the flow's log-density at the draws, ``(rows,)``.
        log_target: the target's, unnormalized.
        log_z: the target's log normalizing constant, where known.

    Example:
        >>> import torch
        >>> exact = ForwardCheck(torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -2.0]), 0.0)
        >>> exact.forward_ess, exact.forward_kl, exact.mean_log_prob
        (1.0, 0.0, -1.5)
    """

    log_flow: Tensor
    log_target: Tensor
    log_z: float | None = None

    @property
    def mean_log_prob(self) -> float:
        """The flow's mean log-density at exact draws, in nats; at most minus the target's entropy."""
        return float(self.log_flow.double().mean())

    @property
    def mean_log_prob_error(self) -> float:
        """Its standard error."""
        return float(self.log_flow.double().std() / math.sqrt(len(self.log_flow)))

    @property
    def forward_kl(self) -> float | None:
        """``KL(target | flow)`` in nats, where ``log_z`` is known."""
        if self.log_z is None:
            return None
        return float((self.log_target.double() - self.log_flow.double()).mean()) - self.log_z

    @property
    def forward_ess(self) -> float:
        """Effective fraction of the flow's draws, estimated from the target's: it sees dropped modes.

        For densities p and q and ``w = p / q``, the effective fraction of many draws of q is ``(E_q w)^2 /
        E_q w^2``. Here ``E_q w = 1``, and ``E_q w^2 = E_p w``, so it is ``1 / E_p w``: an average over draws
        of p. With ``w = Z p / q`` unnormalized it is ``Z / E_p w``, with Z from ``log_z`` or, as ``E_p [1 /
        w] = 1 / Z``, from the same draws: ``1 / (E_p [w] E_p [1 / w])``. In (0, 1] with the latter; with a
        known Z it may exceed 1 by the noise of the average. Without a known Z the flow must not reach beyond
        the target's support: what it has there is not seen.
        """
        log_w = self.log_target.double() - self.log_flow.double()
        count = math.log(len(log_w))
        log_mean = float(log_w.logsumexp(0)) - count
        log_z = count - float((-log_w).logsumexp(0)) if self.log_z is None else self.log_z
        return math.exp(log_z - log_mean) if log_mean < math.inf else 0.0


def forward_check(
    flow: Flow, target: Target, x: Tensor, log_z: float | None = None, *, batch_size: int = 4096
) -> ForwardCheck:
    """The flow's and the target's log-densities at exact draws of the target.

    Args:
        flow: of vectors, without context.
        target: or an ``Evaluator`` of one, which then counts.
        x: exact draws, ``(rows, D)``: ``target.sample(n)`` where the target is ``Sampled``.
        log_z: the target's log normalizing constant, where known.
        batch_size: rows at a time.

    Raises:
        ShapeError, ConfigError: for x that are not rows of the flow's, or are empty.

    Example:
        >>> import torch, diffeo
        >>> flow = diffeo.presets.MAF(features=2).build()
        >>> class Normal:
        ...     def log_prob(self, x):
        ...         return -0.5 * x.square().sum(-1) - math.log(2 * math.pi)
        >>> found = forward_check(flow, Normal(), torch.randn(1000, 2), 0.0)
        >>> round(found.forward_ess, 6), abs(found.forward_kl) < 1e-6
        (1.0, True)
    """
    if x.dim() != 2 or len(x) < 2:
        raise ShapeError(f"x must be rows (rows, D), at least two, but has shape {tuple(x.shape)}.")
    flow, evaluate = working_copy(flow), as_evaluator(target)

    def part(rows: Tensor) -> tuple[Tensor, Tensor]:
        return flow.log_prob(rows), evaluate(rows)

    log_flow, log_target = in_parts(flow, part, x.double(), batch_size=batch_size)
    return ForwardCheck(log_flow, log_target, log_z)
