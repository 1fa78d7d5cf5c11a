"""What ``toys.py`` shows: the page of all rows, and a picture for each preset."""

from __future__ import annotations

import math
from pathlib import Path

import kit
import numpy as np
import torch
from kit import Row
from matplotlib import colormaps, colors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from diffeo import Flow, plots
from diffeo.targets import TOYS

TARGETS = {"IResNet": 0.05, "FFJORD": 0.05, "FlowMatching": 0.08, "NAF": 0.02}
"""Gaps to stay below, in nats."""
OWN_TARGETS = {("IResNet", "checkerboard"): 0.12, ("FFJORD", "checkerboard"): 0.12}
"""Where one toy has another: maps that are smooth everywhere against a density that jumps."""
PANEL, HEAD, GAP = 152, 20, 8
"""Pixels: the side of a panel, the line above it, and between panels."""
TILE = (3 * PANEL + 4 * GAP, PANEL + HEAD + GAP)
COLUMNS = 2
POINTS = 5000
"""Drawn in each panel of points."""


def target(preset: str, toy: str) -> float | None:
    return OWN_TARGETS.get((preset, toy), TARGETS.get(preset))


def store(folder: Path) -> kit.Store:
    return kit.Store(folder / "toys.jsonl", "preset", "toy")


# -- pictures -----------------------------------------------------------------------------------------


def tile(flow: Flow, rows: torch.Tensor, name: str, gap: float, seed: int) -> Image.Image:
    """A toy's part of a preset's picture: training rows, the flow's samples, its density."""
    limits = 1.1 * float(rows.abs().quantile(0.999))
    with torch.no_grad():
        drawn = flow.sample(POINTS, generator=torch.Generator().manual_seed(seed))
    figure = Figure(figsize=(TILE[0] / 100, TILE[1] / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = []
    for i, title in enumerate([name, "samples", f"density, gap {gap:.3f}"]):
        left, bottom = (GAP + i * (PANEL + GAP)) / TILE[0], GAP / TILE[1]
        axes.append(figure.add_axes((left, bottom, PANEL / TILE[0], PANEL / TILE[1])))
        axes[-1].set_title(title, fontsize=8, pad=3)
    plots.samples(rows[:POINTS], axes[0], limits)
    plots.samples(drawn, axes[1], limits)
    plots.density(flow, axes[2], limits, n=PANEL)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def keep_tile(path: Path, name: str, part: Image.Image) -> None:
    """Put a tile in its place in a picture; the others stay as they are."""
    size = (COLUMNS * TILE[0], math.ceil(len(TOYS) / COLUMNS) * TILE[1])
    whole = Image.new("RGB", size, "white")
    if path.exists():
        with Image.open(path) as old:
            whole.paste(old.convert("RGB").crop((0, 0, *size)))
    line, column = divmod(list(TOYS).index(name), COLUMNS)
    whole.paste(part, (column * TILE[0], line * TILE[1]))
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.quantize(palette=_palette(), dither=Image.Dither.NONE).save(path, optimize=True)


def _palette() -> Image.Image:
    """Fixed colors, for a small file that doing it again does not change."""
    magma = colormaps["magma"](np.linspace(0, 1, 160))[:, :3]
    points = 1 - np.linspace(0, 1, 64)[:, None] * (1 - np.array(colors.to_rgb(plots.COLORS["blue"])))
    grays = np.linspace(0, 1, 32)[:, None].repeat(3, 1)
    found = Image.new("P", (1, 1))
    found.putpalette(np.rint(255 * np.concatenate([magma, points, grays])).astype(np.uint8).tobytes())
    return found


# -- the page -----------------------------------------------------------------------------------------


def blocks(rows: list[Row], folder: Path) -> dict[str, str]:
    """What the page has of all rows; ``folder`` is where the pictures are."""
    presets = list(dict.fromkeys([*TARGETS, *(row["preset"] for row in rows)]))
    presets = [preset for preset in presets if any(row["preset"] == preset for row in rows)]
    known = {(row["preset"], row["toy"]): row for row in rows}
    gaps = [
        [name, f"{toy.entropy:.4f}", *(_gap(known.get((preset, name))) for preset in presets)]
        for name, toy in TOYS.items()
    ]
    runs = [_run(known[key]) for key in ((p, t) for p in presets for t in TOYS) if key in known]
    head = ["preset", "toy", "target", "gap", "steps", "seconds of fit", "of scoring"]
    pictures = [_picture(preset) for preset in presets if (folder / f"toys-{preset}.png").exists()]
    return {
        "verdict": _verdict(rows),
        "gaps": kit.markdown(["toy", "entropy", *presets], gaps),
        "runs": kit.markdown(head, runs),
        "commands": "\n\n".join(kit.made_by(rows, _about, lambda own: f"{_named(own, rows)}: ")),
        "pictures": "\n\n".join(pictures),
    }


def _picture(preset: str) -> str:
    about = f"{preset}: for each toy training rows, samples and density"
    return f"## {preset}\n\nTraining rows, samples, density.\n\n![{about}](toys-{preset}.png)"


def _verdict(rows: list[Row]) -> str:
    aimed = [row for row in rows if row["target"] is not None]
    missed = [f"{row['preset']} on {row['toy']}" for row in aimed if missed_target(row)]
    told = f"**Missed: {', '.join(missed)}.**" if missed else "None is missed."
    return f"{len(aimed) - len(missed)} of {len(aimed)} targets are reached. {told}"


def missed_target(row: Row) -> bool:
    """A gap above its target, or one that is no number."""
    return row["target"] is not None and not row["gap"] <= row["target"]


def _gap(row: Row | None) -> str:
    if row is None:
        return "not run"
    shown = f"{row['gap']:.4f} ± {row['standard_error']:.4f}"
    return f"**missed {row['target']:g}:** {shown}" if missed_target(row) else shown


def _run(row: Row) -> list[str]:
    aim = "" if row["target"] is None else f"{row['target']:g}"
    seconds = [f"{row['seconds']:.0f}", f"{row['scoring']:.1f}"]
    return [row["preset"], row["toy"], aim, _gap(row), f"{row['steps']:,}", *seconds]


def _about(row: Row) -> str:
    at_once = "run" if row["jobs"] == 1 else "runs"
    return (
        f"{row['rows']:,} training rows, {row['fresh']:,} fresh points, seed {row['seed']}, "
        f"{row['budget']:g} s asked for, {row['jobs']} {at_once} at a time. "
    )


def _named(group: list[Row], rows: list[Row]) -> str:
    """The rows of a group in words: a preset's name alone where all of its rows are in it."""
    names = []
    for preset in dict.fromkeys(row["preset"] for row in group):
        own = [row for row in group if row["preset"] == preset]
        whole = len(own) == sum(row["preset"] == preset for row in rows)
        fields = ", ".join(f"{k}={v}" for k, v in own[0]["fields"].items())
        toys = "" if whole else f" on {', '.join(row['toy'] for row in own)}"
        names.append(f"{preset}{f' ({fields})' if fields else ''}{toys}")
    return "; ".join(names)
