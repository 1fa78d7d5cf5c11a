"""From data back to the base.

To sample, a flow runs from z to x. To say how likely a data point is, it runs the other way: this is the
**normalizing direction**, `z = f⁻¹(x)`. Three data points go up from the axis of x to the curve and over to
the base density at the right. There the density of z is read off, and multiplied by the slope of the curve
that the point came through: `p(x) = p(z) · dz/dx`. Where the curve is steep many z belong to few x, and the
data are dense.

The flow learned this curve by maximum likelihood, that is by making the products as large as possible on the
data: 2,000 numbers, a tenth of them held out to choose the best step by. Below, their histogram, the density
the flow reads off, and, dashed, the one they were drawn from. Seen from z the data are normal: at the right,
in gray, the histogram of `f⁻¹(x)`.

In diffeo this direction is `forward`, since training runs it: `z, log_slope = flow.bijection(x)`. To
change: the mixture the data come from, or the bins of the spline.

    python examples/gallery/16_03_normalizing_direction.py
"""

import torch
from matplotlib import pyplot as plt
from torch.distributions import Categorical, MixtureSameFamily, Normal

import diffeo
from diffeo import bases, plots
from diffeo.bijections import Chain, Pointwise, Standardize
from diffeo.elementwise import RationalQuadratic
from diffeo.train import OptimizerSettings

torch.manual_seed(0)
truth = MixtureSameFamily(
    Categorical(torch.tensor([0.35, 0.65])), Normal(torch.tensor([-1.6, 1.0]), torch.tensor([0.4, 0.8]))
)
data = truth.sample((2000, 1))

spline = Pointwise(RationalQuadratic(bins=8, bound=3.5), (1,))
flow = diffeo.Flow(Chain([Standardize((1,)), spline]), bases.Normal((1,)))
diffeo.fit(flow, data, max_steps=800, batch_size=256, optimizer=OptimizerSettings(learning_rate=2e-2))

x = torch.linspace(-3.5, 4.0, 800)[:, None]
points = torch.tensor([[-1.6], [-0.4], [1.7]])
with torch.no_grad():
    z, _ = flow.bijection(x)
    point_z, log_slope = flow.bijection(points)
    base, p = flow.base.log_prob(point_z).exp(), flow.log_prob(points).exp()
    latent, density, heights = flow.to_latent(data), flow.log_prob(x).exp(), flow.base.log_prob(z).exp()

plt.style.use(plots.STYLE)
c = plots.COLORS
fig, ((ax, right), (below, corner)) = plt.subplots(
    2, 2, figsize=(6, 5.4), sharex="col", sharey="row", width_ratios=(3, 1), height_ratios=(3, 2)
)
corner.set_axis_off()
ax.plot(x, z, color=c["ink"])
right.hist(latent[:, 0], bins=40, density=True, orientation="horizontal", color=c["gray"], alpha=0.3)
right.plot(heights, z, color=c["blue"])
below.hist(data[:, 0], bins=60, density=True, color=c["gray"], alpha=0.3)
below.plot(x, truth.log_prob(x).exp(), "--", color=c["gray"], linewidth=1)
below.plot(x, density, color=c["orange"])
for i, color in enumerate((c["purple"], c["green"], c["blue"])):
    px, pz = points[i, 0], point_z[i, 0]
    ax.plot([px, px, 4], [-3.6, pz, pz], color=color, linewidth=1)
    ax.plot(
        [px - 0.35, px + 0.35],
        [pz - 0.35 * log_slope[i].exp(), pz + 0.35 * log_slope[i].exp()],
        color=color,
        linewidth=3,
    )
    right.plot([0, base[i]], [pz, pz], color=color, linewidth=1)
    right.plot(base[i], pz, "o", color=color)
    below.plot([px, px], [p[i], 0.55], color=color, linewidth=1)
    below.plot(px, p[i], "o", color=color)
    print(
        f"x = {px:4.1f}: z = {pz:6.3f}, p(z) = {base[i]:.4f}, dz/dx = {log_slope[i].exp():.4f}, product "
        f"{base[i] * log_slope[i].exp():.4f}; flow.log_prob: {p[i]:.4f}; truth {truth.log_prob(px).exp():.4f}"
    )
ax.set(ylabel="z", ylim=(-3.6, 3.6), xlim=(-3.5, 4), title="z = f⁻¹(x)")
right.set(xlabel="density of z", xlim=(0, None))
right.tick_params(labelbottom=True)
below.set(xlabel="x", ylabel="density of x", ylim=(0, 0.5))
plots.save(fig, "16_03_normalizing_direction.svg")
