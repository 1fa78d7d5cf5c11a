"""normflows' reverse KL on the targets of ``targets.py``, at a given number of target evaluations.

    make .bench/torch/.installed
    .bench/torch/bin/python benchmarks/reverse_kl.py --names many_well gaussians --evaluations 2700000

A coupling spline flow with LU layers between, its base as wide as the target's search (``scale``), Adam with
a cosine to zero. The figures are those of ``targets.py``: weights of its own draws, and exact draws of the
target.
"""

from __future__ import annotations

import argparse
import math
import time

import normflows as nf
import torch

from diffeo import inference, targets

EXACT = 20_000


class Counted(nf.distributions.Target):
    """A target as normflows wants it, that counts its rows."""

    def __init__(self, target: targets.Energy):
        super().__init__()
        self.target, self.rows = target, 0

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        self.rows += len(z)
        return self.target.log_prob(z)


def build(target: targets.Energy, layers: int, hidden: int, bins: int) -> nf.NormalizingFlow:
    """The flow, its base a fixed normal of the target's scale."""
    D = target.features
    flows = []
    for _ in range(layers):
        flows += [
            nf.flows.CoupledRationalQuadraticSpline(D, 2, hidden, num_bins=bins, tail_bound=3.0),
            nf.flows.LULinearPermute(D),
        ]
    base = nf.distributions.DiagGaussian(D, trainable=False)
    widen = nf.flows.AffineConstFlow((D,))
    widen.s.data.fill_(math.log(target.scale))
    return nf.NormalizingFlow(base, [*flows, widen], Counted(target))


def run(target: targets.Energy, arguments: argparse.Namespace) -> None:
    torch.manual_seed(arguments.seed)
    model = build(target, arguments.layers, arguments.hidden, arguments.bins)
    steps = arguments.evaluations // arguments.batch
    optimizer = torch.optim.Adam(model.parameters(), lr=arguments.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    tick, cpu, skipped = time.monotonic(), time.process_time(), 0
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.reverse_kld(arguments.batch)
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
        exact = target.sample(EXACT, torch.Generator().manual_seed(100)).to(x)
        seen = inference.ForwardCheck(model.log_prob(exact), target.log_prob(exact), target.log_z)
    print(
        f"normflows {type(target).__name__}: log Z {weighted.log_z:.4f} ({target.log_z:.4f}), "
        f"ESS {weighted.ess:.3f}, forward ESS {seen.forward_ess:.2e}, "
        f"mean log q {seen.mean_log_prob:.2f}, forward KL {seen.forward_kl:.2f}, "
        f"{model.p.rows:,} evaluations, {skipped} steps skipped, {seconds:.0f} s, {cpu:.0f} CPU s",
        flush=True,
    )
    if isinstance(target, targets.GaussianMixture40):
        share = torch.bincount(target.nearest(x), minlength=40).double() / len(x) * 40
        print(
            f"modes: weights {float(share.min()):.2f} to {float(share.max()):.2f} of 1, "
            f"{int((share > 0.1).sum())} above 0.1"
        )


def main() -> None:
    kinds = {"many_well": targets.ManyWell, "gaussians": targets.GaussianMixture40}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", nargs="+", choices=kinds, default=list(kinds))
    parser.add_argument("--evaluations", type=int, default=2_700_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--bins", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.names:
        run(kinds[name](), arguments)


if __name__ == "__main__":
    main()
