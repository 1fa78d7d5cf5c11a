"""Contexts of one's own: an embedding net goes wherever ``Vector`` does, except into a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import diffeo
from diffeo.contexts import Classes, ContextSpec, Image, Vector
from diffeo.encodings import ContextEncoding
from diffeo.errors import ConfigError, ContextError
from diffeo.presets import MAF, NSF, Glow
from diffeo.testing import check_flow


class Embedding(ContextEncoding):
    """Sums what a small net makes of each of the observations: their order does not matter."""

    def __init__(self, observations: int, size: int):
        super().__init__()
        self.event_shape, self.latent_shape = torch.Size((observations, 2)), torch.Size((size,))
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, size))

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        pass

    def forward(self, context: Tensor) -> Tensor:
        return self.net(context).sum(-2)


@dataclass(frozen=True)
class Observations(ContextSpec):
    count: int
    size: int = 3

    @property
    def latent_shape(self) -> torch.Size:
        return torch.Size((self.size,))

    def build(self) -> ContextEncoding:
        return Embedding(self.count, self.size)


@dataclass(frozen=True)
class Sequence(ContextSpec):
    latent_shape = torch.Size((5, 2))

    def build(self) -> ContextEncoding:
        raise AssertionError("refused before it is built")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("spec", [Vector(3), Classes(3), Image(1, 2, 3), Observations(3)], ids=str)
def test_a_spec_tells_the_shape_of_what_it_builds(spec: ContextSpec):
    assert spec.build().latent_shape == spec.latent_shape


def test_a_flow_learns_through_an_embedding_net():
    torch.manual_seed(0)
    flow = NSF(1, Observations(4), layers=1, hidden=16, blocks=1).build()
    assert flow.context_shape == (4, 2)
    observations = normal(1500, 4, 2)
    x = 2 * observations[:, :, 0].sum(1, keepdim=True) + 0.3 * normal(1500, 1, seed=1)
    before = flow.log_prob(x, observations).mean()
    diffeo.fit(flow, x, observations, max_steps=200, seed=0)
    assert flow.log_prob(x, observations).mean() > before + 1
    shuffled = flow.log_prob(x, observations[:, [2, 0, 3, 1]])
    torch.testing.assert_close(shuffled, flow.log_prob(x, observations), rtol=0, atol=1e-3)
    with pytest.raises(ContextError, match="needs a context"):
        flow.log_prob(x)


def test_a_flow_with_one_holds_the_contract():
    check_flow(MAF(2, Observations(3), layers=2, hidden=(8,)).build())


def test_images_take_one_too():
    flow = Glow((1, 4, 4), Observations(3), levels=1, layers=1, hidden=4).build()
    assert flow.sample(context=normal(2, 3, 2)).shape == (2, 1, 4, 4)


def test_a_file_cannot_name_it(tmp_path: Path):
    torch.manual_seed(0)
    preset = NSF(2, Observations(4), layers=1, hidden=8, blocks=1)
    flow, path = preset.build().eval(), tmp_path / "flow"
    with pytest.raises(ConfigError, match=r"Observations is not one of diffeo's contexts.*weights_only=True"):
        diffeo.save(flow, path)
    diffeo.save(flow, path, weights_only=True)
    again = diffeo.load(path, into=preset.build())
    x, context = normal(5, 2), normal(5, 4, 2)
    assert torch.equal(again.log_prob(x, context), flow.log_prob(x, context))


@pytest.mark.parametrize("name", ["Vector", "Image"])
def test_a_name_is_not_enough(name: str, tmp_path: Path):
    spec = type(name, (Observations,), {})(4)
    flow = NSF(2, spec, layers=1, hidden=8, blocks=1).build()
    with pytest.raises(ConfigError, match=f"{name} is not one of diffeo's contexts"):
        diffeo.save(flow, tmp_path / "flow")


def test_contexts_that_do_not_fit_are_refused_by_their_shape():
    with pytest.raises(ConfigError, match=r"MAF is for vectors; .* a context of shape \(1, 2, 2\)"):
        MAF(3, Image(1, 2, 2))
    with pytest.raises(ConfigError, match=r"a context of shape \(5, 2\)"):
        MAF(3, Sequence())
    with pytest.raises(ConfigError, match=r"a vector or an image, not one of shape \(5, 2\)"):
        Glow((1, 4, 4), Sequence())
    for wrong in (True, "Vector", torch.Size((3,)), Observations, 2.5):
        with pytest.raises(ConfigError, match=r"MAF.context must be Vector\(n\)"):
            MAF(3, wrong)  # type: ignore[arg-type]
