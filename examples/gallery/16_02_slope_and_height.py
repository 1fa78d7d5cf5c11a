"""The slope decides the height.

Three functions of one family, `x = z + (a/2) sin(2z)`, which differ in their parameter a alone. Above, the
function: five intervals of z, all of the same width, and what becomes of them in x. In the middle, the
slope dx/dz. Below, the density that comes out, `p(x) = p(z) / (dx/dz)`, with the base density dashed and,
in gray, the histogram of samples `f(z)`, which knows nothing of the formula.

With a = 0 the slope is 1 everywhere and the base stays what it is. With a = 0.6 the function is steep in
the middle, where most of the base's mass is: it is pulled apart and piles up where the function is flat, so
one peak becomes two. With a = -0.6 it is flat in the middle, and the peak grows to 1 / 0.4 of its height.
**A parameter moves the slope, the slope moves the density**: this is all that training a flow does.

The slope here is taken by autograd. Layers of a flow come with theirs, as the second value they return. To
change: a, which must stay between -1 and 1. Beyond, the slope is negative somewhere: two z would share
one x, and the formula would be wrong.

    python examples/gallery/16_02_slope_and_height.py
"""

import torch
from matplotlib import pyplot as plt

from diffeo import plots

base = torch.distributions.Normal(0.0, 1.0)
z = torch.linspace(-3.2, 3.2, 2001, requires_grad=True)
marks = torch.linspace(-2.5, 2.5, 6)  # the ends of the five intervals
torch.manual_seed(0)
draws = base.sample((200_000,))


def f(z, a):
    return z + a / 2 * torch.sin(2 * z)


plt.style.use(plots.STYLE)
fig, axes = plt.subplots(3, 3, figsize=(7.5, 6.2), sharex="row", sharey="row", height_ratios=(3, 1.3, 2))
for a, (above, middle, below) in zip((0.0, 0.6, -0.6), axes.T, strict=True):
    x = f(z, a)
    (slope,) = torch.autograd.grad(x.sum(), z)
    density = base.log_prob(z).exp() / slope
    x, at, p = x.detach(), z.detach(), density.detach()

    above.plot(at, x, color=plots.COLORS["ink"])
    for i in range(5):
        here, there = marks[i : i + 2], f(marks[i : i + 2], a)
        shade = {"alpha": 0.5 if i % 2 == 0 else 0.25, "linewidth": 0}
        above.fill_between(here, -3.7, -3.4, color=plots.COLORS["blue"], **shade)
        above.fill_betweenx(there, -3.7, -3.4, color=plots.COLORS["orange"], **shade)
    for m in marks:
        above.plot([m, m, -3.4], [-3.4, f(m, a), f(m, a)], color=plots.COLORS["gray"], linewidth=0.6)
    middle.plot(at, slope, color=plots.COLORS["purple"])
    middle.axhline(1, color=plots.COLORS["gray"], linewidth=0.6)
    pieces = torch.histogram(f(draws, a), bins=80, range=(-3.2, 3.2))
    below.stairs(
        pieces.hist / len(draws) / 0.08, pieces.bin_edges, fill=True, color=plots.COLORS["gray"], alpha=0.3
    )
    below.plot(at, base.log_prob(at).exp(), "--", color=plots.COLORS["blue"], linewidth=0.9)
    below.plot(x, p, color=plots.COLORS["orange"])
    above.set(title=f"a = {a:g}", xlabel="z", xlim=(-3.7, 3.3), ylim=(-3.7, 3.3))
    middle.set(xlabel="z", xlim=(-3.7, 3.3), ylim=(0, 2))
    below.set(xlabel="x", xlim=(-3.3, 3.3), ylim=(0, 1.05))

    # Between the middle two marks (-0.5, 0.5): the width of x times the mean height is the base's mass.
    inside = at.abs() <= 0.5
    mass = torch.trapezoid(p[inside], x[inside])
    print(
        f"a = {a:4.1f}: z in (-0.5, 0.5), slope {slope[1000]:.2f} at 0; x as wide as "
        f"{2 * f(torch.tensor(0.5), a):.3f}, height {p[1000]:.3f} at 0, mass {mass:.4f}"
    )
for ax, label in zip(axes[:, 0], ("x", "slope dx/dz", "density of x"), strict=True):
    ax.set_ylabel(label)
plots.save(fig, "16_02_slope_and_height.svg")
