"""A residual layer of two sides.

Four columns x1 and four columns x2. First x1 is moved by a net of x2, then x2 by a net of the *moved* x1:
`y1 = x1 + f1(x2)`, `y2 = x2 + f2(y1)`. So every column changes in one layer, and nothing is asked of the
nets, for to go back they need not be inverted, only subtracted, in the other order: `x2 = y2 - f2(y1)`,
`x1 = y1 - f1(x2)`.

The pictures are Jacobians at one point, by autograd; blank entries are exactly zero. Above, forward: each
half-step is triangular with ones on its diagonal, so its determinant is 1. Their product fills up and is
triangular no more, but **its determinant is still 1 times 1**: the layer keeps volume, whatever its nets
are. Only the block of y1 against x1 stays bare, since y1 has seen no other column of x1. Below, the way
back: the second half-step is undone first, then the first, and it is x2 against y2 that stays bare.

To change: the nets and their sizes, or the mask: True for the columns of x1. A layer that keeps volume can
move density but not concentrate it, which is why flows of such layers have scalings between them.

    python examples/gallery/16_08_residual.py
"""

import torch
from matplotlib import pyplot as plt

from diffeo import plots
from diffeo.bijections import AdditiveResidual
from diffeo.nets import MLP

torch.manual_seed(0)
mask = [True] * 4 + [False] * 4
block = AdditiveResidual(mask, MLP(4, 4, (32,)), MLP(4, 4, (32,))).double()
for parameter in block.parameters():  # nets start as zero and the layer as the identity: shake them
    torch.nn.init.normal_(parameter, std=0.4)

first, second = block.pair  # it is built of two additive couplings
x = torch.randn(8, dtype=torch.float64)
half, y = first(x)[0], block(x)[0]
forward = {
    "x to (y1, x2)": (lambda v: first(v)[0], x),
    "(y1, x2) to y": (lambda v: second(v)[0], half),
    "the layer, x to y": (lambda v: block(v)[0], x),
}
back = {
    "y to (y1, x2)": (lambda v: second.inverse(v)[0], y),
    "(y1, x2) to x": (lambda v: first.inverse(v)[0], half),
    "its inverse, y to x": (lambda v: block.inverse(v)[0], y),
}

plt.style.use(plots.STYLE)
fig, axes = plt.subplots(2, 3, figsize=(9, 5.4))
for row, maps in zip(axes, (forward, back), strict=True):
    for ax, (name, (warp, point)) in zip(row, maps.items(), strict=True):
        plots.jacobian(warp, point, ax)
        ax.axhline(3.5, color=plots.COLORS["gray"], linewidth=0.8)
        ax.axvline(3.5, color=plots.COLORS["gray"], linewidth=0.8)
        ax.set_title(name)
        matrix = torch.autograd.functional.jacobian(warp, point)
        log_det = torch.linalg.slogdet(matrix).logabsdet
        zeros = int((matrix == 0).sum())
        print(f"{name:20} {zeros} of 64 entries are 0; log-determinant by autograd {log_det:8.1e}")
plots.save(fig, "16_08_residual.svg")

points = torch.randn(1000, 8, dtype=torch.float64)
images, log_dets = block(points)
moved, off = (images - points).norm(dim=1).mean(), (block.inverse(images)[0] - points).abs().max()
print(f"log-determinants as the layer has them, of 1,000 points: {log_dets.abs().max():g} nats at most")
print(f"the points move by {moved:.2f} on average; there and back they are off by at most {off:.1e}")
