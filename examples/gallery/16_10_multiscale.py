"""Multiscale: at each level a part of the latents leaves.

An image has as many latents as pixels, and most of them are about detail. A multiscale flow lets a part of
them leave early. Each level squeezes every 2 × 2 pixels into channels, works on them, and then lets half of
the channels go as finished latents; only the other half is worked on further. The bars show it for a
**Glow** of three levels on digits of 8 × 8 pixels: half of all latents leave at the first level, a quarter
at the second, the last quarter has seen all three. So deep flows of large images stay affordable.

What does each part hold? The flow is fitted for a short while and takes real digits to their latents. Then
some parts are kept, the others drawn anew from the base, and the whole taken back to an image. If only what
left at the first level is new, the digit is still the same, in another hand; if only the last level's part
is new, it becomes another digit. The printed changes are mean differences of pixels, of 255 gray levels.

To change: `levels` and the size of the images; how hot the new latents are, `temperature`.

    python examples/gallery/16_10_multiscale.py
"""

import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from diffeo import plots, presets
from diffeo.bijections import Multiscale
from diffeo.images import fit_images

# Their 17 levels of gray, as 16: four bits, the highest of a byte.
pixels, _ = load_digits(return_X_y=True)
images = torch.from_numpy(pixels).clamp(max=15).mul(16).to(torch.uint8).reshape(-1, 1, 8, 8)
preset = presets.Glow((1, 8, 8), levels=3, layers=4, hidden=32)
flow, report = fit_images(images, preset=preset, bits=4, max_steps=800)

generator = torch.Generator().manual_seed(0)
temperature = 0.8
real = images[:10]
multiscale = flow.bijection
assert isinstance(multiscale, Multiscale)
with torch.no_grad():
    kept = multiscale.split(flow.to_latent(real))
parts = [temperature * torch.randn(part.shape, generator=generator) for part in kept]


def redrawn(*levels):
    """The images with the latents of these levels drawn anew."""
    mixed = [new if i in levels else old for i, (old, new) in enumerate(zip(kept, parts, strict=True))]
    with torch.no_grad():
        return flow.to_data(multiscale.join(mixed))


plt.style.use(plots.STYLE)
fig, (bars, pictures) = plt.subplots(1, 2, figsize=(10, 2.9), width_ratios=(1, 1.7))
colors = [plots.COLORS[name] for name in ("blue", "green", "orange")]
total, left = images[0].numel(), 0
for level, (part, color) in enumerate(zip(kept, colors, strict=True)):
    count = part[0].numel()
    # Above, what leaves and what stays at this level; at the bottom the flat latent that all of them make.
    bars.barh(
        level, total - left - count, left=left + count, facecolor="none", edgecolor=plots.COLORS["gray"]
    )
    for row in (level, 3.4):
        bars.barh(row, count, left=left, facecolor=color, edgecolor=color, alpha=0.4)
    channels, height, width = part.shape[1:]
    share = f"{channels} × {height} × {width}\n{count / total:.0%}"
    bars.text(left + count / 2, level, share, ha="center", va="center")
    change = (redrawn(level).double() - real).abs().mean()
    print(f"level {level + 1}: {channels} x {height} x {width} = {count} of {total} latents leave")
    print(f"  drawn anew alone, pixels change by {change:.1f} gray levels")
    left += count
bars.set(xlabel="latents", yticks=[0, 1, 2, 3.4], yticklabels=["level 1", "level 2", "level 3", "latent"])
bars.invert_yaxis()
bars.spines[["left", "bottom"]].set_visible(False)

rows = {"real": (), "level 1 new": (0,), "levels 1, 2 new": (0, 1), "level 3 new": (2,), "all new": (0, 1, 2)}
grid = torch.stack([redrawn(*levels) for levels in rows.values()])
plots.image_grid(grid, pictures)
for i, name in enumerate(rows):
    pictures.text(-2, 9 * i + 4.5, name, ha="right", va="center")
assert torch.equal(grid[0], real)  # with nothing drawn anew, the very same images
plots.save(fig, "16_10_multiscale.svg")
