"""Densities with a known evidence, fitted by ``diffeo.fit_target``.

    python benchmarks/measure.py targets --names many_well gaussians numpy --seeds 0 1 2 3 4

Many wells in 32 dimensions, forty Gaussians in the plane, and a twisted normal in 10 dimensions that is
only a NumPy function. For each seed: log Z, its error and how far it is off, the effective part of the flow's
draws, and, as these cannot see modes that were dropped, the effective part seen from exact draws of the
target and the flow's mean log-density there. Of the Gaussians also the least and greatest weight of a mode
in the flow's own draws, in units of the exact one.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from itertools import product

import kit
import numpy as np
import torch
from torch import Tensor

import diffeo
from diffeo import inference, presets, targets
from measurements import Measurement

EXACT = 20_000


def twisted(x: np.ndarray) -> np.ndarray:
    """A normalized banana in 10 dimensions, in NumPy: its own gradient is nobody's business."""
    bent = x[:, 1] - 0.5 * (x[:, 0] ** 2 - 4)
    squares = x[:, 0] ** 2 / 4 + bent**2 + (x[:, 2:] ** 2).sum(-1)
    return -0.5 * squares - 5 * np.log(2 * np.pi) - np.log(2)


CASES = {
    "many_well": (lambda: targets.ManyWell(32), {"layers": 2, "hidden": 64, "marginal": 32}),
    "gaussians": (lambda: targets.GaussianMixture40(), {"layers": 4, "hidden": 64, "bins": 16}),
    "numpy": (lambda: targets.FromNumPy(twisted), {"layers": 4, "hidden": 64}),
}


def modes(target: object, x: Tensor) -> kit.Row:
    """The weights of modes among these draws."""
    if not isinstance(target, targets.GaussianMixture40):
        return {}
    share = torch.bincount(target.nearest(x), minlength=40).double() / len(x) * 40
    return {"least mode": float(share.min()), "greatest mode": float(share.max())}


def seen(target: object, log_prob: Callable[[Tensor], Tensor], seed: int) -> kit.Row:
    """What exact draws of the target say of a flow, where there are any."""
    if not isinstance(target, targets.Sampled):
        return {}
    exact = target.sample(EXACT, torch.Generator().manual_seed(100 + seed))
    with torch.no_grad():
        found = inference.ForwardCheck(log_prob(exact), target.log_prob(exact), target.log_z)
    figures = {"forward ESS": found.forward_ess, "mean log q": found.mean_log_prob}
    return {**figures, "forward KL": found.forward_kl}


def rows(asked: Namespace) -> Iterator[kit.Row]:
    for name, seed in product(asked.names, asked.seeds):
        make, fields = CASES[name]
        target = make()
        torch.manual_seed(seed)
        flow = presets.Tabular(getattr(target, "features", 10), **fields).build()
        start, cpu = getattr(target, "scale", 2.0), time.process_time()
        report = diffeo.fit_target(
            flow, target, start=start, max_steps=asked.steps, num_draws=EXACT, seed=seed
        )
        cpu = time.process_time() - cpu
        yield {
            "target": name,
            "seed": seed,
            "log Z": report.log_z,
            "error": report.log_z_error,
            "off by": report.log_z - getattr(target, "log_z", 0.0),
            "ESS": report.ess,
            "Pareto k": report.pareto_k,
            "evaluations": report.evaluations,
            "with gradients": report.gradients,
            "seconds": sum(report.seconds.values()),
            "CPU seconds": cpu,
            **seen(target, flow.log_prob, seed),
            **modes(target, flow.sample(40_000, generator=torch.Generator().manual_seed(1))),
        }


OPTIONS = {"--names": (list(CASES), f"of {', '.join(CASES)}"), "--steps": 3000}
MEASUREMENT = Measurement(__doc__, rows, {"seeds": [0, 1, 2, 3, 4]}, OPTIONS)
