"""Autoregressive sampling against its own ``log_prob``: NSF, 5 layers, hidden 64, 8 bins.

    python benchmarks/measure.py sampling [--features 8 64] [--batch 1024] [--rounds 15] --threads 2

Medians in milliseconds of runs in turns. ``full passes`` is the plain inverse by D masked passes, timed for
comparison; ``difference`` is the largest between the two inverses.
"""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Iterator

import kit
import torch

from diffeo import Flow
from diffeo.bijections import Autoregressive
from diffeo.nets import FullPasses
from diffeo.presets import NSF
from diffeo.testing import randomize_
from measurements import Measurement


def full_passes(flow: Flow) -> Flow:
    """The same flow, its autoregressive layers inverted the plain way: a network pass a column."""
    plain = copy.deepcopy(flow)
    for part in plain.modules():
        if isinstance(part, Autoregressive):
            kind = type(part.net)
            own = {"stepper": lambda net, *given: FullPasses(net, *given), "stack": lambda net, context: None}
            part.net.__class__ = type(f"Plain{kind.__name__}", (kind,), own)
    return plain


@torch.no_grad()
def rows(asked: Namespace) -> Iterator[kit.Row]:
    for features in asked.features:
        flow = randomize_(NSF(features=features, hidden=64).build().eval(), asked.seed, scale=0.02)
        plain, x = full_passes(flow), torch.randn(asked.batch, features)
        runs = {
            "log_prob": lambda flow=flow, x=x: flow.log_prob(x),
            "sample": lambda flow=flow: flow.sample(asked.batch),
            "full passes": lambda plain=plain: plain.sample(asked.batch),
        }
        times = kit.by_turns(runs, asked.rounds, fewer={"full passes": 3})
        ms = {name: 1e3 * taken[len(taken) // 2] for name, taken in times.items()}
        error = (flow.to_data(x) - plain.to_data(x)).abs().max().item()
        ratio = ms["sample"] / ms["log_prob"]
        yield {"D": features, "batch": asked.batch, **ms, "sample / log_prob": ratio, "difference": error}


OPTIONS = {"--features": [8, 64], "--batch": 1024}
MEASUREMENT = Measurement(__doc__, rows, {"seed": ..., "rounds": 15}, OPTIONS)
