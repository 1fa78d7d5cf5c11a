"""Neal's funnel by Hamiltonian Monte Carlo, through a flow and without one.

    python benchmarks/funnel_chains.py --features 10 100

A flow is fitted to the density alone, by reverse KL, then 8 chains of 500 draws run in its latent space;
beside them the same sampler without a flow, which adapts its step size and scales only. The flow is one
inverse autoregressive layer. Printed: the effective number of draws of the worst column out of 4,000, R-hat,
divergences, evaluations of the target by the chains and by the fit, their seconds, and the mean and
deviation of the column that sets the scale, which are 0 and 3.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser

import torch

from diffeo import Flow, ReverseKL, fit
from diffeo.bases import Normal
from diffeo.bijections import Reverse
from diffeo.inference import neural_transport
from diffeo.presets import IAF
from diffeo.targets import Evaluator, Funnel
from diffeo.train import Recipe

SIZES = {10: (32, 15_000), 100: (256, 30_000)}
"""Hidden units and steps, by dimension."""


def report(name: str, flow: Flow, features: int, seed: int, fit_evaluations: int, fit_seconds: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    found = neural_transport(flow, Funnel(features), generator=generator)
    first = found.flat()[:, 0]
    print(
        f"{features:4d} {name:6s} {found.min_ess:8.0f} {found.max_rhat:7.3f} {found.divergences:5d} "
        f"{found.evaluations:12,d} {fit_evaluations:12,d} {found.seconds:7.1f} {fit_seconds:7.1f} "
        f"{float(first.mean()):7.2f} {float(first.std()):6.2f}",
        flush=True,
    )


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("   D flow    min ESS   R-hat  div.     sampling      fitting    sec.     fit    mean     sd")
    for features in options.features:
        hidden, steps = SIZES[features]
        for seed in options.seeds:
            plain = Flow(Reverse(features), Normal((features,)))
            report("none", plain, features, seed, 0, 0.0)
            torch.manual_seed(seed)
            flow = IAF(features, layers=1, hidden=(hidden,)).build()
            target, begin = Evaluator(Funnel(features)), time.perf_counter()
            start = 3 * torch.randn(1024, features)  # sets the flow's first spread; no draws of the target
            recipe = Recipe(learning_rate=5e-3 if features < 50 else 3e-3, weight_decay=0.0)
            fit(
                flow,
                start,
                objective=ReverseKL(target, path=False),
                validation=0.0,
                max_steps=steps,
                batch_size=512,
                seed=seed,
                recipe=recipe,
            )
            seconds = time.perf_counter() - begin
            report("IAF", flow, features, seed, target.evaluations, seconds)


if __name__ == "__main__":
    main()
