"""From one real image to another.

Both ends of every row are real images; what lies between is drawn from their latents. A **Glow** takes the
two images to latents, the way between these is cut into steps, and each step is taken back to an image.
Nothing is lost at the ends, since a flow inverts exactly: what is printed first is the largest difference
there, in gray levels.

Three ways between the same pairs. On the **great circle** latents keep the length that nearly all latents
have. On the **straight line** they come nearer to 0 in the middle. **Blended pixels** do without a flow and
show two images at once.

Left is the mean length of the latents over the root of their number, which is close to 1 for draws from the
base. Right is what the flow needs to say an image, in bits per dimension, the median of the pairs: blends of
digits cost it most. The straight line costs less than the circle, for its middle is nearer to the
mode, where the density is higher, but hardly any of the mass is. Samples at a low temperature are likelier
than real images in the same way.

To change: the pairs; `steps`; another `Path`. For faces, let the environment variable `DIFFEO_DATA` name a
folder that has the Olivetti faces as `olivetti/olivetti.npz`, an array `x` of bytes (400, 64, 64). The
script then fits those, for fifteen minutes, and draws `16_13_interpolation-faces.svg`.

    python examples/gallery/16_13_interpolation.py
"""

import os
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

import diffeo
from diffeo import latents, plots, presets
from diffeo.images import fit_images

folder = os.environ.get("DIFFEO_DATA")
if folder:
    images = torch.from_numpy(np.load(Path(folder) / "olivetti" / "olivetti.npz")["x"])[:, None]
    pairs = torch.tensor([[0, 53], [100, 217], [300, 151], [222, 345], [399, 75]])
    flow, report = fit_images(images, preset=presets.Glow((1, 64, 64), levels=4), flips=True, max_seconds=900)
else:
    # Their 17 levels of gray, as 16: four bits, the highest of a byte.
    pixels, _ = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).clamp(max=15).mul(16).to(torch.uint8).reshape(-1, 1, 8, 8)
    pairs = torch.tensor([[0, 6], [3, 8], [4, 9], [1, 7], [2, 5]])  # the first ten are 0 to 9
    preset = presets.Glow((1, 8, 8), levels=2, layers=6, hidden=32)
    flow, report = fit_images(images, preset=preset, bits=4, max_steps=800)

steps = 9
x0, x1 = images[pairs[:, 0]], images[pairs[:, 1]]
t = torch.linspace(0, 1, steps)
ways = {
    "great circle": latents.interpolate(flow, x0, x1, steps),
    "straight line": latents.interpolate(flow, x0, x1, steps, path=latents.Linear()),
    "blended pixels": latents.Linear()(x0.float(), x1.float(), t).round().to(torch.uint8),
}
for name, way in ways.items():
    off = max((way[end].int() - x.int()).abs().max() for end, x in ((0, x0), (-1, x1)))
    print(f"{name}: at the ends at most {off} gray levels from the real images")

plt.style.use(plots.STYLE)
fig, axes = plt.subplot_mosaic("aabbcc;dddeee", figsize=(10, 4.6), height_ratios=(1.2, 1))
for place, (name, way) in zip("abc", ways.items(), strict=True):
    plots.image_grid(way.transpose(0, 1), axes[place])  # a row for each pair
    axes[place].set_title(name)

lengths, scores = axes["d"], axes["e"]
with torch.no_grad():
    z0, z1 = flow.to_latent(x0), flow.to_latent(x1)
    z = [latents.Slerp()(z0, z1, t), latents.Linear()(z0, z1, t), flow.to_latent(ways["blended pixels"])]
    for (name, way), latent in zip(ways.items(), z, strict=True):
        length = latent.norm(dim=-1).mean(1) / x0[0].numel() ** 0.5
        # The median: far from all it has seen a deep flow may score one picture absurdly low, or overflow.
        bits = diffeo.bits_per_dim(flow.log_prob(way), flow.event_shape).nanmedian(1).values
        lengths.plot(t, length, marker=".", label=name)
        scores.plot(t, bits, marker=".")
        print(f"{name}, halfway: length {length[steps // 2]:.2f}, {bits[steps // 2]:.2f} bits per dimension")
lengths.set(xlabel="t, from one image to the other", ylabel="length of the latent / root of D")
scores.set(xlabel="t, from one image to the other", ylabel="bits per dimension, median")
lengths.legend()
plots.save(fig, f"16_13_interpolation{'-faces' if folder else ''}.svg")
