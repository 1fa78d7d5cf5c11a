"""Independence Metropolis: a chain whose proposals are a flow's draws."""

from __future__ import annotations

import math
import time

import torch
from torch import Generator, Tensor

from diffeo.errors import ConfigError, DataError
from diffeo.flow import Flow
from diffeo.inference.chains import Chains
from diffeo.inference.importance import as_evaluator, propose
from diffeo.targets import Target


def independence_metropolis(
    flow: Flow,
    target: Target,
    *,
    chains: int = 4,
    num_draws: int = 1000,
    starts: int = 100,
    generator: Generator | None = None,
    batch_size: int = 4096,
) -> Chains:
    """Chains that leave the target unchanged, each proposal a fresh draw of the flow.

    Why: importance sampling with R-hat and ESS as diagnostics, for targets without gradients too. Where the
    flow is good nearly all proposals are taken and the draws are nearly independent; where a draw has far
    more weight than most, a chain stays there long, which R-hat shows. No step is local: what the flow
    cannot reach stays unreached. ``neural_transport`` can leave the flow's reach, with gradients.

    Formula: from x to x' with probability ``min(1, w(x') / w(x))``, ``w = target / flow``.

    Each chain starts at one of its own ``starts`` draws, chosen by weight. They are not shared, so that
    chains which found different peaks say so.

    Cost: one evaluation of the target, without gradient, and one of the flow's sampling pass a draw, all
    in large batches.

    Args:
        flow: of vectors, without context.
        target: or an ``Evaluator`` of one, which then counts.
        chains: how many, side by side.
        num_draws: of each chain.
        starts: proposals spent on each chain's starting point.
        generator: of the random numbers.
        batch_size: proposals at a time.

    Raises:
        ConfigError: for numbers below 1.
        DataError: when a chain finds no starting point of positive density.

    References: Tierney 1994, "Markov chains for exploring posterior distributions", section 2.3.3.

    Example:
        >>> import torch, diffeo
        >>> from diffeo.targets import FromTorch
        >>> flow = diffeo.presets.MAF(features=2).build()  # untrained: standard normal
        >>> target = FromTorch(lambda x: -0.6 * x.square().sum(-1))
        >>> found = independence_metropolis(flow, target, generator=torch.Generator().manual_seed(0))
        >>> found.x.shape, found.max_rhat < 1.01, found.min_ess > 2000
        (torch.Size([4, 1000, 2]), True, True)
    """
    if min(chains, num_draws, starts) < 1:
        raise ConfigError(
            f"chains, num_draws and starts must be at least 1, not {chains}, {num_draws} and {starts}."
        )
    begin = time.perf_counter()
    evaluate = as_evaluator(target)
    evaluations = evaluate.evaluations
    proposals = chains * (starts + num_draws)
    x, log_target, log_flow = propose(flow, evaluate, proposals, generator, batch_size)
    log_weights = (log_target - log_flow).reshape(starts + num_draws, chains)
    now = choose(log_weights[:starts].T, generator)  # row of each chain's present state
    draw = torch.rand(num_draws, chains, generator=generator, dtype=torch.float64, device=x.device)
    each = torch.arange(chains, device=x.device)
    states, accepted = [], []
    for step, uniform in enumerate(draw, starts):
        probability = (log_weights[step] - log_weights[now, each]).clamp_max(0.0).exp()
        now = torch.where(uniform < probability, step, now)
        states.append(now)
        accepted.append(probability)
    row = torch.stack(states, 1) * chains + each.unsqueeze(-1)
    return Chains(
        x[row],
        log_target[row],
        torch.stack(accepted).mean(0),
        evaluate.evaluations - evaluations,
        0,
        time.perf_counter() - begin,
    )


def choose(log_weights: Tensor, generator: Generator | None) -> Tensor:
    """For each chain one of its candidates, by weight: ``(chains, candidates)`` to ``(chains,)``.

    A chain all of whose candidates have weight zero is an error: it would never be left.
    """
    empty = (log_weights == -math.inf).all(1)
    if empty.any():
        raise DataError(
            f"{int(empty.sum())} of {len(log_weights)} chains found no starting point of positive density "
            f"among {log_weights.shape[1]} draws of the flow; fit the flow first, or allow more starts."
        )
    return torch.multinomial(log_weights.softmax(1), 1, generator=generator).squeeze(1)
