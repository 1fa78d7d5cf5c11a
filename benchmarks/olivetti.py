"""Faces: Olivetti at 64 x 64, trained on 35 people, 5 held out.

    python benchmarks/olivetti.py --data DIR --out FOLDER [--preset Glow] [--seconds 900] [--threads 2]

Fits with ``fit_images`` (mirrored at random; a tenth of the training images picks the weights) and prints the
held-out people's bits per dimension beside those of the plain models. Writes to FOLDER: the model, grids of
samples at temperatures 0.5, 0.7 and 1.0 (samples_0.5.png ...), and interpolations.png, which is figure 16.13:
each row goes from one held-out face to another, and its ends are checked to be the originals.
"""

from __future__ import annotations

import json
from pathlib import Path

import kit
import numpy as np
import torch

import diffeo
from diffeo import latents
from diffeo.cli.options import settings
from diffeo.images import fit_images
from diffeo.images.pictures import grid, save_image
from diffeo.images.scores import pixel_baselines
from diffeo.presets import PRESETS, ImagePreset

SHAPE = (1, 64, 64)
IMAGES = [name for name, kind in PRESETS.items() if issubclass(kind, ImagePreset)]
HELD_OUT = 5
TEMPERATURES = (0.5, 0.7, 1.0)
ROWS, COLUMNS = 6, 9


def options() -> kit.Options:
    parser = kit.Options(__doc__, data=..., seconds=900.0, threads=2, seed=...)
    parser.option("--out", None, "folder for what it writes", type=Path, required=True)
    parser.option("--preset", "Glow", choices=IMAGES)
    parser.option("--bits", 8)
    return parser.option("--set", ["levels=4"], "of the preset", nargs="*", metavar="FIELD=VALUE")


def main() -> None:
    asked = options().ask()
    stored = np.load(kit.folder(asked, "olivetti") / "olivetti.npz")
    faces, person = torch.from_numpy(stored["x"])[:, None], torch.from_numpy(stored["person"])
    held = person >= person.max() - HELD_OUT + 1
    seen, unseen = faces[~held], faces[held]
    kind = PRESETS[asked.preset]
    preset = kind(SHAPE, **settings(kind, asked.set))  # type: ignore[call-arg]
    size = {"flips": True, "max_seconds": asked.seconds, "seed": asked.seed}
    flow, report = fit_images(seen, preset=preset, encoding=preset.encoding(asked.bits), **size)  # type: ignore[attr-defined]
    with torch.no_grad():
        scores = diffeo.bits_per_dim(flow.log_prob(unseen), SHAPE)
    asked.out.mkdir(parents=True, exist_ok=True)
    diffeo.save(flow, asked.out / "olivetti.safetensors")
    for temperature in TEMPERATURES:
        generator = torch.Generator().manual_seed(asked.seed)
        pixels = latents.tempered(flow, temperature).sample(32, generator=generator)
        save_image(grid(pixels, 8), asked.out / f"samples_{temperature}.png")

    first = torch.arange(ROWS) * 10 % len(unseen)  # ten photographs a person: each row between two people
    x0, x1 = unseen[first], unseen[(first + 13) % len(unseen)]
    path = latents.interpolate(flow, x0, x1, COLUMNS)
    step = 2 ** (8 - asked.bits)
    ends = [bool(torch.equal(found // step, x // step)) for found, x in ((path[0], x0), (path[-1], x1))]
    save_image(grid(path.transpose(0, 1).flatten(0, 1), COLUMNS), asked.out / "interpolations.png")
    found = {
        "preset": asked.preset,
        "fields": kit.fields(preset),
        "parameters": kit.size(flow),
        "seconds": report.seconds,
        "threads": asked.threads,
        "steps": report.training.steps,
        "train_people_bits_per_dim": report.bits_per_dim,
        "held_out_people": kit.mean_and_error(scores),
        "plain_models_held_out": pixel_baselines(seen, unseen, asked.bits),
        "ends_are_the_originals": ends,
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
