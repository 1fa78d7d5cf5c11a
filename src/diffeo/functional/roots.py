"""Inverses of increasing scalar functions, elementwise on tensors, certified and differentiable."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffeo.functional.convergence import captured, certified, finished

Increasing = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Takes x to ``(value, log_slope)``, elementwise; increasing, and defined a little beyond its bracket."""

ULPS = 8
"""``|f(x) - y|`` is at most so many units of round-off, of ``max(1, |y|)``, in the search.

Twice that is promised: f may round differently in a batch of another size.
"""
PATIENCE = 6
"""In so many steps the bracket halves, or the residual falls to a hundredth, or the next is a bisection."""

STEPS, STEPS_CAPTURED = 1000, 48  # nothing comes near the first: the last resort of a slope that is false
GROWTHS, GROWTHS_CAPTURED = 40, 12


@torch.no_grad()
def invert(f: Increasing, y: Tensor, low: Tensor, high: Tensor, what: str) -> Tensor:
    """The x in ``[low, high]`` with ``f(x) = y``, without gradients.

    Newton's method inside a bracket. Where Newton's step is not half of what it was, x moves by twice its
    last move instead, so that the root is soon between two tested points even where steps have shrunk to
    round-off; a move that would leave the bracket becomes a bisection, and so do some where little is gained.
    It ends where ``|f(x) - y| <= 16 eps max(1, |y|)``, or where the bracket's ends, both tested, are
    neighboring floats: then the end with the smaller residual is as good as a float can be. Cost: ten to
    thirty evaluations of f for many points at once; some hundred where the slope misleads.

    NaN in y or in what f gives is NaN in x. Infinite y gives NaN too.

    Args:
        f: the function; ``log_slope`` only guides the search, its errors do not matter.
        y: values to be reached.
        low, high: ends that hold the root between them, of y's shape or broadcasting against it. They are
            moved out by a few units of round-off, so that they may have been computed.
        what: whose inverse it is, for the message.

    Raises:
        NotConverged: where neither end was reached, in eager mode; while captured such x are NaN.
    """
    info = torch.finfo(y.dtype)
    tolerance = ULPS * info.eps * y.abs().clamp_min(1.0)
    low, high = (end.expand_as(y) - s * _spread(end) for end, s in ((low, 1), (high, -1)))
    x = low + 0.5 * (high - low)
    width = newton = last = high - low
    left = torch.full_like(y, torch.inf)
    below, above = torch.full_like(y, -torch.inf), torch.full_like(y, torch.inf)  # residuals of tested ends
    steps, step = STEPS_CAPTURED if captured() else STEPS, 0
    while True:
        step += 1
        value, log_slope = f(x)
        residual = value - y
        under, over = residual <= 0, residual >= 0
        low, below = torch.where(under, x, low), torch.where(under, residual, below)
        high, above = torch.where(over, x, high), torch.where(over, residual, above)
        middle = low + 0.5 * (high - low)
        narrow = (middle <= low) | (middle >= high)
        settled = ~(residual.abs() > tolerance)  # NaN is settled
        stop = settled | narrow
        if step == steps or finished(stop):
            break
        size = (residual * (-log_slope).exp()).abs().clamp_min(info.eps * x.abs() + info.tiny)
        size, newton = torch.where(size > 0.5 * newton, 2 * last, size), size
        probe = torch.where(under, x + size, x - size)
        inside = (probe > low) & (probe < high)
        if step % PATIENCE == 0:
            inside &= (high - low <= 0.5 * width) | (residual.abs() <= 0.01 * left)
            width, left = high - low, residual.abs()
        probe = torch.where(inside, probe, middle)
        last = (probe - x).abs()
        x = torch.where(stop, x, probe)
    nearer = torch.where(below.abs() <= above.abs(), low, high)
    proven = below.isfinite() & above.isfinite()
    converged = settled | (narrow & proven)
    x = torch.where(settled | ~proven, x, nearer)
    x = torch.where(residual.isnan(), torch.nan, x)
    return certified(x, converged, residual, step, what)


def _spread(end: Tensor) -> Tensor:
    info = torch.finfo(end.dtype)
    return 32 * (info.eps * end.abs() + info.tiny)


@torch.no_grad()
def bracket(f: Increasing, y: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
    """``(low, high)`` with the root of ``f(x) = y`` between them, found from a guess of y's shape.

    One end is the guess, the other moves away from it: first as far as twice Newton's step, then eight times
    as far each time. Where it never passes y (a function that is flat, or falls) the last interval is
    returned, and ``invert`` will not certify.
    """
    value, log_slope = f(guess)
    residual = y - value
    way = torch.where(residual < 0, -1.0, 1.0).to(y)
    size = residual.abs()
    reach = (2 * size * (-log_slope).exp()).nan_to_num(torch.inf).minimum(4 * size)
    reach = reach.nan_to_num(1.0, 1.0, 1.0).maximum(guess.abs().clamp_min(1.0))
    near, far = guess, guess + way * reach
    for _ in range(GROWTHS_CAPTURED if captured() else GROWTHS):
        passed = ~((y - f(far)[0]) * way > 0)  # NaN has passed
        if finished(passed):
            break
        reach = torch.where(passed, reach, 8 * reach)
        near, far = torch.where(passed, near, far), torch.where(passed, far, guess + way * reach)
    return torch.minimum(near, far), torch.maximum(near, far)


def attach(x: Tensor, value: Tensor, y: Tensor, log_slope: Tensor) -> Tensor:
    """``x``, bit for bit, with the gradient of the x that solves ``f(x) = y``, of one order more than it had.

    One step of Newton's method whose size is zero: ``dx = (dy - df) / f'(x)``.

    Args:
        x: the solution.
        value: ``f(x)``, with its gradients to x and to whatever f closes over.
        y: the right-hand side, with its gradient.
        log_slope: of f at x; its gradients are not used. Where f is flat beyond measure, the gradient is as
            large as a square may be.
    """
    step = (y - value) * (-log_slope.detach()).exp().clamp_max(torch.finfo(log_slope.dtype).max ** 0.5)
    return x + (step - step.detach())


def inverse(f: Increasing, y: Tensor, low: Tensor, high: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """``(x, log dx/dy)`` where ``f(x) = y``, with first and second derivatives to y and what f closes over.

    ``invert``, and ``attach`` once an order; three further evaluations of f where gradients are wanted, else
    one.

    Args:
        f, y, low, high, what: as in ``invert``.

    Example:
        >>> import torch
        >>> y = torch.tensor([-1e6, 0.0, 2.0], dtype=torch.float64)
        >>> x, log_slope = inverse(lambda x: (x.sinh(), x.cosh().log()), y, -y.abs(), y.abs(), "arsinh")
        >>> torch.equal(x.sinh().round(decimals=6), y), torch.allclose(log_slope.exp(), 1 / x.cosh())
        (True, True)
    """
    x = invert(f, y, low, high, what)
    value, log_slope = f(x)
    if torch.is_grad_enabled():
        for _ in range(2):
            x = attach(x, value, y, log_slope)
            value, log_slope = f(x)
    return x, -log_slope
