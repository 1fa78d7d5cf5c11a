"""Images drawn from a Glow, at two temperatures.

A flow of images is drawn from like any other: noise in, one pass, an image out. Here it is a small
**Glow**, fitted to scikit-learn's 1,797 handwritten digits of 8 × 8 pixels. It is told which digit each one
is, so that every column of the picture can be asked for its own.

The temperature is the standard deviation of the latents. At 1 samples come from the density that was
fitted. At 0.7 the same latents lie nearer to their mean: strokes are cleaner, and samples differ less from
one another. The table says both in gray levels, as root mean squares over the pixels: how far an image lies
from the nearest one of the training data, and how far two images lie apart. For the real images it is the
nearest *other* one.

To change: `layers`, `hidden` and `max_steps`, for better images. For faces, let the environment variable
`DIFFEO_DATA` name a folder that has the Olivetti faces as `olivetti/olivetti.npz`, an array `x` of bytes
(400, 64, 64). The script then fits those, for fifteen minutes, and draws `16_12_image_samples-faces.svg`.

    python examples/gallery/16_12_image_samples.py
"""

import os
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from diffeo import contexts, latents, plots, presets
from diffeo.images import fit_images

folder = os.environ.get("DIFFEO_DATA")
if folder:
    images = torch.from_numpy(np.load(Path(folder) / "olivetti" / "olivetti.npz")["x"])[:, None]
    flow, report = fit_images(images, preset=presets.Glow((1, 64, 64), levels=4), flips=True, max_seconds=900)
    asked = None
else:
    # Their 17 levels of gray, as 16: four bits, the highest of a byte.
    pixels, digit = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).clamp(max=15).mul(16).to(torch.uint8).reshape(-1, 1, 8, 8)
    preset = presets.Glow((1, 8, 8), contexts.Classes(10), levels=2, layers=6, hidden=32)
    flow, report = fit_images(images, context=torch.from_numpy(digit), preset=preset, bits=4, max_steps=1000)
    asked = torch.arange(10)
bits = report.bits_per_dim
print(f"{report.training.steps} steps; held-out images: {bits['valid']:.3f} bits per dimension,")
print(f"as independent histograms of every pixel: {bits['pixels']:.3f}")


def row(name, drawn, nearest):
    """Distances in gray levels: to the nearest training image (the first, or the second), between two."""
    drawn, known = (x.flatten(1).double() / x[0].numel() ** 0.5 for x in (drawn, images))
    to_known = torch.cdist(drawn, known).topk(nearest, largest=False).values[:, -1]
    print(f"{name:<18} {to_known.mean():12.1f} {torch.nn.functional.pdist(drawn).mean():12.1f}")


print(f"{'gray levels':<18} {'to nearest':>12} {'between two':>12}")
plt.style.use(plots.STYLE)
fig, axes = plt.subplots(1, 2, figsize=(10, 4))
for ax, temperature in zip(axes, (0.7, 1.0), strict=True):
    generator = torch.Generator().manual_seed(0)
    cooled = latents.tempered(flow, temperature)
    many = (
        cooled.sample((20, 10), generator=generator)
        if asked is None
        else cooled.sample(20, asked, generator=generator)
    )
    plots.image_grid(many[:8], ax)
    ax.set_title(f"temperature {temperature}")
    row(f"temperature {temperature}", many.flatten(0, 1), 1)
row("real images", images[:200], 2)
plots.save(fig, f"16_12_image_samples{'-faces' if folder else ''}.svg")
