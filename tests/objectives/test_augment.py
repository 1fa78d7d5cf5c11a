"""Mirrored images: in training at random and by their right share, in evaluation never."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from diffeo.bases import Normal
from diffeo.bijections import Tokens
from diffeo.flow import Flow
from diffeo.objectives import Batch, Flipped, Likelihood


@dataclass
class Seen:
    """Remembers the batches it is handed."""

    batches: list[Batch] = field(default_factory=list)

    def __call__(self, flow, batch):
        self.batches.append(batch)
        return batch.x.sum()


def flow() -> Flow:
    return Flow(Tokens((1, 2, 3)), Normal((6, 1)))


def images(rows: int) -> torch.Tensor:
    return torch.arange(rows * 6, dtype=torch.float32).reshape(rows, 1, 2, 3)


def test_each_image_is_mirrored_or_not():
    seen, x = Seen(), images(1000)
    batch = Batch(x, x + 0.5, torch.ones(1000), torch.arange(1000))
    torch.manual_seed(0)
    Flipped(seen)(flow().train(), batch)
    (found,) = seen.batches
    mirrored = (found.x == x.flip(-1)).flatten(1).all(1)
    assert bool((mirrored | (found.x == x).flatten(1).all(1)).all())
    assert 450 < int(mirrored.sum()) < 550
    assert found.context is not None
    assert torch.equal(found.context, found.x + 0.5)  # a context that is an image goes with it
    assert torch.equal(found.rows, batch.rows)
    assert torch.equal(x, images(1000))  # the data stay as they were


def test_the_generator_decides():
    seen, batch = Seen(), Batch(images(20), torch.ones(20, 2), None, torch.arange(20))
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        Flipped(seen)(flow().train(), batch)
    first, again, other = (b.x for b in seen.batches)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert seen.batches[0].context is batch.context


def test_evaluation_mirrors_nothing():
    batch = Batch(torch.randn(20, 1, 2, 3), None, None, torch.arange(20))
    plain = Likelihood()(flow().eval(), batch)
    state = torch.get_rng_state()
    assert torch.equal(Flipped()(flow().eval(), batch), plain)
    assert torch.equal(torch.get_rng_state(), state)
    assert repr(Flipped()) == "Flipped(objective=Likelihood())"  # a checkpoint knows the run by it
