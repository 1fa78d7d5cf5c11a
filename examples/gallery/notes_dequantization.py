"""Whole numbers need dequantization.

A column of counts takes a few values many times over. A density may put a spike on each of them, and the
narrower and higher the spike the better its likelihood: there is no best one, and the held-out rows cannot
warn, since they sit on the same spikes. What comes out says nothing about the counts, and its nats can be
compared with nothing.

Dequantization spreads every whole number evenly over its cell, one unit wide. The density of that is
bounded, and its logarithm, averaged over a cell, is a lower bound on the log of the cell's *mass* (Jensen's
inequality): a number of the discrete world, at most minus the entropy of the counts. `fit_table` does this
for every column of whole numbers; here it is done by hand, with the same bijection both times.

The left panel has held-out nats as training goes, which are a sample's; the dashed line is what the exact
masses score on average. The middle panel shows what the two densities look like, around their values. The
right one has the exact masses as bars, and those that the dequantized flow gives. The last lines printed
weigh the bound by the exact masses, so that nothing of it is chance. More draws from each cell make it
tighter where the density is steep inside a cell; here it is nearly flat, and one will do.

    python examples/gallery/notes_dequantization.py
"""

import math

import matplotlib.pyplot as plt
import torch

import diffeo
from diffeo import plots
from diffeo.bases import Normal
from diffeo.bijections import Chain, Pointwise, Standardize
from diffeo.elementwise import RationalQuadratic
from diffeo.tables import Schema, Table

values = torch.arange(13)
bumps = torch.distributions.Binomial(12, torch.tensor([0.25, 0.9])).log_prob(values[:, None].float()).exp()
mass = bumps @ torch.tensor([0.6, 0.4])
negative_entropy = float((mass * mass.log()).sum())
counts = mass.multinomial(8000, replacement=True, generator=torch.Generator().manual_seed(0))[:, None]
rows, fresh = counts[:6000].double(), counts[6000:].double()


def bijection():
    """Three splines, one after the other, with a general position for the data's own scale."""
    return Chain([Standardize((1,)), *(Pointwise(RationalQuadratic(32, 4.0), (1,)) for _ in range(3))])


table = Table.from_columns({"count": rows[:, 0].long().numpy()})
encoding = Schema.infer(table).encoding(table)  # sees whole numbers, and adds noise to them
flows = {
    "as they are": diffeo.Flow(bijection(), Normal((1,))),
    "dequantized": diffeo.Flow(bijection(), Normal((1,)), encoding),
}
settings = diffeo.train.OptimizerSettings(learning_rate=2e-2, patience=1.0)

plt.style.use(plots.STYLE)
fig, (nats, densities, masses) = plt.subplots(1, 3, figsize=(10, 3.2))
steps = torch.logspace(-4, math.log10(0.5), 60)  # fine next to the values, where spikes are to be expected
x = (values[:-1, None] + torch.cat([steps, 1 - steps.flip(0)])).reshape(-1, 1)
print(f"exact masses: {negative_entropy:.4f} nats")
for (name, flow), color in zip(flows.items(), ("orange", "blue"), strict=True):
    report = diffeo.fit(flow, rows, max_steps=2000, batch_size=512, optimizer=settings)
    curve = [(p.step, p.valid) for p in report.curves if p.step]
    nats.plot(*zip(*curve, strict=True), color=plots.COLORS[color], label=name)
    quarter, end = curve[len(curve) // 4], curve[-1]
    print(f"{name}: {quarter[1]:.3f} held-out nats after {quarter[0]} steps, {end[1]:.3f} after {end[0]}")
    plain = flow.without_encoding()
    with torch.no_grad():
        if flow.encoding is None:
            density = flow.log_prob(x).exp()
            print(f"  highest density met: {flow.log_prob(values[:, None].float()).exp().max():.3g}")
        else:  # the encoding standardizes too: back to the data's own scale
            column = encoding.columns[0]
            density = plain.log_prob((x - column.loc) / column.scale).exp() / column.scale
    densities.semilogy(x[:, 0], density, color=plots.COLORS[color], linewidth=1)

masses.bar(values.numpy(), mass.numpy(), width=1.0, color=plots.COLORS["gray"], alpha=0.35, label="exact")
with torch.no_grad():
    for draws in (1, 16, 256):
        encoding.num_draws = draws
        bound = flows["dequantized"].log_prob(values[:, None].double())
        print(f"dequantized, {draws} draws: {float(mass @ bound.float()):.4f} nats over the exact masses")
masses.plot(values, bound.exp(), "o", markersize=3.5, color=plots.COLORS["blue"], label="dequantized flow")
nats.axhline(negative_entropy, color=plots.COLORS["ink"], linestyle="--", linewidth=0.8, label="- entropy")
nats.set(xlabel="step", ylabel="held-out log-likelihood, nats", xscale="log")
nats.legend()
densities.set(xlabel="x", ylabel="density", xlim=(2, 6), ylim=(1e-4, None))
masses.set(xlabel="x", ylabel="mass", ylim=(0, 0.21))
masses.legend()
plots.save(fig, "notes_dequantization.svg")
