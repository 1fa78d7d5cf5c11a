"""Writes this release's model files and, in their notes, what they have to score: run once, at the release.

python tests/golden/make.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import diffeo
from diffeo.encodings import Column, Columns
from diffeo.encodings.kinds import Bounded, Circular, Constant, Continuous, Integer, Lattice, Positive
from diffeo.tables import Table, score_table
from diffeo.tables.scores import SCORE_QUANTILES, score_quantiles

GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def vectors() -> None:
    """A conditional flow of vectors, standardized."""
    flow = diffeo.presets.NSF(features=3, context=2, layers=2, hidden=16, blocks=1, bins=4).build().double()
    flow.initialize(1.0 + 2.0 * draw(256, 3), draw(256, 2))
    stir(flow)
    x, context = 1.0 + 3.0 * draw(16, 3), draw(16, 2)
    with torch.no_grad():
        answers = {"z": flow.to_latent(x, context), "log_prob": flow.log_prob(x, context)}
    write(flow, "", {"x": x, "context": context, **answers})


def table() -> None:
    """A table's flow, with the quantiles of its training rows' scores."""
    columns = Columns(
        [
            Column("height", Continuous(), "float32", loc=1.5, scale=2.0),
            Column("price", Positive(), loc=0.5, scale=2.0),
            Column("share", Bounded(0.0, 1.0)),
            Column("count", Integer(), "int64", loc=3.0, scale=1.5),
            Column("grade", Lattice(0.5, 0.25), loc=2.0, scale=1.5),
            Column("unit", Constant(7.0)),
            Column("angle", Circular(0.0, 360.0)),
        ],
        draws=4,
    )
    preset = diffeo.presets.Tabular(features=6, layers=2, hidden=8, blocks=1, bins=4, circular=(5,))
    flow = preset.build(columns).double()
    stir(flow)
    x = columns.decode(draw(64, 6).clamp(-3, 3))
    with torch.no_grad():
        log_prob = flow.log_prob(x)
    flow.notes = {SCORE_QUANTILES: score_quantiles(log_prob.numpy())}
    quantile = score_table(flow, Table.from_values(columns.names, x.numpy())).quantile
    write(flow, "-table", {"x": x, "log_prob": log_prob, "quantile": quantile})


def stir(flow: diffeo.Flow) -> None:
    for value in flow.parameters():
        value.data += 0.2 * draw(*value.shape)
    flow.eval()


def write(flow: diffeo.Flow, suffix: str, notes: dict[str, torch.Tensor | np.ndarray]) -> None:
    path = Path(__file__).with_name(f"{diffeo.__version__}{suffix}.safetensors")
    flow.notes |= {name: value.tolist() for name, value in notes.items()}
    diffeo.save(flow, path)


def main() -> None:
    torch.manual_seed(0)
    vectors()
    table()


if __name__ == "__main__":
    main()
