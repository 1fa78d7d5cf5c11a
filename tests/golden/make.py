"""Writes this release's model file and, in its notes, what it has to score: run once, at the release.

python tests/golden/make.py
"""

from __future__ import annotations

from pathlib import Path

import torch

import diffeo


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    flow = diffeo.presets.NSF(features=3, context=2, layers=2, hidden=16, blocks=1, bins=4).build().double()

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    flow.initialize(1.0 + 2.0 * draw(256, 3), draw(256, 2))
    for value in flow.parameters():
        value.data += 0.2 * draw(*value.shape)
    flow.eval()
    x, context = 1.0 + 3.0 * draw(16, 3), draw(16, 2)
    with torch.no_grad():
        answers = {"z": flow.to_latent(x, context), "log_prob": flow.log_prob(x, context)}
    notes = {"x": x, "context": context, **answers}
    path = Path(__file__).with_name(f"{diffeo.__version__}.safetensors")
    diffeo.save(flow, path, notes={name: value.tolist() for name, value in notes.items()})


if __name__ == "__main__":
    main()
