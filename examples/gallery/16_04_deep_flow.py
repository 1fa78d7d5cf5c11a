"""A deep flow, layer by layer.

One layer can do little: here half of the coordinates pass unchanged, each other one goes through a spline
that the passing one chooses, and a linear map mixes them for the next. Four such layers, one after the
other, turn a round cloud into a pinwheel. Above, 1,500 points on their way from the base to the data,
colored by where they began: neighbors stay neighbors, for nothing is torn or folded. Below, what becomes of
a regular grid: the layers stretch, squeeze and bend it, and no two lines of one color ever meet.

The log-determinants of the layers add up, which is what makes depth cheap to train. The printed lines are
the mean of each layer over the points, in nats: how much of the volume it spreads or squeezes.

The flow was fitted in the other direction, from data to base, and is walked backwards here: part by part
through `inverse`. The animation moves the points along straight lines between one layer and the next; only
where they stop is the flow's own.

To change: `layers`, or another of the toys in `diffeo.targets.TOYS`.

    python examples/gallery/16_04_deep_flow.py
"""

from itertools import pairwise

import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image

import diffeo
from diffeo import plots, presets
from diffeo.bijections import Coupling
from diffeo.targets import TOYS

torch.manual_seed(0)
toy = TOYS["pinwheel"]
generator = torch.Generator().manual_seed(0)
flow = presets.CouplingNSF(features=2, layers=4, hidden=64, blocks=1, bins=8).build()
diffeo.fit(flow, toy.sample(20_000, generator), max_steps=2000, batch_size=512)


@torch.no_grad()
def states(z):
    """Where z is after each layer on the way to the data, and each layer's log-determinant."""
    places, log_dets = [z], [torch.zeros(len(z))]
    for part in reversed(list(flow.bijection)):
        z, log_det = part.inverse(z)
        log_dets[-1] = log_dets[-1] + log_det
        if isinstance(part, Coupling):  # ends a layer; the linear map before it belongs to it
            places.append(z)
            log_dets.append(torch.zeros(len(z)))
    places[-1] = z  # the last part undoes the standardization, as the last layer's own
    return places, [*log_dets[:-2], log_dets[-2] + log_dets[-1]]


z = flow.base.sample((1500,), generator=generator)
places, log_dets = states(z)
whole = flow.bijection.inverse(z)[1]
for i, log_det in enumerate(log_dets):
    spread = f"from {log_det.min():.2f} to {log_det.max():.2f}"
    print(f"layer {i + 1}: mean log-determinant {log_det.mean():6.3f} nats, {spread}")
print(f"their sum against the flow's own: off by at most {(sum(log_dets) - whole).abs().max():.1e}")
fresh = toy.sample(20_000, generator)
with torch.no_grad():
    print(f"fresh rows: {(toy.log_prob(fresh) - flow.log_prob(fresh)).mean():.3f} nats from the truth")

plt.style.use(plots.STYLE)
dots = {"c": z[:, 0], "cmap": "viridis", "vmin": -4, "vmax": 3, "s": 3, "linewidths": 0}
fig, axes = plt.subplots(2, 5, figsize=(10, 4.2), sharex=True, sharey=True)
for i, (above, below) in enumerate(axes.T):
    above.scatter(*places[i].T, rasterized=True, **dots)
    plots.warped_grid(lambda z, i=i: states(z)[0][i], below, limits=2.5, lines=9, n=40)
    above.set(title=f"layer {i}" if i else "base", xlim=(-4.2, 4.2), ylim=(-4.2, 4.2), aspect="equal")
    below.set(xlabel="first coordinate", aspect="equal")
for ax in axes[:, 0]:
    ax.set_ylabel("second coordinate")
plots.save(fig, "16_04_deep_flow.svg")

film, ax = plt.subplots(figsize=(3.6, 3.6), dpi=100, facecolor="white")
ax.set(xlim=(-4.2, 4.2), ylim=(-4.2, 4.2), aspect="equal", xticks=[], yticks=[])
cloud, frames, pauses = ax.scatter(*z.T, **dots), [], []
ease = (1 - torch.linspace(0, torch.pi, 12).cos()) / 2  # off slowly, arriving slowly
for i, (start, end) in enumerate(pairwise(places)):
    for t in ease:
        cloud.set_offsets(torch.lerp(start, end, t))
        ax.set_title("base" if i == t == 0 else f"layer {i + (t > 0)}")
        film.canvas.draw()
        frames.append(Image.fromarray(np.asarray(film.canvas.buffer_rgba())[..., :3]))
        pauses.append(60 if 0 < t < 1 else 350)
pauses[0], pauses[-1] = 900, 2000  # milliseconds
frames[0].save(
    "16_04_deep_flow-animation.webp",
    save_all=True,
    append_images=frames[1:],
    duration=pauses,
    loop=0,
    quality=50,
)
