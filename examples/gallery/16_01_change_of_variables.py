"""A density pushed through a function.

A flow on the line is one increasing function `x = f(z)`. The density of z, the base, stands below; the
density of x stands at the left. The gray lines cut the base into ten strips of equal mass. Each line goes
up to the curve, turns there, and ends in the density of x.

The points between two lines below are the points between the same two lines at the left, so **every strip
keeps its mass, and only its width changes**. Where the curve is steep a strip comes out wide, and
therefore low: the valley. Where the curve is flat it comes out narrow, and therefore high: the two peaks.
Height is mass over width, `p(x) = p(z) / (dx/dz)`.

What is printed checks it: the mass of each strip on both sides, integrated from the base density there and
from `flow.log_prob` here.

To change: the numbers in `params`. The function stays increasing whatever they are, so what comes out is
always a density, nowhere negative and of area 1.

    python examples/gallery/16_01_change_of_variables.py
"""

from itertools import pairwise

import torch
from matplotlib import pyplot as plt

from diffeo import Flow, plots
from diffeo.bases import Normal
from diffeo.bijections import Pointwise
from diffeo.elementwise import MixtureCDF

# One scalar map with parameters of its own. This family is smooth, with six numbers for two components:
# shares (as logits), shifts of the centers, and how narrow they are (as logarithms).
bijection = Pointwise(MixtureCDF(components=2), (1,)).double()
params = torch.tensor([0.4, 0.0, -0.6, 0.9, 0.2, 0.6])
bijection.params.data.copy_(params)
flow = Flow(bijection, Normal((1,)).double())

plt.style.use(plots.STYLE)
fig, ax = plt.subplots(figsize=(4, 3.6))
plots.pushforward(flow, ax, limits=(-3, 3), strips=10)
ax.set_title("x = f(z)")
plots.save(fig, "16_01_change_of_variables.svg")

# The same strips by numerical integration. A flow's inverse is the generative direction, from z to x.
normal = torch.distributions.Normal(0.0, 1.0)
tail = normal.cdf(torch.tensor(-3.0, dtype=torch.float64))
edges = normal.icdf(torch.linspace(tail, 1 - tail, 11, dtype=torch.float64))
print("    z from       to     x from       to   slope  mass of z  mass of x")
for a, b in pairwise(edges):
    z = torch.linspace(a, b, 2001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        x_ends = flow.to_data(z[[0, -1]])
        x = torch.linspace(*x_ends[:, 0], 2001, dtype=torch.float64)[:, None]
        mass_z = torch.trapezoid(flow.base.log_prob(z).exp(), z[:, 0])
        mass_x = torch.trapezoid(flow.log_prob(x).exp(), x[:, 0])
    slope = (x[-1, 0] - x[0, 0]) / (b - a)
    print(f"{a:10.3f} {b:8.3f} {x[0, 0]:10.3f} {x[-1, 0]:8.3f} {slope:7.3f} {mass_z:10.6f} {mass_x:10.6f}")
