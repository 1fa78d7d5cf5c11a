"""Contractive residual blocks: ``y = x + g(x)`` with a certified Lipschitz bound on g.

The inverse is solved in float64 whatever the flow's dtype. For L = 0.97 the noise of a float32 residual,
divided by ``1 - L``, is larger than any tolerance worth stating.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffeo.bijections.base import Bijection
from diffeo.contracts import Traits
from diffeo.functional.convergence import captured
from diffeo.functional.exact import exactly
from diffeo.functional.fields import residual
from diffeo.functional.first_order import first_order
from diffeo.functional.fixed_point import MEMORY, FixedPoint, fixed_point, picard_iterations
from diffeo.functional.linearize import jacobian, linearize
from diffeo.functional.log_dets import EXACT_FEATURES, Estimate, ExactLogDet, LogDet, rademacher
from diffeo.functional.programs import run_alone
from diffeo.functional.seeding import generator
from diffeo.functional.stages import Stage
from diffeo.nets.lipschitz import LipschitzNet
from diffeo.nets.smooth import SmoothLayers

TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-8}
"""Bounds on the error of the inverse, relative to ``1 + |y|``, by the dtype of y; rounding comes on top."""


class Contractive(Bijection):
    """``y = x + g(x)`` where g contracts: any net of all columns, neither split nor ordered.

    Invertible by Banach's theorem since Lip(g) <= L < 1, which the net certifies: its layers' norms are
    bounded from above and kept by ``project_`` after every step of ``fit``. The inverse solves
    ``x = y - g(x)`` with Anderson acceleration until ``|y - g(x) - x| / (1 - L)``, a bound on the true
    error, is at most ``tolerance (1 + |y|)``. It is solved in float64, whatever the dtype: with L near 1
    float32 could not certify what it reaches. Derivatives of the inverse are implicit: first
    and second, of more than 64 columns first ones only, and asking for more is an error.

    The log-det is exact, or estimated in training (``RouletteLogDet``, ``SeriesLogDet``); evaluation is
    always deterministic.

    Domain: the whole line. Cost: ``forward`` one pass and D (exact) or about 1 / (1 - L) (roulette) products
    with the Jacobian; ``inverse`` one pass for each iteration, and a ``forward``.

    Args:
        net: a ``LipschitzNet``: ``LipschitzMLP``, ``LipschitzConvNet``.
        log_det: how the log-determinant is found; exact by default.

    Shape: ``(*batch, *net.event_shape)``; context ``(*batch, net.context_features)`` where the net takes one.

    Raises:
        NotConverged: where an inverse misses its tolerance, which for finite parameters that were projected
            means huge or infinite points.

    References: Behrmann et al. 2019, "Invertible residual networks"; Chen et al. 2019, "Residual flows";
    Prince 2023, section 16.3.7, figure 16.9.

    Example:
        >>> import torch
        >>> from diffeo.nets import LipschitzMLP
        >>> layer = Contractive(LipschitzMLP(3, (16, 16)))
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(layer.inverse(layer(x)[0])[0], x, atol=1e-6)
        True
    """

    def __init__(self, net: LipschitzNet, log_det: LogDet | None = None):
        context = (net.context_features,) if net.context_features else None
        super().__init__(net.event_shape, context_shape=context)
        self.net = net
        self.log_det = ExactLogDet() if log_det is None else log_det
        features = self.event_shape.numel()
        self.traits = Traits(
            closed_form=False,
            exact_log_det=self.log_det.exact(features),
            capturable=False,
            tolerance=TOLERANCE[torch.float64],
            inverse_passes=10,
        )
        shape = self.log_det.probe_shape(self.event_shape)
        fixed = None if shape is None else rademacher(shape, torch.empty(0), generator(0))
        self.register_buffer("probes", fixed)

    # -- forward ------------------------------------------------------------------------------

    def as_stages(self, context: Tensor | None = None) -> list[Stage] | None:
        exact = self.log_det.exact(self.event_shape.numel()) or not (self.training or self.probes is not None)
        stack = self.net.smooth_stack(self._context(context)) if isinstance(self.net, SmoothLayers) else None
        if stack is None or not exact or not exactly(self, Contractive):
            return None
        lipschitz, tolerance = self.net.lipschitz, TOLERANCE[stack.weights[0].dtype]
        return [residual(stack, (1 - lipschitz) * tolerance, 2 * picard_iterations(lipschitz, tolerance))]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return run_alone(self.as_stages, x, context) or self._forward(x, context)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        g, product = linearize(self.net, x, self._context(context))
        dims, lipschitz = len(self.event_shape), self.net.lipschitz
        if self.training:
            return x + g, self.log_det.draw(product, x, dims, lipschitz)
        return x + g, self.log_det.estimate(product, x, dims, lipschitz, self._probes()).log_det

    def push(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return x + self.net(x, self._context(context))

    @torch.no_grad()
    def estimate(self, x: Tensor, context: Tensor | None = None) -> Estimate:
        """The log-det of ``forward`` as evaluation has it, its standard error and the series' remainder."""
        product = linearize(self.net, x, self._context(context))[1]
        return self.log_det.estimate(product, x, len(self.event_shape), self.net.lipschitz, self._probes())

    def _context(self, context: Tensor | None) -> Tensor | None:
        return context if self.net.context_features else None

    def _probes(self) -> Tensor | None:
        probes = self.probes
        assert probes is None or isinstance(probes, Tensor)
        return probes

    # -- inverse ------------------------------------------------------------------------------

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if (done := run_alone(self.as_stages, y, context, inverse=True)) is not None:
            return done
        x = self.pull(y, context)
        return x, -self(x, context)[1]

    def pull(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        context = self._context(context)
        x = self.solve(y, context).x.to(y.dtype).reshape(y.shape)
        return self._attach(x, y, context) if torch.is_grad_enabled() else x

    @torch.no_grad()
    def solve(self, y: Tensor, context: Tensor | None = None, *, memory: int = MEMORY) -> FixedPoint:
        """The inverse in float64, one row a point, with its residuals and the number of iterations.

        Args:
            y: ``(*batch, *event_shape)``.
            context: as in ``inverse``.
            memory: secants of the acceleration; 0 is plain Picard iteration.
        """
        g = self._doubled()
        size = self.event_shape.numel()
        rows = y.numel() // max(1, size)
        flat = None if context is None else context.reshape(rows, self.net.context_features).double()

        def map_(x: Tensor, index: Tensor | None) -> Tensor:
            own = flat if flat is None or index is None else flat[index]
            return g(x.reshape(len(x), *self.event_shape), own).reshape(len(x), size)

        return fixed_point(
            map_,
            y.reshape(rows, size).double(),
            self.net.lipschitz,
            "the inverse of a Contractive layer",
            tolerance=TOLERANCE[y.dtype],
            memory=memory,
        )

    def _doubled(self) -> Callable[..., Any]:
        """The net in float64, with the weights it has."""
        if next(self.net.parameters()).dtype == torch.float64:
            return self.net
        state = {k: v.detach().double() for k, v in self.net.named_parameters()}
        return lambda *arguments: torch.func.functional_call(self.net, state, arguments)

    def _attach(self, x: Tensor, y: Tensor, context: Tensor | None) -> Tensor:
        """``x`` with the gradients of the fixed point: ``dx = (I + J)^-1 (dy - dg)``, once an order."""
        x = x.detach()
        value, product = linearize(self.net, x, context)
        change = _silent(y - value)  # with the gradient of y - g(x; parameters) at fixed x
        if not change.requires_grad:
            return x
        dims = len(self.event_shape)
        if self.event_shape.numel() > EXACT_FEATURES and not captured():
            why = f"the inverse has no second derivatives beyond {EXACT_FEATURES} columns."
            return x + _Implicit.apply(first_order(change, why), self.net, x, context, dims)
        j = jacobian(product, x, dims).detach().mT  # one product a column
        slope = torch.eye(j.shape[-1], dtype=j.dtype, device=j.device) + j

        def solved(change: Tensor) -> Tensor:
            return torch.linalg.solve(slope, change.reshape(*j.shape[:-1]).unsqueeze(-1)).reshape(x.shape)

        first = x + solved(change)
        return first + solved(_silent(y - first - self.net(first, context)))


def _silent(change: Tensor) -> Tensor:
    """Zero, with the derivatives of ``change``."""
    return change - change.detach()


class _Implicit(torch.autograd.Function):
    """The identity, whose backward pass solves ``(I + J') u = grad`` as the fixed point it is."""

    @staticmethod
    def forward(
        ctx: Any, change: Tensor, net: nn.Module, x: Tensor, context: Tensor | None, dims: int
    ) -> Tensor:
        ctx.net, ctx.x, ctx.context, ctx.dims = net, x, context, dims
        return change.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad,) = grads
        with torch.enable_grad():
            point = ctx.x.detach().requires_grad_()
            value = ctx.net(point, ctx.context)
        event = grad.shape[grad.dim() - ctx.dims :].numel()
        flat = grad.reshape(grad.numel() // max(1, event), event)
        size = flat.norm(dim=1, keepdim=True)
        unit = flat / size.clamp_min(torch.finfo(grad.dtype).tiny)

        def transposed(u: Tensor, index: Tensor | None) -> Tensor:
            full = u if index is None else torch.zeros_like(unit).index_copy(0, index, u)
            (out,) = torch.autograd.grad(value, point, full.reshape(point.shape), retain_graph=True)
            out = out.reshape(flat.shape)
            return out if index is None else out[index]

        what = "the gradient of a Contractive layer's inverse"
        tolerance = 1e3 * torch.finfo(grad.dtype).eps
        u = fixed_point(transposed, unit, ctx.net.lipschitz, what, tolerance=tolerance).x
        return (u * size).reshape(grad.shape), None, None, None, None
