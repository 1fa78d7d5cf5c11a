"""Two densities of the plane, by an i-ResNet.

An invertible residual network is a stack of `z = x + g(x)`, where each `g` is a free-form net that
**contracts**: it brings any two points nearer to each other. That alone makes every block invertible, with
no halves, no order and no masks. The price is in each block's strength, for it can stretch the plane by
less than a factor of 2, so many are stacked. Sampling finds each `x` as a fixed point; the log-determinant
of two columns is computed exactly.

Left the data, in the middle samples of the fitted flow, right its density. The checkerboard is hard for any
flow, since a continuous map cannot tear: what should be sharp edges are narrow slopes, and thin bridges
join what should be apart.

These toys know their own density, so that what is printed is an absolute grade: the mean difference of the
two log-densities on fresh points estimates the Kullback-Leibler divergence from the truth, which is zero at
best. The page of results on toys has the same preset trained for longer.

To change: the names, any of `diffeo.targets.TOYS`; `layers`; `max_steps`.

    python examples/gallery/16_11_iresnet_densities.py
"""

import torch
from matplotlib import pyplot as plt

import diffeo
from diffeo import plots, presets
from diffeo.targets import TOYS

plt.style.use(plots.STYLE)
fig, axes = plt.subplots(2, 3, figsize=(6.6, 4.5))
for row, name in zip(axes, ("checkerboard", "2spirals"), strict=True):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    toy = TOYS[name]
    flow = presets.IResNet(features=2, layers=16).build()
    report = diffeo.fit(flow, toy.sample(50_000, generator), max_steps=600, batch_size=512)

    fresh = toy.sample(20_000, generator)
    with torch.no_grad():
        gaps = toy.log_prob(fresh) - flow.log_prob(fresh)
    error = gaps.std() / len(fresh) ** 0.5
    print(f"{name}: the entropy is {toy.entropy:.3f} nats")
    print(f"  {report.steps} steps: {gaps.mean():.3f} ± {error:.3f} nats from the truth")

    plots.samples(toy.sample(2000, generator), row[0], limits=4.2)
    plots.samples(flow.sample(2000, generator=generator), row[1], limits=4.2)
    plots.density(flow, row[2], limits=4.2, n=150)
    row[0].set(ylabel=f"{name}\nx₂")
for ax, title in zip(axes[0], ("data", "samples of the flow", "its density"), strict=True):
    ax.set_title(title)
for ax in axes[1]:
    ax.set_xlabel("x₁")
plots.save(fig, "16_11_iresnet_densities.svg")
