"""Layers as JSON: what cannot be written is refused by name. That the numbers are right, test_play shows."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.utils.prune

import diffeo
from diffeo import presets
from diffeo.bases import Normal, StudentT
from diffeo.bijections import LU, Coupling, Planar, Pointwise, Reverse
from diffeo.elementwise import Affine, Bernstein
from diffeo.encodings import Columns
from diffeo.encodings.columns import Column
from diffeo.encodings.kinds import Positive
from diffeo.errors import ConfigError
from diffeo.interop import LAYERS_FORMAT, browser_json
from diffeo.nets import MLP


@pytest.mark.parametrize(
    "flow, message",
    [
        (diffeo.Flow(Reverse(2), StudentT((2,))), "base Normal, not StudentT"),
        (diffeo.Flow(Planar(2), Normal((2,))), "does not know Planar"),
        (diffeo.Flow(Pointwise(Bernstein(4), (2,)), Normal((2,))), "does not know the family Bernstein"),
        (
            diffeo.Flow(
                Coupling([True, False], MLP(1, 2, (4,), activation=torch.tanh), Affine()), Normal((2,))
            ),
            "rectified units; this is MLP",
        ),
        (diffeo.Flow(Pointwise(Affine(), (2, 2)), Normal((2, 2))), r"flows of vectors; .* \(2, 2\)"),
        (presets.NSF(features=2, context=1).build(), "without a context"),
        (
            diffeo.Flow(Reverse(1), Normal((1,)), Columns([Column("price", Positive())])),
            "without an encoding",
        ),
    ],
    ids=["base", "layer", "family", "net", "shape", "context", "encoding"],
)
def test_what_cannot_be_written_is_named(flow, message):
    with pytest.raises(ConfigError, match=message):
        browser_json(flow)


def test_weights_that_are_not_finite_are_refused():
    flow = diffeo.Flow(Pointwise(Affine(), (2,)), Normal((2,)))
    flow.bijection.params.data[0, 0] = torch.nan
    with pytest.raises(ConfigError, match="not finite"):
        browser_json(flow)


def test_hooks_are_not_passed_over():
    flow = presets.NSF(2, layers=1, hidden=4).build()
    net = next(m for m in flow.modules() if isinstance(m, torch.nn.Linear))
    torch.nn.utils.prune.l1_unstructured(net, "weight", 0.5)
    with pytest.raises(ConfigError, match=r"bijection\S* has hooks or a forward of its own"):
        browser_json(flow)
    torch.nn.utils.prune.remove(net, "weight")
    assert browser_json(flow)


def test_numbers_are_written_in_full():
    flow = diffeo.Flow(LU(2), Normal((2,)))
    flow.bijection.bias.data = torch.tensor([0.1, 1e-30])
    spec = json.loads(browser_json(flow))
    assert (spec["format"], spec["features"]) == (LAYERS_FORMAT, 2)
    (layer,) = spec["layers"]
    assert torch.tensor(layer["bias"], dtype=torch.float64).tolist() == flow.bijection.bias.double().tolist()
    assert layer["lower"] == layer["upper"] == [[1.0, 0.0], [0.0, 1.0]]
