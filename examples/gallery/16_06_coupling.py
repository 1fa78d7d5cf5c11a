"""Coupling: one half passes and says what becomes of the other.

The upper drawings are one layer, both ways. `x₁` passes as it is. A net looks at it and answers with the
parameters of increasing functions `f`, one for each column of `x₂`: here, where the knots of splines lie.
The way back needs no inverse of the net. `x₁` came through unchanged, so the same net gives the same
functions, and the layer applies `f⁻¹`.

Below are Jacobians of such layers with 8 columns, measured by autograd at one point. Color says how large
the derivative of each output by each input is; blank cells are exactly zero. One layer is **lower
triangular**: ones for what passes, the slopes of `f` on the rest of the diagonal, and below it a block that
is the net's doing. The determinant of a triangular matrix is the product of its diagonal, so `log_det` is a
sum of eight logarithms, and nobody ever computes the block. The inverse has the same pattern.

One layer leaves half of the columns as they were. Swap the halves and put another layer behind: less is
blank. With three layers every output depends on every input. The matrix is full then, but its
log-determinant still is the sum of the layers', and what is printed compares that with a dense determinant
of the measured matrix.

To change: `mask`, which need not be half and half; the family, `Affine()` as in RealNVP; and what stands
between the layers, `Permute(torch.randperm(D))`, or `LU(D)` as in Glow.

    python examples/gallery/16_06_coupling.py
"""

import torch
from matplotlib import pyplot as plt

from diffeo import plots
from diffeo.bijections import Chain, Coupling, Inverse, Permute
from diffeo.elementwise import RationalQuadratic
from diffeo.nets import MLP

torch.manual_seed(0)
D = 8
mask = [True] * 4 + [False] * 4  # True passes unchanged
family = RationalQuadratic(bins=8, bound=4.0)


def coupling():
    net = MLP(sum(mask), (D - sum(mask)) * family.num_params, hidden=(32, 32))
    for weight in net.parameters():
        # A new net's last layer is zero, so that a flow starts as the identity. Any weights do for this.
        weight.data += 0.2 * torch.randn_like(weight)
    return Coupling(mask, net, family).double()


def diagram(ax, names, function, title):
    """The layer's wiring, from left to right: the half that passes is above."""
    line = {"arrowstyle": "-|>", "color": plots.COLORS["ink"], "shrinkA": 0, "shrinkB": 0}
    frame = {"boxstyle": "round", "facecolor": "none", "edgecolor": plots.COLORS["orange"]}
    passing, along = ((0.4, 2), (5.6, 2)), (((0.4, 0), (2.6, 0)), ((3.4, 0), (5.6, 0)))
    for start, end in (passing, *along, ((3, 2), (3, 1.35)), ((3, 0.75), (3, 0.35))):
        ax.annotate("", end, start, arrowprops=line)
    for place, text in (((3, 1.05), "net"), ((3, 0), function)):
        ax.text(*place, text, ha="center", va="center", bbox=frame)
    for place, text in zip(((0, 2), (0, 0), (6, 2), (6, 0)), names, strict=True):
        ax.text(*place, text, ha="center", va="center", fontsize=11)
    ax.set(xlim=(-0.4, 6.4), ylim=(-0.5, 2.4), title=title)
    ax.set_axis_off()


one, swap = coupling(), Permute([4, 5, 6, 7, 0, 1, 2, 3])
maps = {
    "one layer": one,
    "its inverse": Inverse(one),
    "two, and a swap": Chain([one, swap, coupling()]),
    "three layers": Chain([one, swap, coupling(), swap, coupling()]),
}
plt.style.use(plots.STYLE)
fig, axes = plt.subplot_mosaic("aabb;cdef", figsize=(11, 5), height_ratios=(1, 1.5))
diagram(axes["a"], ("x₁", "x₂", "z₁", "z₂"), "f", "forward: data to latent")
diagram(axes["b"], ("z₁", "z₂", "x₁", "x₂"), "f⁻¹", "inverse: latent to data")

point = torch.randn(D, dtype=torch.float64)
for place, (name, bijection) in zip("cdef", maps.items(), strict=True):
    ax = plots.jacobian(lambda x, b=bijection: b(x)[0], point, axes[place])
    ax.set_title(name)
    matrix = torch.autograd.functional.jacobian(lambda x, b=bijection: b(x)[0], point)
    dense, summed = matrix.slogdet().logabsdet, bijection(point)[1]
    print(
        f"{name}: {int((matrix == 0).sum())} of {D * D} entries are zero, "
        f"log_det {summed:.6f} nats, of the dense matrix {dense:.6f}"
    )
x = torch.randn(1000, D, dtype=torch.float64)
print(f"there and back, 1000 points: off by at most {(one.inverse(one(x)[0])[0] - x).abs().max():.0e}")
plots.save(fig, "16_06_coupling.svg")
