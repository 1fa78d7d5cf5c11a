"""The piecewise linear map, and the histogram it is.

Cut the interval from 0 to 1 into K bins of equal width and climb each of them at a slope of its own. The
climbs `phi` are positive and sum to one, so the map is increasing and takes the interval onto itself. At
the left, K = 5: above the map, below the density it gives with a uniform base. That base is 1 everywhere,
so the density of x *is* the slope, `K · phi` in each bin, and five numbers are both function and density.

To the right, the same family fitted by maximum likelihood to 500 numbers with 5, 20 and 50 bins. The
likelihood is largest when each bin has the share of the data that fell into it, which makes a histogram:
the gray one was counted, the orange one learned without counting. Few bins are coarse, many follow the
noise of these rows. The printed likelihood of these rows keeps growing with the bins; that of fresh rows
is best in between.

To change: `phi`, or the data. The kinks are why smooth splines are used instead: the densities they give do
not jump.

    python examples/gallery/16_05_piecewise_linear.py
"""

import torch
from matplotlib import pyplot as plt

import diffeo
from diffeo import plots
from diffeo.bases import Uniform
from diffeo.bijections import Pointwise
from diffeo.elementwise import PiecewiseLinear
from diffeo.train import OptimizerSettings

phi = torch.tensor([0.1, 0.35, 0.15, 0.05, 0.35])
family = PiecewiseLinear(bins=5)
x = torch.linspace(0, 1, 1001)
params = phi.log().expand(len(x), 5)  # logits, so that any real numbers will do; a set for each x
z, log_slope = family.forward(x, params)
back, _ = family.inverse(z, params)
slopes = log_slope.exp()[100::200]  # in the middle of each bin
print("slopes", *(f"{s:.2f}" for s in slopes), " 5 phi", *(f"{5 * p:.2f}" for p in phi))
print(f"there and back: off by at most {(back - x).abs().max():.1e}")

torch.manual_seed(0)
beta = torch.distributions.Beta
data, fresh = (
    torch.cat([beta(8.0, 20.0).sample((n, 1)), beta(20.0, 6.0).sample((n, 1))]) for n in (250, 50_000)
)

plt.style.use(plots.STYLE)
fig, axes = plt.subplots(2, 4, figsize=(8.5, 4.2), sharex=True, sharey="row")
axes[0, 0].plot(x, z, color=plots.COLORS["ink"])
axes[1, 0].plot(x, log_slope.exp(), color=plots.COLORS["orange"])
axes[0, 0].set(ylabel="z", title="5 bins, by hand")
axes[1, 0].set(xlabel="x", ylabel="density of x", ylim=(0, 3.4))
for (above, below), bins in zip(axes.T[1:], (5, 20, 50), strict=True):
    flow = diffeo.Flow(Pointwise(PiecewiseLinear(bins), (1,)), Uniform((1,)))
    settings = OptimizerSettings(learning_rate=0.1, weight_decay=0.0)
    diffeo.fit(flow, data, validation=0.0, max_steps=600, batch_size=500, optimizer=settings)
    with torch.no_grad():
        z, log_slope = flow.bijection(x[:, None])
        counted = torch.histogram(data, bins=bins, range=(0.0, 1.0)).hist * bins / len(data)
        fitted = flow.log_prob((torch.arange(bins)[:, None] + 0.5) / bins).exp()
        off = (fitted - counted).abs().max()
        own, new = flow.log_prob(data).mean(), flow.log_prob(fresh).mean()
    print(f"{bins:2} bins: off the counted histogram by at most {off:.3f}; nats a row ", end="")
    print(f"{own:.3f} on these rows, {new:.3f} on fresh ones")
    above.plot(x, z, color=plots.COLORS["ink"])
    below.stairs(counted, torch.linspace(0, 1, bins + 1), fill=True, color=plots.COLORS["gray"], alpha=0.3)
    below.plot(x, log_slope.exp(), color=plots.COLORS["orange"], linewidth=1)
    above.set_title(f"{bins} bins, fitted")
    below.set_xlabel("x")
plots.save(fig, "16_05_piecewise_linear.svg")
