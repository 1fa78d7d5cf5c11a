"""normflows' reverse KL on the targets of ``targets``, at a given number of target evaluations.

    make .bench/torch/.installed
    .bench/torch/bin/python benchmarks/measure.py reverse_kl --names many_well gaussians --evaluations 2700000

A coupling spline flow with LU layers between, its base as wide as the target's search (``scale``), Adam with
a cosine to zero. The figures are those of ``targets``: weights of its own draws, and exact draws of the
target.
"""

from __future__ import annotations

import math
import time
from argparse import Namespace
from collections.abc import Iterator
from itertools import product

import kit
import torch

from diffeo import inference, targets
from measurements import Measurement
from measurements.targets import CASES, EXACT, modes, seen


def build(target: targets.Energy, asked: Namespace):
    """The flow, its base a fixed normal of the target's scale; and the counted target."""
    import normflows as nf

    D, counted = target.features, targets.Evaluator(target)
    flows = []
    for _ in range(asked.layers):
        spline = {"num_bins": asked.bins, "tail_bound": 3.0}
        flows.append(nf.flows.CoupledRationalQuadraticSpline(D, 2, asked.hidden, **spline))
        flows.append(nf.flows.LULinearPermute(D))
    widen = nf.flows.AffineConstFlow((D,))
    widen.s.data.fill_(math.log(target.scale))
    theirs = nf.distributions.Target()
    theirs.log_prob = counted.log_prob
    base = nf.distributions.DiagGaussian(D, trainable=False)
    return nf.NormalizingFlow(base, [*flows, widen], theirs), counted


def rows(asked: Namespace) -> Iterator[kit.Row]:
    for name, seed in product(asked.names, asked.seeds):
        torch.manual_seed(seed)
        target = CASES[name][0]()
        model, counted = build(target, asked)
        steps = asked.evaluations // asked.batch
        optimizer = torch.optim.Adam(model.parameters(), lr=asked.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        tick, cpu, skipped = time.monotonic(), time.process_time(), 0
        for _ in range(steps):
            optimizer.zero_grad()
            loss = model.reverse_kld(asked.batch)
            if torch.isfinite(loss):
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()
            else:
                skipped += 1
            schedule.step()
        seconds, cpu = time.monotonic() - tick, time.process_time() - cpu
        with torch.no_grad():
            x, log_q = model.sample(EXACT)
            weighted = inference.Importance(x, target.log_prob(x).double() - log_q.double())
        yield {
            "target": name,
            "seed": seed,
            "log Z": weighted.log_z,
            "off by": weighted.log_z - target.log_z,
            "ESS": weighted.ess,
            "evaluations": counted.evaluations,
            "skipped steps": skipped,
            "seconds": seconds,
            "CPU seconds": cpu,
            **seen(target, model.log_prob, seed),
            **modes(target, x),
        }


OPTIONS = {
    "--names": ["many_well", "gaussians"],
    "--evaluations": 2_700_000,
    "--batch": 512,
    "--layers": 6,
    "--hidden": 64,
    "--bins": 8,
    "--learning-rate": 1e-3,
}
MEASUREMENT = Measurement(__doc__, rows, {"seeds": ...}, OPTIONS, stands_on=lambda asked: ["normflows"])
