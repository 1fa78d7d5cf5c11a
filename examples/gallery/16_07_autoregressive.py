"""Autoregressive: all columns at once one way, one after the other the other way.

Output `d` depends on inputs 1 to `d`: a masked net sees all columns and gives the parameters of every
column in **one pass**. The Jacobian is lower triangular, and so is that of the inverse. But the inverse
cannot be had at once. What becomes of column `d` depends on the columns before it, and these have to be
found first.

The plain way of doing it is one full pass of the net for every column, of which all but one column's
answers are thrown away: D times the work. Yet when a column becomes known, it completes the inputs of a
slice of the hidden units and of no others. These are computed, and then the next column's parameters can
be. The D slices together are **one pass's work**. What remains is that they come one after the other, each
of them small.

Right, CPU time for 512 rows, medians of nine runs. In PyTorch every slice is several small operations; the
library's compiled kernel does all of them in one call. Times are the machine's own, ratios hold better.

An inverse autoregressive flow (IAF) is the same layer turned round, `Inverse(layer)`: drawing from it takes
one pass, and the density of a given point takes the columns one after the other. The last lines printed
compare the two.

To change: the numbers of columns, `hidden`, `rows`.

    python examples/gallery/16_07_autoregressive.py
"""

import statistics
import time

import torch
from matplotlib import pyplot as plt

from diffeo import plots
from diffeo.bijections import Autoregressive, Inverse
from diffeo.elementwise import Affine
from diffeo.nets import MADE, FullPasses

family, rows = Affine(), 512


class InPyTorch(MADE):
    """The same net. The kernels take MADE itself only, and leave a subclass to PyTorch."""


class ByFullPasses(MADE):
    """The same net, inverted the plain way."""

    def stepper(self, context, batch_shape):
        return FullPasses(self, context, batch_shape)


def layer(kind, features):
    torch.manual_seed(0)
    net = kind(features, family.num_params, hidden=(128, 128))
    for weight in net.parameters():
        # A new net's last layer is zero, so that a flow starts as the identity. Any weights do for this.
        weight.data += 0.05 * torch.randn_like(weight)
    return Autoregressive(net, family)


@torch.no_grad()
def milliseconds(run, x, repeats=9):
    spent = []
    for _ in range(repeats + 2):  # the first two do not count
        start = time.process_time()
        run(x)
        spent.append(1e3 * (time.process_time() - start))
    return statistics.median(spent[2:])


plt.style.use(plots.STYLE)
fig, axes = plt.subplots(1, 3, figsize=(11, 3.2), width_ratios=(1, 1, 1.3))
small = layer(MADE, 10)
for ax, title, bijection in zip(axes, ("forward", "inverse"), (small, Inverse(small)), strict=False):
    plots.jacobian(lambda x, b=bijection: b(x)[0], torch.randn(10), ax)
    ax.set_title(title)

sizes = (2, 4, 8, 16, 32, 64)
ways = {
    "inverse, D full passes": (ByFullPasses, "inverse", "o-"),
    "inverse, one pass's work, in PyTorch": (InPyTorch, "inverse", "s-"),
    "forward, one pass, in PyTorch": (InPyTorch, "forward", "^-"),
    "inverse, in the kernel": (MADE, "inverse", "s--"),
    "forward, in the kernel": (MADE, "forward", "^--"),
}
colors = dict(zip(ways, ("orange", "blue", "gray", "blue", "gray"), strict=True))
print(f"{'milliseconds of CPU time, D =':<38}" + "".join(f"{size:8}" for size in sizes))
for name, (kind, direction, marks) in ways.items():
    times = [milliseconds(getattr(layer(kind, size), direction), torch.randn(rows, size)) for size in sizes]
    axes[2].plot(sizes, times, marks, markersize=4, color=plots.COLORS[colors[name]], label=name)
    print(f"{name:<38}" + "".join(f"{t:8.2f}" for t in times))
axes[2].set_xscale("log", base=2)
axes[2].set_yscale("log")
axes[2].set(xlabel="D, columns", ylabel=f"CPU time for {rows} rows, ms", xticks=sizes, xticklabels=sizes)
axes[2].legend(fontsize=7)
plots.save(fig, "16_07_autoregressive.svg")

z = torch.randn(rows, 64)
with torch.no_grad():
    x, plain = (layer(kind, 64).inverse(z)[0] for kind in (MADE, ByFullPasses))
print(f"the two inverses differ by at most {(x - plain).abs().max():.0e}")
for name, bijection in (("MAF", layer(MADE, 64)), ("IAF", Inverse(layer(MADE, 64)))):
    density, draw = milliseconds(bijection.forward, z, 99), milliseconds(bijection.inverse, z, 99)
    print(f"{name}, D = 64: density {density:.2f} ms, samples {draw:.2f} ms")
