"""How an autoregressive layer over tokens is inverted: on a cache, plainly, or by parallel fixed point.

The tolerance of ``Jacobi`` is in y. A small step in x bounds no error, since a layer may magnify it without
limit. What is tested is that the layer takes x to within the tolerance of y: x is then an exact sample of a
latent that near, and its log-det is the exact one. Rows that are done leave the iteration, so a row does not
depend on its neighbors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from diffeo.contracts import CausalNet, Stepper, Traits, Windowed
from diffeo.elementwise.base import Elementwise
from diffeo.errors import ConfigError
from diffeo.functional import matmul_precision
from diffeo.functional.convergence import captured, certified
from diffeo.functional.shapes import sum_event


@dataclass(frozen=True)
class Solution:
    """An inverse, and its cost.

    Args:
        x: ``(*batch, T, C)``.
        log_det: of the inverse, ``(*batch,)``.
        passes: net passes' worth of work that each row took, ``(*batch,)``, float64.
    """

    x: Tensor
    log_det: Tensor
    passes: Tensor


class TokenSampler(ABC):
    """Inverts ``y_t = family(x_t; net(x_1 .. x_{t-1}))``, tokens in the net's order."""

    @abstractmethod
    def solve(self, net: CausalNet, family: Elementwise, y: Tensor, context: Tensor | None) -> Solution: ...

    @abstractmethod
    def traits(self, family: Traits, length: int) -> Traits:
        """The layer's traits, from its family's."""


@dataclass(frozen=True)
class Stepwise(TokenSampler):
    """Token by token, on what the net keeps of earlier ones (a transformer's keys and values).

    All steps together do one pass's work. Exact, differentiable.
    """

    def solve(self, net: CausalNet, family: Elementwise, y: Tensor, context: Tensor | None) -> Solution:
        x, log_det = _by_steps(net.stepper(context, y.shape[:-2]), family, y)
        return Solution(x, log_det, _passes(y, 1))

    def traits(self, family: Traits, length: int) -> Traits:
        return replace(family, forward_passes=1, inverse_passes=1)


@dataclass(frozen=True)
class Uncached(TokenSampler):
    """A full pass for each token: the plain reference, of T times the work. Exact, differentiable."""

    def solve(self, net: CausalNet, family: Elementwise, y: Tensor, context: Tensor | None) -> Solution:
        x, log_det = _by_steps(_FullPasses(net, y, context), family, y)
        return Solution(x, log_det, _passes(y, net.length))

    def traits(self, family: Traits, length: int) -> Traits:
        return replace(family, forward_passes=1, inverse_passes=length)


@dataclass(frozen=True)
class Jacobi(TokenSampler):
    """All tokens at once, again and again: ``x <- family^-1(y; net(x))`` from ``x = y``, until it stands.

    After k passes the first k tokens are exact, so it ends after T at the latest; a trained flow's
    tokens depend on few others strongly, and it ends much earlier. Every pass is one wide product instead of
    T narrow ones: for small batches, and for devices that a single token leaves idle. With a window it goes
    through the tokens window by window, each until it stands, on what the net keeps of those before: tokens
    that are settled are not computed again.

    A row is done when ``family(x; net(x))`` lies within ``tolerance`` of y, elementwise. So x is the exact
    inverse of a point that near to y, and the log-det is the exact one at x; how far x is from the inverse of
    y itself depends on how the layer magnifies. What a row gets does not depend on the others. Where
    gradients are wanted, and under ``torch.compile`` and ``torch.func``, the answer is ``Stepwise``'s.

    Args:
        tolerance: in the units of y, above 0.
        most: passes at most, for each window; None for as many as make it exact.
        window: tokens in a window; None for all. Needs a net that is ``Windowed``, as transformers are.

    Raises:
        ConfigError: for a tolerance or numbers that are not positive; at the call, for a window where the net
            takes none.
        NotConverged: at the call, where ``most`` passes were too few.

    References: Song et al. 2021, "Accelerating feedforward computation via parallel nonlinear equation
    solving", algorithm 1 and proposition 1; Liu and Qin 2025, "Accelerate TarFlow sampling with GS-Jacobi
    iteration".
    """

    tolerance: float = 1e-4
    most: int | None = None
    window: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < float("inf"):
            raise ConfigError(f"tolerance must be finite and above 0, not {self.tolerance}.")
        for name, number in (("most", self.most), ("window", self.window)):
            if number is not None and number < 1:
                raise ConfigError(f"{name} must be at least 1 or None, not {number}.")

    def solve(self, net: CausalNet, family: Elementwise, y: Tensor, context: Tensor | None) -> Solution:
        if captured() or _differentiable(net, family, y, context):
            return Stepwise().solve(net, family, y, context)
        batch = y.shape[:-2]
        context = None if context is None else context.reshape(-1, *context.shape[len(batch) :])
        iterate = self._everywhere if self.window is None else self._by_windows
        solution = iterate(net, family, y.reshape(-1, *y.shape[-2:]), context)
        return Solution(
            solution.x.reshape(y.shape), solution.log_det.reshape(batch), solution.passes.reshape(batch)
        )

    def _everywhere(self, net: CausalNet, family: Elementwise, y: Tensor, context: Tensor | None) -> Solution:
        most = net.length if self.most is None else min(self.most, net.length)
        x, log_det, passes = y.clone(), y.new_zeros(len(y)), _passes(y, most)
        residual = torch.zeros_like(y)
        active = torch.arange(len(y), device=y.device)  # rows that are done no longer take part
        guess = y
        for k in range(1, most + 1):
            if not len(active):
                break
            target = y[active]
            params = matmul_precision.run_net(net, guess, None if context is None else context[active])
            there, log_slope = family.forward(guess, params)
            new, log_slope_back = family.inverse(target, params)
            gap = (there - target).abs()
            done = _within(gap, self.tolerance)
            x[active] = torch.where(done[:, None, None], guess, new)
            log_det[active] = torch.where(done, -sum_event(log_slope, 2), sum_event(log_slope_back, 2))
            residual[active] = gap
            passes[active] = k
            active, guess = active[~done], _finite(new, target)[~done]
        if most < net.length:
            left = torch.zeros(len(y), dtype=torch.bool, device=y.device).index_fill(0, active, True)
            _certify(y, left, residual, most)
        return Solution(x, log_det, passes)

    def _by_windows(self, net: CausalNet, family: Elementwise, y: Tensor, context: Tensor | None) -> Solution:
        if not isinstance(net, Windowed):
            raise ConfigError(
                f"{type(net).__name__} does not take tokens in windows; use Jacobi without one, or Stepwise."
            )
        assert self.window is not None
        windows = net.windows(context, y.shape[:1])
        tokens: list[Tensor] = []
        log_det, passes = y.new_zeros(len(y)), _passes(y, 0)
        for target in y.split(self.window, -2):
            size = target.shape[-2]
            most = size + 1 if self.most is None else min(self.most, size + 1)
            guess, done = target, torch.zeros(len(y), dtype=torch.bool, device=y.device)
            k = 0
            while True:
                k += 1
                params = windows.propose(guess)
                there, log_slope = family.forward(guess, params)
                gap = (there - target).abs()
                passes = passes + (~done).to(passes) * (size / net.length)
                done = done | _within(gap, self.tolerance)
                if k == most or bool(done.all()):
                    break
                new = _finite(family.inverse(target, params)[0], target)
                guess = torch.where(done[:, None, None], guess, new)
            if most <= size:  # one more than that, and the guess is exact
                _certify(target, ~done, gap, most)
            windows.accept(guess)
            tokens.append(guess)
            log_det = log_det - sum_event(log_slope, 2)
        return Solution(torch.cat(tokens, -2), log_det, passes)

    def traits(self, family: Traits, length: int) -> Traits:
        most = length if self.window is None else min(self.window, length) + 1
        most = most if self.most is None else min(self.most, most)
        tolerance = max(family.tolerance, self.tolerance)
        return replace(family, closed_form=False, tolerance=tolerance, forward_passes=1, inverse_passes=most)


def _within(gap: Tensor, tolerance: float) -> Tensor:
    """Which rows of ``(N, T, C)`` are."""
    return (gap <= tolerance).all(-1).all(-1)


def _finite(guess: Tensor, y: Tensor) -> Tensor:
    """The guess, but y where it has left the floats: through ``0 * inf`` it would reach tokens that do not
    depend on it. NaN stays where y has it."""
    return torch.where(guess.isfinite() | y.isnan(), guess, y)


def _certify(y: Tensor, left: Tensor, residual: Tensor, passes: int) -> None:
    left = left & ~y.isnan().any(-1).any(-1)
    certified(y, ~left[:, None, None], residual, passes, "Jacobi")


def _by_steps(step: Stepper, family: Elementwise, y: Tensor) -> tuple[Tensor, Tensor]:
    tokens: list[Tensor] = []
    log_slopes: list[Tensor] = []
    previous = None
    for token in y.unbind(-2):
        previous, log_slope = family.inverse(token, step(previous))
        tokens.append(previous)
        log_slopes.append(log_slope)
    return torch.stack(tokens, -2), sum_event(torch.stack(log_slopes, -2), 2)


class _FullPasses:
    """A stepper for any causal net, a full pass a token."""

    def __init__(self, net: CausalNet, like: Tensor, context: Tensor | None):
        self.net, self.context = net, context
        self.blank = torch.zeros_like(like)
        self.tokens: list[Tensor] = []

    def __call__(self, previous: Tensor | None) -> Tensor:
        if previous is not None:
            self.tokens.append(previous)
        t = len(self.tokens)
        x = torch.cat([torch.stack(self.tokens, -2), self.blank[..., t:, :]], -2) if t else self.blank
        return matmul_precision.run_net(self.net, x, self.context)[..., t, :, :]


def _differentiable(net: CausalNet, family: Elementwise, *given: Tensor | None) -> bool:
    """Whether autograd, backward or forward, looks on."""
    if torch.autograd.forward_ad._current_level >= 0:
        return True
    weights = [p for part in (net, family) if isinstance(part, nn.Module) for p in part.parameters()]
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (*given, *weights))


def _passes(y: Tensor, passes: int) -> Tensor:
    return torch.full(y.shape[:-2], float(passes), dtype=torch.float64, device=y.device)
