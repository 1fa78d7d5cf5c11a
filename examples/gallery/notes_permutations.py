"""What fixed permutations cost.

A coupling layer moves one half of the columns and keeps the other. Between layers columns must be mixed, or
the kept half would never change. The cheapest mixing is a permutation: alternating halves, or an order
drawn once. The other is a matrix that is learned, `LU`, whose log-determinant is the sum of a diagonal.

The data here are 16 columns: independent skewed variables of different scales, turned by a random rotation,
so that every column depends on all others. Their exact density is known. All flows are the same couplings
with splines and train for as many steps; only what stands before each coupling differs. `LU` adds D² + 2D
parameters a layer, few beside the nets', so one kind has a permutation and wider nets instead.

With one or two layers a permutation costs from half a nat to 2.6: the columns of one half never meet, and no
net of any width makes up for that. `LU` turns the axes back at once. With eight layers a random order has
caught up, and for their size all but the reversed order are level; that one stays behind, since it always
swaps the same two halves. On the left by depth, on the right the same by parameters; one seed each. Printed
with them is the processor time of a training step.

    python examples/gallery/notes_permutations.py
"""

import time

import matplotlib.pyplot as plt
import torch

import diffeo
from diffeo import plots
from diffeo.bases import Normal
from diffeo.bijections import LU, Chain, Coupling, Permute, Reverse, Standardize
from diffeo.elementwise import RationalQuadratic
from diffeo.nets import MLP

D, DEPTHS = 16, [1, 2, 4, 8]
generator = torch.Generator().manual_seed(0)
rotation = torch.linalg.qr(torch.randn(D, D, generator=generator))[0]
scales = torch.linspace(0.3, 3.0, D)


def draw(n):
    """Rows, and their exact log-density: logarithms of exponential variables (Gumbel), scaled and turned."""
    s = -torch.rand(n, D, generator=generator).clamp_min(1e-12).log()
    log_density = (s.log() - s).sum(-1) - scales.log().sum()
    return (s.log() * scales) @ rotation.T, log_density


rows, _ = draw(10_000)
fresh, exact = draw(4_000)
family = RationalQuadratic(8, 4.0)
mask = [i < D // 2 for i in range(D)]


def flow_of(layers, mixing, hidden):
    torch.manual_seed(0)
    parts = [Standardize((D,))]
    for _ in range(layers):
        parts += [mixing(), Coupling(mask, MLP(D // 2, D // 2 * family.num_params, (hidden, hidden)), family)]
    return diffeo.Flow(Chain(parts), Normal((D,)))


def parameters(flow):
    return sum(p.numel() for p in flow.parameters())


kinds = {
    "reversed": (lambda: Reverse(D), "orange", 32),
    "random order": (lambda: Permute(torch.randperm(D)), "green", 32),
    "random order, wider nets": (lambda: Permute(torch.randperm(D)), "purple", 40),
    "learned (LU)": (lambda: LU(D), "blue", 32),
}
plt.style.use(plots.STYLE)
fig, (by_layers, by_size) = plt.subplots(1, 2, figsize=(8.5, 3.4), sharey=True)
print(f"nats missing of {-exact.mean():.3f}: layers, parameters, ms a step")
for name, (mixing, color, hidden) in kinds.items():
    gaps, sizes = [], []
    for layers in DEPTHS:
        flow = flow_of(layers, mixing, hidden)
        began = time.process_time()
        report = diffeo.fit(flow, rows, max_steps=1000, batch_size=256)
        ms = 1e3 * (time.process_time() - began) / report.steps
        with torch.no_grad():
            gaps.append(float((exact - flow.log_prob(fresh)).mean()))
        sizes.append(parameters(flow))
        print(f"  {name:25s} {gaps[-1]:6.3f}: {layers}, {sizes[-1]:6d}, {ms:.1f}")
    by_layers.loglog(DEPTHS, gaps, marker="o", markersize=4, color=plots.COLORS[color], label=name)
    by_size.loglog(sizes, gaps, marker="o", markersize=4, color=plots.COLORS[color])
by_layers.set(xlabel="layers", ylabel="nats missing on fresh rows", xticks=DEPTHS, xticklabels=DEPTHS)
by_layers.set(yticks=[0.5, 1, 2, 4], yticklabels=[0.5, 1, 2, 4], ylim=(0.45, None))
by_size.set(xlabel="parameters, thousands", xticks=[1e4, 2e4, 4e4, 8e4], xticklabels=[10, 20, 40, 80])
for ax in (by_layers, by_size):
    ax.minorticks_off()
by_layers.legend()
plots.save(fig, "notes_permutations.svg")
