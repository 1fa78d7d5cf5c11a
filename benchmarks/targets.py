"""Densities with a known evidence, fitted by ``diffeo.fit_target``.

Many wells in 32 dimensions, forty Gaussians in the plane, and a twisted normal in 10 dimensions that is
only a NumPy function. Printed for each seed: log Z and its error, the effective part of the flow's draws,
and, as these cannot see modes that were dropped, the effective part seen from exact draws of the target and
the flow's mean log-density there.

    python benchmarks/targets.py --names many_well gaussians numpy --seeds 5
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

import diffeo
from diffeo import inference, presets, targets

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


def modes(flow: diffeo.Flow, target: targets.GaussianMixture40) -> tuple[float, float]:
    """The least and the greatest weight of a mode in the flow's own draws, in units of the exact one."""
    x = flow.sample(40_000, generator=torch.Generator().manual_seed(1))
    share = torch.bincount(target.nearest(x), minlength=40).double() / len(x) * 40
    return float(share.min()), float(share.max())


def run(name: str, seed: int, steps: int) -> dict[str, float]:
    make, fields = CASES[name]
    target = make()
    features = getattr(target, "features", 10)
    torch.manual_seed(seed)
    flow = presets.Tabular(features, **fields).build()
    tick, cpu = time.monotonic(), time.process_time()
    report = diffeo.fit_target(
        flow, target, start=getattr(target, "scale", 2.0), max_steps=steps, num_draws=EXACT, seed=seed
    )
    found = {
        "log Z": report.log_z,
        "error": report.log_z_error,
        "true": getattr(target, "log_z", 0.0),
        "ESS": report.ess,
        "Pareto k": report.pareto_k,
        "evaluations": report.evaluations,
        "with gradients": report.gradients,
        "seconds": time.monotonic() - tick,
        "CPU seconds": time.process_time() - cpu,
    }
    if isinstance(target, targets.Sampled):
        exact = target.sample(EXACT, torch.Generator().manual_seed(100 + seed))
        seen = inference.forward_check(flow, target, exact, target.log_z)
        found |= {
            "forward ESS": seen.forward_ess,
            "mean log q": seen.mean_log_prob,
            "forward KL": seen.forward_kl,
        }
    if isinstance(target, targets.GaussianMixture40):
        found["least mode"], found["greatest mode"] = modes(flow, target)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, list[dict[str, float]]] = {}
    for name in arguments.names:
        for seed in range(arguments.seeds):
            found = run(name, seed, arguments.steps)
            results.setdefault(name, []).append(found)
            print(
                name,
                seed,
                " ".join(f"{k} {v:.4g}" if abs(v) < 100 else f"{k} {v:.3f}" for k, v in found.items()),
                flush=True,
            )
        runs = results[name]
        off = sum(r["log Z"] - r["true"] for r in runs) / len(runs)
        absolute = sum(abs(r["log Z"] - r["true"]) for r in runs) / len(runs)
        print(
            f"| {name} | mean log Z off by {off:+.4f}, mean absolute {absolute:.4f} | ESS "
            f"{min(r['ESS'] for r in runs):.3f} to {max(r['ESS'] for r in runs):.3f} | "
            f"{math.fsum(r['seconds'] for r in runs) / len(runs):.0f} s |",
            flush=True,
        )
        if arguments.out is not None:
            arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
