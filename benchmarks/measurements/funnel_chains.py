"""Neal's funnel by Hamiltonian Monte Carlo, through a flow and without one.

    python benchmarks/measure.py funnel_chains --features 10 100

A flow is fitted to the density alone, by reverse KL, then 8 chains of 500 draws run in its latent space;
beside them the same sampler without a flow, which adapts its step size and scales only. The flow is one
inverse autoregressive layer. ``min ESS``: the effective number of draws of the worst column out of 4,000;
evaluations of the target and seconds by the chains and by the fit; mean and deviation of the column that
sets the scale, which are 0 and 3.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from itertools import product

import kit
import torch

from diffeo import Flow, ReverseKL, fit
from diffeo.bases import Normal
from diffeo.bijections import Reverse
from diffeo.inference import neural_transport
from diffeo.presets import IAF
from diffeo.targets import Evaluator, Funnel
from diffeo.train import OptimizerSettings
from measurements import Measurement

SIZES = {10: (32, 15_000), 100: (256, 30_000)}
"""Hidden units and steps, by dimension."""


def chains(name: str, flow: Flow, features: int, seed: int, **fitted: float) -> kit.Row:
    found = neural_transport(flow, Funnel(features), generator=torch.Generator().manual_seed(seed))
    first = found.flat()[:, 0]
    return {
        "D": features,
        "flow": name,
        "seed": seed,
        "min ESS": found.min_ess,
        "R-hat": found.max_rhat,
        "divergences": found.divergences,
        "evaluations, chains": found.evaluations,
        "seconds, chains": found.seconds,
        **fitted,
        "mean": float(first.mean()),
        "deviation": float(first.std()),
    }


def rows(asked: Namespace) -> Iterator[kit.Row]:
    for features, seed in product(asked.features, asked.seeds):
        hidden, steps = SIZES[features]
        yield chains("none", Flow(Reverse(features), Normal((features,))), features, seed)
        torch.manual_seed(seed)
        flow = IAF(features, layers=1, hidden=(hidden,)).build()
        target, begin = Evaluator(Funnel(features)), time.perf_counter()
        start = 3 * torch.randn(1024, features)  # sets the flow's first spread; no draws of the target
        settings = OptimizerSettings(learning_rate=5e-3 if features < 50 else 3e-3, weight_decay=0.0)
        steps = {"max_steps": asked.steps or steps, "batch_size": 512, "validation": 0.0}
        fit(flow, start, objective=ReverseKL(target, path=False), seed=seed, optimizer=settings, **steps)
        fitted = {"evaluations, fit": target.evaluations, "seconds, fit": time.perf_counter() - begin}
        yield chains("IAF", flow, features, seed, **fitted)


OPTIONS = {"--features": list(SIZES), "--steps": (0, "in place of the size's own")}
MEASUREMENT = Measurement(__doc__, rows, {"seeds": ...}, OPTIONS)
