"""Neural transport: Hamiltonian Monte Carlo where the flow has made the target simple."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn
from torch.distributions import constraints

from diffeo.bijections import Autoregressive, Inverse
from diffeo.errors import ConfigError
from diffeo.flow import Flow, in_parts
from diffeo.functional.domains import describe, same_interval
from diffeo.inference.adaptation import DualAveraging, Spread
from diffeo.inference.chains import Chains
from diffeo.inference.importance import as_evaluator, working_copy
from diffeo.inference.metropolis import choose
from diffeo.inference.transitions import ChainState, accept_or_stay, leapfrog, standard_normal
from diffeo.targets import Evaluator, Target

RUNAWAY = 1000.0
"""Growth of the energy, in nats, that counts as a divergence: as in Stan."""
WINDOWS = (0.15, 0.3, 0.55, 0.85)
"""Parts of the warm-up at whose ends the spreads are measured anew; the last part settles the step size."""


def neural_transport(
    flow: Flow,
    target: Target,
    *,
    chains: int = 8,
    warmup: int = 250,
    num_draws: int = 500,
    length: float = math.pi / 2,
    goal: float = 0.8,
    most_leaps: int = 64,
    rescale: bool = True,
    starts: int = 32,
    generator: Generator | None = None,
    on_step: Callable[[float], None] | None = None,
) -> Chains:
    """Hamiltonian Monte Carlo in the flow's latent space; the draws are exact, the flow only makes it fast.

    Why: through a good flow the target looks like the flow's base, which is easy for HMC whatever the
    target's shape was. Where the flow is wrong the chains correct it, as long as they come by. With an
    untrained flow this is plain HMC, its scales adapted.

    Formula: with ``x = g(z)``, g the generative direction, chains run on ``log p(g(z)) + log|det dg/dz|``:
    leapfrog steps, accepted with ``min(1, exp(H_old - H_new))``. A trajectory's length is drawn evenly from
    0.5 to 1.5 times ``length``, in units of each coordinate's spread, one for all chains: a quarter of a
    normal density's period makes independent draws. During warm-up dual averaging sets the step size, for
    all chains together, and spreads are measured over all of them.

    All chains are one batch, so twice as many cost less than twice the time. A float64 copy of the flow does
    the work: energies of hundreds of nats must be right to a thousandth.

    Each chain starts from one of its own ``starts`` draws of the flow, chosen by importance.

    Cost: a leapfrog step is one gradient of the target and of the flow's inverse for each chain; there are
    about ``length / step size`` a transition. Through an autoregressive inverse the gradient takes D + 1
    forward passes' work, in one batch.

    Args:
        flow: of vectors, without context or encoding, with a base on the whole space.
        target: with gradients; or an ``Evaluator`` of one, which then counts.
        chains: how many, side by side.
        warmup: transitions of each chain that only adapt.
        num_draws: transitions of each chain that are kept.
        length: mean length of a trajectory.
        goal: mean probability of acceptance that the step size is set for, in (0, 1).
        most_leaps: the most leapfrog steps of one transition.
        rescale: whether to measure the spread of each latent coordinate; else all are 1.
        starts: draws spent on each chain's starting point.
        generator: of the random numbers.
        on_step: told the part done, after each transition.

    Raises:
        ConfigError: for a target without gradients, a flow of other things, or numbers out of range.
        DataError: when a chain finds no starting point of positive density.

    References: Hoffman, Sountsov, Dillon, Langmore, Tran and Vasudevan 2019, "NeuTra-lizing bad geometry in
    Hamiltonian Monte Carlo using neural transport", section 3; Parno and Marzouk 2018; Neal 2011, section
    5.3, for random lengths.

    Example:
        >>> import torch, diffeo
        >>> from diffeo.targets import FromTorch
        >>> flow = diffeo.presets.RealNVP(features=2).build()
        >>> target = FromTorch(lambda x: -0.5 * ((x - 1) / 3).square().sum(-1))
        >>> generator = torch.Generator().manual_seed(0)
        >>> found = neural_transport(flow, target, chains=8, warmup=100, num_draws=100, generator=generator)
        >>> found.x.shape, bool((found.flat().std(0) - 3).abs().max() < 0.5)
        (torch.Size([8, 100, 2]), True)
    """
    if min(chains, num_draws, starts, most_leaps) < 1 or warmup < 0:
        raise ConfigError(
            "chains, num_draws, starts and most_leaps must be at least 1, and warmup at least 0."
        )
    if not 0 < goal < 1 or not 0 < length < math.inf:
        raise ConfigError(f"goal must be in (0, 1) and length above 0, not {goal} and {length}.")
    begin = time.perf_counter()
    evaluator = as_evaluator(target)
    evaluations, gradients = evaluator.evaluations, evaluator.gradients
    latent = Latent(working_copy(flow), evaluator)
    run = _Run(latent, length, most_leaps, generator)
    run.begin(chains, starts)
    tell = on_step or (lambda part: None)
    settings = _warm_up(run, warmup, goal, rescale, lambda step: tell(step / (warmup + num_draws)))
    z, log_density, accepted, divergent, leaps = [], [], [], [], 0
    for step in range(num_draws):
        probability, runaway, count = run.step(settings)
        z.append(run.state.x)
        log_density.append(run.state.log_prob)
        accepted.append(probability)
        divergent.append(runaway)
        leaps += count
        tell((warmup + step + 1) / (warmup + num_draws))
    x, log_prob = latent.to_data(torch.stack(z, 1), torch.stack(log_density, 1))
    return Chains(
        x,
        log_prob,
        torch.stack(accepted).mean(0),
        evaluator.evaluations - evaluations,
        evaluator.gradients - gradients,
        time.perf_counter() - begin,
        torch.stack(divergent, 1),
        settings.size,
        leaps / num_draws,
    )


class Latent:
    """The target as the flow's latent space sees it: ``log p(g(z)) + log|det dg/dz|``, with its gradient.

    The gradient goes back through the inverse g where that is one pass. Through an autoregressive inverse it
    would be D small steps; there, with f the forward direction, it is ``J^-T (grad log p - grad log|det J|)``
    for J = df/dx at x = g(z), from one forward pass of D + 1 copies of each row.

    Args:
        flow: what ``working_copy`` gives.
        evaluator: of the target.
    """

    def __init__(self, flow: Flow, evaluator: Evaluator):
        if flow.encoding is not None:
            raise ConfigError(
                "this flow's data go through an encoding, behind which there is no gradient; pass "
                "flow.without_encoding()."
            )
        if not same_interval(flow.base.support, constraints.real):
            raise ConfigError(
                f"chains need a latent space without edges, but the base lives on "
                f"{describe(flow.base.support)}; use a flow with a normal base, or independence_metropolis."
            )
        self.flow, self.evaluator, self.columnwise = flow, evaluator, _is_columnwise(flow.bijection)
        for parameter in flow.parameters():  # of a copy
            parameter.requires_grad_(False)

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Rows ``(rows, D)`` to log-densities ``(1, rows)`` and their gradients ``(1, rows, D)``."""
        if self.columnwise:
            log_density, grad = self._through_forward(z)
        else:
            log_density, grad = self._through_inverse(z)
        return log_density.unsqueeze(0), torch.where(grad.isfinite(), grad, 0.0).unsqueeze(0)

    def _through_inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            x, log_det = self.flow.bijection.inverse(z)
            usable = x.isfinite().all(-1) & log_det.isfinite()
            # a row that left the range of numbers must not reach the target
            log_p, grad_x = self.evaluator.value_and_grad(torch.where(usable.unsqueeze(-1), x, 0.0))
            # of log p by the chain rule, as the target's own gradient is made safe by the evaluator
            (grad,) = torch.autograd.grad((x * grad_x).sum() + log_det.sum(), z)
        return torch.where(usable, log_p + log_det.detach(), -math.inf), grad

    def _through_forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        rows, features = z.shape
        with torch.no_grad():
            x = self.flow.bijection.pull(z)
        usable = x.isfinite().all(-1)
        x = torch.where(usable.unsqueeze(-1), x, 0.0)
        log_p, grad_x = self.evaluator.value_and_grad(x)
        with torch.enable_grad():
            copies = x.repeat(features + 1, 1).requires_grad_()  # one for each column of z, one for log_det
            values, log_dets = self.flow.bijection(copies)
            columns = values.reshape(features + 1, rows, features)[:features]
            total = columns.diagonal(dim1=0, dim2=2).sum() + log_dets[-rows:].sum()
            (grads,) = torch.autograd.grad(total, copies)
        grads, log_det = grads.reshape(features + 1, rows, features), log_dets[-rows:].detach()
        transposed = grads[:features].permute(1, 2, 0)
        grad, _ = torch.linalg.solve_ex(transposed, (grad_x - grads[features]).unsqueeze(-1))
        usable &= log_det.isfinite()
        return torch.where(usable, log_p - log_det, -math.inf), grad.squeeze(-1)

    @torch.no_grad()
    def candidates(self, rows: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Draws of the base and their log-weights; refuses a target that will give no gradients."""
        z = self.flow.base.sample((rows,), generator=generator)
        x, log_det = self.flow.bijection.inverse(z)
        usable = x.isfinite().all(-1) & log_det.isfinite()
        x = torch.where(usable.unsqueeze(-1), x, 0.0)
        if not self.evaluator.differentiable(x):
            raise ConfigError(
                "this target's log_prob gives no gradient of x, which Hamiltonian Monte Carlo follows; use "
                "independence_metropolis, or write the target in torch operations."
            )
        log_p = self.evaluator(x)
        return z, torch.where(usable, log_p + log_det - self.flow.base.log_prob(z), -math.inf)

    def to_data(self, z: Tensor, log_density: Tensor) -> tuple[Tensor, Tensor]:
        """Latent chains ``(chains, draws, D)`` as data, and the target's log-density there."""
        x, log_det = in_parts(self.flow, self.flow.bijection.inverse, z.flatten(0, 1), batch_size=4096)
        return x.reshape(z.shape), log_density - log_det.reshape(log_density.shape)


def _is_columnwise(module: nn.Module) -> bool:
    """Whether the inverse goes column by column somewhere."""
    if isinstance(module, Inverse):  # its inverse is the other's forward
        return False
    return isinstance(module, Autoregressive) or any(map(_is_columnwise, module.children()))


@dataclass(frozen=True)
class _Settings:
    """Of a transition: step size, and the spread of each coordinate in whose units it is."""

    size: float
    spread: Tensor


@dataclass
class _Run:
    """Chains at some point on their way."""

    latent: Latent
    length: float
    most_leaps: int
    generator: Generator | None
    state: ChainState = field(init=False)

    def begin(self, chains: int, starts: int) -> None:
        z, log_weights = self.latent.candidates(chains * starts, self.generator)
        index = choose(log_weights.reshape(chains, starts), self.generator)
        first = z.reshape(chains, starts, -1)[torch.arange(chains, device=z.device), index]
        self.state = ChainState.at(self.latent, first)

    def step(self, settings: _Settings) -> tuple[Tensor, Tensor, int]:
        """One transition: each chain's probability of acceptance, whether it diverged, leapfrog steps."""
        length = self.length * (0.5 + float(torch.rand((), generator=self.generator)))
        leaps = max(1, min(self.most_leaps, math.ceil(length / settings.size)))
        size = torch.as_tensor(min(settings.size, length / leaps)).to(self.state.x)  # to end at the length
        p = standard_normal(self.state.x, self.generator)
        scale_tril = torch.diag(settings.spread)
        new, momentum = leapfrog(self.latent, self.state, p, size, leaps, scale_tril)
        kinetic = 0.5 * (p.square().sum(-1) - momentum.square().sum(-1))
        log_ratio = new.log_prob - self.state.log_prob + kinetic
        runaway = ~(log_ratio > -RUNAWAY)  # NaN too
        self.state, probability = accept_or_stay(self.state, new, log_ratio, self.generator)
        return probability, runaway, leaps


def _warm_up(run: _Run, steps: int, goal: float, rescale: bool, tell: Callable[[int], None]) -> _Settings:
    """Adapt; the settings that the draws are made with."""
    features = run.state.x.shape[-1]
    unit = torch.ones_like(run.state.x[0])
    sizes, spread = DualAveraging(features**-0.25, goal), Spread(features)
    settings = _Settings(sizes.size, unit)
    ends = {round(part * steps) for part in WINDOWS} if rescale else set()
    for step in range(1, steps + 1):
        probability, _, _ = run.step(settings)
        sizes.update(float(probability.mean()))
        spread.update(run.state.x)
        settings = _Settings(sizes.size, settings.spread)
        if step in ends:
            # the first window is on the way, and each spread changes what a step means
            settings = _Settings(sizes.size, spread.std)
            spread = Spread(features)
            sizes.restart()
        tell(step)
    return _Settings(sizes.settled, settings.spread)
