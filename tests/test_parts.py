"""One loop over parts, and random numbers that a seed decides."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import diffeo
from diffeo.errors import ConfigError
from diffeo.flow import in_parts
from diffeo.functional.seeding import generator, seeded


def flow(**fields) -> diffeo.Flow:
    torch.manual_seed(0)
    return diffeo.presets.NSF(2, layers=2, hidden=8, blocks=1, bins=4, dropout=0.5, **fields).build()


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 13])
def test_parts_are_put_together_again(rows: int):
    made, x = flow(), torch.randn(rows, 2)
    seen: list[int] = []

    def both(part: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(part))
        return part.sum(1), part

    total, same = in_parts(made, both, x, batch_size=4)
    assert torch.equal(total, x.sum(1))
    assert torch.equal(same, x)
    assert max(seen) <= 4
    assert sum(seen) == rows


def test_a_missing_context_stays_missing_and_one_is_cut_with_the_rows():
    made, x, context = flow(context=1), torch.randn(7, 2), torch.randn(7, 1)
    whole = made.eval().log_prob(x, context)
    assert torch.allclose(in_parts(made, made.log_prob, x, context, batch_size=3), whole, atol=1e-6)
    plain = flow()
    assert in_parts(plain, plain.log_prob, x, None, batch_size=3).shape == (7,)


def test_evaluation_without_gradients_and_every_layer_as_it_was():
    made = flow()
    made.train()
    list(made.modules())[-1].eval()
    modes = [m.training for m in made.modules()]
    x = torch.randn(9, 2)
    one, other = (in_parts(made, made.log_prob, x, batch_size=4) for _ in range(2))
    assert torch.equal(one, other), "dropout was on"
    assert not one.requires_grad
    assert [m.training for m in made.modules()] == modes

    def fail(part: Tensor) -> Tensor:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        in_parts(made, fail, x, batch_size=4)
    assert [m.training for m in made.modules()] == modes


def test_a_batch_size_of_none_is_refused():
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        in_parts(flow(), lambda part: part, torch.zeros(3, 2), batch_size=0)


def test_a_seeded_block_leaves_the_state_outside_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeded(5):
        first = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeded(5):
        assert torch.equal(torch.rand(2), first)


def test_generators_with_and_without_a_seed():
    draws = [torch.rand(4, generator=generator(seed)) for seed in (1, 1, 2, None, None)]
    assert torch.equal(draws[0], draws[1])
    assert len({tuple(d.tolist()) for d in draws}) == 4
