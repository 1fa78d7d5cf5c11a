"""A determinant for nothing: triangular structure against a dense one.

The density of x needs the determinant of the Jacobian at x. A determinant of D x D numbers costs D³
multiplications, and the Jacobian itself must be had first: by autograd, one backward pass for each of the D
outputs. For every row, in every step of training.

Flows avoid both. Where output i depends on the inputs up to i alone, the Jacobian is triangular (on the
left, one measured by autograd: what is blank is exactly zero), and the determinant of a triangular matrix
is the product of its diagonal. The log-determinant is a sum of D numbers that the layer has computed
anyway.

On the right processor time for 8 rows. Thin gray lines have the slopes of D and D³. The answers agree; the
text below says how well.

    python examples/gallery/notes_determinant.py
"""

import time

import matplotlib.pyplot as plt
import torch

from diffeo import plots
from diffeo.bijections import Autoregressive
from diffeo.elementwise import Affine
from diffeo.nets import MADE
from diffeo.testing import randomize_

ROWS, SIZES = 8, [2, 4, 8, 16, 32, 64, 128, 256, 512]
torch.set_num_threads(1)


def autoregressive(features):
    """A layer with random weights, in float64, so that what differs is the method and not round-off."""
    net = MADE(features, 2, (64,))
    return randomize_(Autoregressive(net, Affine()), scale=0.1).double().requires_grad_(False)


def milliseconds(function, seconds=0.03):
    """Processor time of the fastest of several calls: the one that nothing else disturbed."""
    function()
    times, until = [], time.process_time() + seconds
    while not times or time.process_time() < until:
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return 1e3 * min(times)


took = {name: [] for name in ("sum of a log-diagonal", "layer: value and log-det", "slogdet of a matrix",
                              "Jacobian by autograd, slogdet")}  # fmt: skip
off = 0.0
for D in SIZES:
    layer = autoregressive(D)
    x = torch.randn(ROWS, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda v: layer(v)[0]))  # noqa: B023
    J = jacobian(x)
    log_diagonal = J.diagonal(dim1=-2, dim2=-1).abs().log()
    ways = (
        lambda: log_diagonal.sum(-1),  # noqa: B023
        lambda: layer(x)[1],  # noqa: B023
        lambda: torch.linalg.slogdet(J)[1],  # noqa: B023
        lambda: torch.linalg.slogdet(jacobian(x))[1],  # noqa: B023
    )
    for name, way in zip(took, ways, strict=True):
        took[name].append(milliseconds(way))
    answers = torch.stack([way() for way in ways])
    off = max(off, float((answers - answers[0]).abs().max()))

print(f"largest difference between the four answers, D = {SIZES[0]} .. {SIZES[-1]}: {off:.1g} nats")
for name, ms in took.items():
    shown = ", ".join(f"{t:.3g} ms at D = {D}" for D, t in list(zip(SIZES, ms, strict=True))[2::3])
    print(f"{name:30s} {shown}")

plt.style.use(plots.STYLE)
fig, (pattern, times) = plt.subplots(1, 2, figsize=(8.5, 3.4), width_ratios=(1, 1.3))
small = autoregressive(16)
plots.jacobian(lambda v: small(v)[0], torch.linspace(-2, 2, 16, dtype=torch.float64), pattern)
pattern.set(xticks=range(0, 16, 5), yticks=range(0, 16, 5))
styles = (("blue", "-"), ("blue", "--"), ("orange", "--"), ("orange", "-"))
for (name, ms), (color, line) in zip(took.items(), styles, strict=True):
    times.loglog(SIZES, ms, line, marker="o", markersize=3, color=plots.COLORS[color], label=name)
last = torch.tensor([64.0, 512.0])
for power in (1, 3):
    anchor = took["layer: value and log-det" if power == 1 else "slogdet of a matrix"][-1]
    times.loglog(last, anchor * (last / 512) ** power * 0.5, color=plots.COLORS["gray"], linewidth=0.8)
    times.text(530, anchor * 0.5, "D" if power == 1 else "D³", color=plots.COLORS["gray"], va="top")
times.set(xlabel="D, columns", ylabel=f"milliseconds for {ROWS} rows")
times.legend(fontsize=8)
plots.save(fig, "notes_determinant.svg")
