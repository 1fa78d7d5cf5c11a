"""Inverting y = z + f(z) by iteration.

A residual layer adds something to its input. There is no formula for the way back, but `z = y - f(z)` can
be read as an instruction: put a z in, get the next one. A staircase shows it: upright to the curve
`y - f(z)`, level to the diagonal, and again. If f is a **contraction**, changing by at most L < 1 times as
much as its input, then every step leaves at most L of the error, so there is one answer and every start
arrives there.

Here `f(z) = L tanh(z)`. With L = 0.5 a few steps do. With L = 0.9 it takes many more. With L = 1.5 the
function z + f(z) is increasing all the same and has its inverse, but the iteration never gets there: it
ends up walking round a square. The contraction is what the *method* needs, and it is enough in any number
of dimensions, where increasing means nothing.

Below, the error at each evaluation of f. Dashed is what diffeo's solver does: it fits a line through its
last steps and jumps to where that says the answer is (Anderson acceleration). A jump that does not help is
undone, so that the contraction's promise stays. `Contractive` stops only when the answer is certified: the
last step's length over 1 - L bounds the true error. What is printed is that for a net in 16 dimensions.

To change: L, y, where it starts, or the net.

    python examples/gallery/16_09_contraction.py
"""

from functools import partial

import torch
from matplotlib import pyplot as plt

from diffeo import plots
from diffeo.bijections import Contractive
from diffeo.functional.fixed_point import fixed_point
from diffeo.nets import LipschitzMLP, Tanh

y, start, steps = torch.tensor([[0.4]], dtype=torch.float64), 2.0, 30


def f(z, bound):
    return bound * z.tanh()


def bisected(bound):
    """The answer, surely: half an interval at a time, which needs an increasing function of one variable."""
    low, high = torch.tensor([-10.0, 10.0], dtype=torch.float64)
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if middle + f(middle, bound) > y else (middle, high)
    return middle


def plain(bound):
    z = torch.full_like(y, start)
    for _ in range(steps):
        yield z
        z = y - f(z, bound)


def accelerated(bound):
    seen = []

    def recorded(z, rows):
        seen.append(z.clone())
        return f(z, bound)

    fixed_point(recorded, y, bound, "z + f(z)", tolerance=1e-12, start=torch.full_like(y, start))
    return seen


plt.style.use(plots.STYLE)
fig, axes = plt.subplot_mosaic("abc;ddd", figsize=(8.5, 6), height_ratios=(3, 2.2))
for name, bound, color in zip("abc", (0.5, 0.9, 1.5), ("blue", "orange", "purple"), strict=True):
    warp = partial(f, bound=bound)
    plots.cobweb(warp, y.item(), axes[name], start=start, steps=steps, limits=(-1.8, 2.1))
    axes[name].set(title=f"L = {bound}", xlabel="z", ylabel="y - f(z)")
    axes[name].legend(["y - f(z)", "z"], loc="lower right")

    answer = bisected(bound)
    for way, line in ((plain, "-"), (accelerated, "--"))[: 2 if bound < 1 else 1]:
        errors = [float((z - answer).abs()) for z in way(bound)]
        label = f"L = {bound}, {way.__name__}"
        axes["d"].semilogy(errors, line, color=plots.COLORS[color], label=label)
        print(f"{label}: error {errors[3]:.1e} after 3 evaluations, {errors[7]:.1e} after 7, ", end="")
        print(f"{errors[-1]:.1e} after {len(errors) - 1}")
axes["d"].set(xlabel="evaluations of f", ylabel="error of z", ylim=(1e-14, 10), xlim=(0, steps - 1))
axes["d"].legend(ncols=2)
plots.save(fig, "16_09_contraction.svg")

torch.manual_seed(0)
for bound in (0.5, 0.9, 0.97):
    net = LipschitzMLP(16, (64,), activation=Tanh, lipschitz=bound)
    for weight in net.weights():  # nets start as zero: shake them, as far as the bound allows
        torch.nn.init.orthogonal_(weight)
    net.project_()  # scales them down to the bound, here and after every step of training
    layer = Contractive(net).double()
    points = torch.randn(500, 16, dtype=torch.float64)
    images = layer.push(points)
    picard, quick = layer.solve(images, memory=0), layer.solve(images)
    error, promise = (quick.x - points).norm(dim=1).max(), quick.residual.max() / (1 - bound)
    print(f"16 columns, L = {bound}: {picard.iterations} evaluations plain, ", end="")
    print(f"{quick.iterations} accelerated; error {error:.1e}, certified {promise:.1e}")
