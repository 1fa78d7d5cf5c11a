"""What the commands print."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from diffeo._reading import cleaned
from diffeo.cli.printing import grid, say

if TYPE_CHECKING:
    from torch import Tensor

    from diffeo.flow import Flow
    from diffeo.images import ImageReport, Images
    from diffeo.tables import Schema, TableReport
    from diffeo.train import FitReport


def say_schema(schema: Schema, rows: int, given: Sequence[str], weights: str | None) -> None:
    """What each column is taken for."""
    say(f"{rows:,} rows, {len(schema.entries)} columns to model")
    grid(schema.cells(), right=(3, 4, 5))
    for word in schema.left_out:
        say(word)
    if given:
        say(f"given: {', '.join(given)}")
    if weights is not None:
        say(f"weights: {weights}")
    say()


def say_training(training: FitReport, seconds: float) -> None:
    """How long a run was, and why it ended."""
    say(f"trained {training.steps:,} steps in {seconds:.1f} s ({training.stopped})")


def say_result(result: TableReport, output: Path) -> None:
    """How the run went, and whether the flow is any good."""
    say_training(result.training, result.seconds)
    names = {
        "flow": "this flow",
        "gaussian": "a Gaussian",
        "mixture": "a mixture of Gaussians",
        "independent": "independent columns",
    }
    found = result.baselines
    shown = [k for k in names if k in found] + sorted(set(found) - set(names))
    of = f"{result.scored:,} of " if 0 < result.scored < result.held_out else ""
    say(f"held-out rows ({of}{result.held_out:,}), nats per row (higher is better):")
    grid([("", "nats"), *((names.get(k, k), f"{found[k]:.3f}") for k in shown)], right=(1,))
    say(result.verdict)
    rows = result.held_out_scores["rows"]
    say(f"quantiles of scores are over {rows:,} held-out rows: none below {1 / (rows + 1):.2g}")
    for doubt in result.doubts:
        say(f"doubt: {doubt}")
    say(f"wrote {output}")


def say_notes(notes: Sequence[str]) -> None:
    """What to know of an answer, a line each, on stderr."""
    for note in notes:
        say(f"note: {note}", err=True)


def say_written(output: str, rows: int) -> None:
    """What a table was written to, on stderr; nothing where it went to standard output."""
    if output != "-":
        say(f"wrote {output}: {rows:,} row{'s' * (rows != 1)}", err=True)


def say_images(images: Images, err: bool = False) -> None:
    """What was read, and what was done to it."""
    channels, height, width = images.shape
    kind = "gray" if channels == 1 else "RGB"
    lines = [f"{len(images):,} image{'s' * (len(images) > 1)}, {kind}, {height} x {width} (height x width)"]
    if images.changes:
        lines.append("changed: " + ", ".join(f"{k} {v:,}" for k, v in sorted(images.changes.items())))
    if images.classes:
        lines.append(f"{len(images.classes)} classes: {_listed(images.classes)}")
    if images.skipped:
        lines.append(f"skipped {len(images.skipped):,}, which cannot be read:")
        lines += [f"  {name}: {why}" for name, why in images.skipped[:5]]
        lines += [f"  and {len(images.skipped) - 5:,} more"] * (len(images.skipped) > 5)
    for line in lines:
        say(line, err=err)


def say_image_result(result: ImageReport, output: Path) -> None:
    """How a fit to images went, and whether the flow is any good."""
    say_training(result.training, result.seconds)
    of = f" ({result.scored:,} of {result.held_out:,})" if 0 < result.scored < result.held_out else ""
    names = {"valid": "this flow", "pixels": "independent pixels", "uniform": "uniform"}
    say(f"held-out images{of}, bits per dimension (lower is better):")
    bits = result.bits_per_dim
    grid([("", "bits"), *((name, f"{bits[key]:.3f}") for key, name in names.items())], right=(1,))
    say(result.verdict)
    say(f"wrote {output}")


def say_error(images: Tensor, back: Tensor) -> None:
    """How far reconstructions are from their originals."""
    from diffeo.images import pixel_error

    largest, share = pixel_error(images, back)
    say(f"largest pixel error {largest} of 255; {share:.2%} of the pixels differ")


def say_versions() -> None:
    """Versions of diffeo and of what it stands on, the threads it may use, and its kernels."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from diffeo._version import __version__
    from diffeo.functional.native import describe

    rows = [("diffeo", __version__), ("python", platform.python_version()), ("platform", platform.platform())]
    for name in ("torch", "numpy", "safetensors", "pyarrow", "scikit-learn", "typer", "rich", "matplotlib"):
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            rows.append((name, "not installed"))
    rows.append(("threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors"))
    rows.append(("kernels", describe().removeprefix("kernels: ")))
    for name, value in rows:
        say(f"{name:<13} {value}")


def say_model(path: Path, flow: Flow) -> None:
    """What a model file holds, and the notes its run left."""
    from diffeo.encodings import Cells, Columns, Dequantization
    from diffeo.presets import Preset
    from diffeo.tables.scores import HELD_OUT_SCORES, SCORE_QUANTILES, known_scores

    say(f"{path} ({os.path.getsize(path):,} bytes)")
    say(f"preset      {preset_name(flow)}")
    if isinstance(flow.preset, Preset):
        settings = {f.name: getattr(flow.preset, f.name) for f in fields(flow.preset)}
        shown = {k: v for k, v in settings.items() if k != "context" and not (k == "circular" and not v)}
        say(f"fields      {', '.join(f'{k}={v}' for k, v in shown.items())}")
    say(f"parameters  {sum(p.numel() for p in flow.parameters()):,}")
    encoding = flow.encoding
    if isinstance(encoding, Dequantization):
        noise = type(encoding.noise).__name__.removesuffix("Noise").lower()
        say(f"pixels      {encoding.bits} bits, {noise} noise")
        say("likelihood  a bound, in nats of the discrete image")
    if not isinstance(encoding, Columns | Cells):
        say(f"event       {tuple(flow.event_shape)}")
        _say_notes(flow.notes)
        return
    exact = (
        "exact"
        if encoding.exact
        else f"estimated from {encoding.num_draws} draws (integer or lattice columns)"
    )
    say(f"likelihood  {exact}")
    if encoding.given:
        say(f"given       {', '.join(encoding.given)}")
    if encoding.weights is not None:
        say(f"weights     {encoding.weights}")
    if known := known_scores(flow):
        of, scores = known
        low, middle, high = (float(scores[i * (len(scores) - 1) // 2]) for i in range(3))
        say(f"{of:<11} log_prob from {low:.3f} to {high:.3f}, median {middle:.3f}")
    said = SCORE_QUANTILES, HELD_OUT_SCORES
    _say_notes({name: value for name, value in flow.notes.items() if name not in said})
    say()
    if isinstance(encoding, Cells):
        cells = [(c.name, c.dtype, f"{c.cells}", c.measure) for c in encoding.columns]
        grid([("column", "stored", "cells", "measure"), *cells], right=(2,))
        return
    cells = [(c.name, str(c.kind), c.dtype, f"{c.loc:.6g}", f"{c.scale:.6g}") for c in encoding.columns]
    grid([("column", "kind", "stored", "location", "scale"), *cells], right=(3, 4))


def preset_name(flow: Flow) -> str:
    """The name of the preset that built a flow."""
    return "unknown" if flow.preset is None else type(flow.preset).__name__


def _say_notes(notes: Mapping[str, Any]) -> None:
    for name, value in notes.items():
        parts = [f"{k} {v}" for k, v in value.items()] if isinstance(value, Mapping) else value
        text = _listed(parts) if isinstance(parts, list) else str(parts)
        say(f"{cleaned(name):<11} {cleaned(text)}")


def _listed(parts: Sequence[Any], most: int = 10) -> str:
    """Three figures of many; of other things the first, and how many more there are."""
    if len(parts) > most and all(isinstance(part, float) for part in parts):
        return f"from {min(parts):.3f} to {max(parts):.3f}, median {median(parts):.3f}"
    more = f" and {len(parts) - most:,} more" if len(parts) > most else ""
    return ", ".join(map(str, parts[:most])) + more
