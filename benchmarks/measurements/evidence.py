"""Whether the evidence that ``diffeo.fit_target`` gives is right, or doubted, or neither; and its errors.

    python benchmarks/measure.py evidence --names two spike known --seeds 0 1 2 3 4

``two``: two equal masses 6 apart, one of them 1 to 20 times as narrow. ``spike``: a normal that holds nine
tenths of the mass, 1.5 to 50 times as narrow as the one it stands in. Both in 2, 5 and 10 dimensions, with
log Z = 0. ``known``: ten integrals with closed forms. A fit is *right* within three of its own errors or 0.01
nats, *doubted* where it is not and says so, *neither* where it is not and does not. ``trusted`` counts the
fits without a doubt, ``z`` is the root mean square of log Z's distance in its own errors over these,
``worst`` the largest.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Iterator
from itertools import product

import kit
import torch
from torch import Tensor

import diffeo
from diffeo import presets, targets
from measurements import Measurement

WIDTHS = (1.0, 1.5, 2.0, 3.0, 5.0, 20.0)


def normal(x: Tensor, at: float, scale: float) -> Tensor:
    """The log-density of a normal that is off in the first column."""
    center = torch.zeros(x.shape[-1], dtype=x.dtype)
    center[0] = at
    return (-0.5 * ((x - center) / scale).square() - 0.5 * math.log(2 * math.pi) - math.log(scale)).sum(-1)


def mixed(share: float, apart: float, narrow: float) -> Callable[[Tensor], Tensor]:
    """A normal, and at a distance one that is so many times as narrow and has this share of the mass."""

    def log_prob(x: Tensor) -> Tensor:
        wide = math.log(1 - share) + normal(x, -apart / 2, 1)
        return torch.logaddexp(wide, math.log(share) + normal(x, apart / 2, 1 / narrow))

    return log_prob


def half(x: Tensor) -> Tensor:
    return torch.where(x[:, 0] > 0, normal(x, 0, 1) + math.log(2), -math.inf)


def student(x: Tensor) -> Tensor:
    return torch.distributions.StudentT(5.0).log_prob(x).sum(-1)


def logistic(x: Tensor) -> Tensor:
    return (-x - 2 * torch.nn.functional.softplus(-x)).sum(-1)


def gamma(x: Tensor) -> Tensor:
    """Three gamma variables of shape 3, as their logarithms."""
    return (3 * x - x.exp() - math.log(2)).sum(-1)


def correlated(x: Tensor) -> Tensor:
    """A normal in which each column goes on from the one before; scales from 0.01 to 100."""
    x = x / torch.logspace(-2, 2, x.shape[-1], dtype=x.dtype)
    steps = torch.cat([x[:, :1], (x[:, 1:] - 0.9 * x[:, :-1]) / math.sqrt(0.19)], -1)
    rest = (x.shape[-1] - 1) * 0.5 * math.log(0.19)
    return normal(steps, 0, 1) - rest


def closed() -> dict[str, tuple[object, int, float]]:
    """Each target, its dimensions and where to look."""
    function = targets.FromTorch
    return {
        "funnel": (targets.Funnel(10), 10, 3.0),
        "banana": (targets.Banana(2), 2, 10.0),
        "forty": (targets.GaussianMixture40(), 2, 40.0),
        "wells": (targets.ManyWell(8), 8, 2.0),
        "half": (function(half), 3, 2.0),
        "student": (function(student), 3, 2.0),
        "logistic": (function(logistic), 4, 2.0),
        "gamma": (function(gamma), 3, 2.0),
        "two": (function(mixed(0.5, 6, 2)), 5, 2.0),
        "correlated": (function(correlated), 5, 2.0),
    }


def cases(names: list[str]) -> Iterator[tuple[str, object, int, float]]:
    for name, features, narrow in product(names, (2, 5, 10), (*WIDTHS, 50.0)):
        if name == "two" and narrow in WIDTHS:
            log_prob = mixed(0.5, 6, narrow)
        elif name == "spike" and narrow > 1:
            log_prob = mixed(0.9, 1, narrow)
        else:
            continue
        yield f"{name}, {narrow:g}, D = {features}", targets.FromTorch(log_prob), features, 2.0
    if "known" in names:
        yield from ((name, *case) for name, case in closed().items())


def rows(asked: Namespace) -> Iterator[kit.Row]:
    for name, target, features, start in cases(asked.names):
        found = []
        for seed in asked.seeds:
            torch.manual_seed(seed)
            flow = presets.Tabular(features, layers=3, hidden=32).build()
            fitted = diffeo.fit_target(flow, target, start=start, max_steps=asked.steps, seed=seed)
            found.append((fitted.log_z - (getattr(target, "log_z", 0.0) or 0.0), fitted))
        right = [abs(off) < max(3 * fitted.log_z_error, 0.01) for off, fitted in found]
        doubted = [bool(fitted.doubts) for _, fitted in found]
        scores = [off / fitted.log_z_error for off, fitted in found if fitted.trusted] or [math.nan]
        yield {
            "target": name,
            "right": sum(right),
            "doubted": sum(d and not r for r, d in zip(right, doubted, strict=True)),
            "neither": sum(not (r or d) for r, d in zip(right, doubted, strict=True)),
            "trusted": len(found) - sum(doubted),
            "off by": max((off for off, _ in found), key=abs),
            "z": math.sqrt(sum(s * s for s in scores) / len(scores)),
            "worst": max(scores, key=abs),
            "seconds": sum(sum(fitted.seconds.values()) for _, fitted in found) / len(found),
        }


OPTIONS = {"--names": (["two", "spike", "known"], "of two, spike, known"), "--steps": 1000}
MEASUREMENT = Measurement(__doc__, rows, {"seeds": [0, 1, 2, 3, 4]}, OPTIONS)
