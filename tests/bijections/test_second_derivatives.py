"""Second derivatives through inverses that are solved: right, or an error; never 0 without a word."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffeo.bijections import Bijection, Contractive
from diffeo.errors import ConfigError
from diffeo.functional.log_dets import EXACT_FEATURES
from diffeo.nets import LipschitzMLP
from diffeo.testing import randomize_
from tests.cases import CASES

SOLVED = [name for name, make in CASES["bijections"].items() if not make().traits.closed_form]


def derivatives(layer: Bijection, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of a sum over the inverse: the gradient, and the change of the gradient in the direction of ones."""
    y = y.detach().requires_grad_()
    x, log_det = layer.inverse(y, context)
    weights = torch.linspace(1, 2, x.numel(), dtype=x.dtype).reshape(x.shape)
    (first,) = torch.autograd.grad((weights * x).sum() + log_det.sum(), y, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), y)
    return first.detach(), second


@pytest.mark.parametrize("name", [name for name in SOLVED if "adjoint" not in name])
def test_second_derivatives_of_solved_inverses(name: str) -> None:
    layer = CASES["bijections"][name]().double().eval()
    randomize_(layer, seed=1)
    draws = torch.Generator().manual_seed(0)
    context = torch.randn(3, *layer.context_shape, generator=draws).double() if layer.context_shape else None
    with torch.no_grad():
        y, _ = layer(0.7 * torch.randn(3, *layer.event_shape, generator=draws).double(), context)
    step = 1e-5
    wanted = (derivatives(layer, y + step, context)[0] - derivatives(layer, y - step, context)[0]) / (
        2 * step
    )
    found = derivatives(layer, y, context)[1]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * (1 + wanted.abs().max().item()))


def test_where_there_are_none_asking_for_them_is_an_error() -> None:
    wide = Contractive(LipschitzMLP(EXACT_FEATURES + 1, (8,))).double().eval()
    adjoint = CASES["bijections"]["Continuous, adjoint"]().double().eval()
    for layer in (wide, adjoint):
        randomize_(layer, seed=1)
        y = torch.full((2, *layer.event_shape), 0.3, dtype=torch.float64)
        with pytest.raises(ConfigError, match="second derivatives"):
            derivatives(layer, y, None)
