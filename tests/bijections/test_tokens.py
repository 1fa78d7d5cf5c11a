"""Autoregressive layers over tokens: the order of pixels, and three ways to one inverse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import diffeo
from diffeo.bijections import AutoregressiveTokens, Jacobi, Stepwise, Tokens, Uncached
from diffeo.elementwise import Affine, IntervalRationalQuadratic, Mixed, PiecewiseLinear, RationalQuadratic
from diffeo.errors import ConfigError, NotConverged, ShapeError
from diffeo.nets import CausalTransformer
from diffeo.presets import TarFlow
from diffeo.testing import randomize_
from diffeo.testing.points import draw, generator

FULL = torch.float64
FAMILIES = [Affine(), IntervalRationalQuadratic(3), PiecewiseLinear(4), RationalQuadratic(4)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=FULL)


def layer(
    length: int = 4, width: int = 2, family: Any = None, reverse: bool = False, scale: float = 0.3, **net: Any
) -> AutoregressiveTokens:
    torch.manual_seed(0)
    family = Affine() if family is None else family
    sizes = {"hidden": 8, "layers": 1, "heads": 2}
    made = CausalTransformer(length, width, family.num_params, **(sizes | net))
    return randomize_(AutoregressiveTokens(made.double(), family, reverse), scale=scale)


# -- tokens ---------------------------------------------------------------------------------------


def test_tokens_go_along_the_rows():
    x = normal(2, 3, 2, 4)
    z, log_det = Tokens((3, 2, 4))(x)
    assert (log_det == 0).all()
    for i in range(2):
        for j in range(4):
            assert torch.equal(z[:, 4 * i + j], x[:, :, i, j])


def test_tokens_are_of_images():
    with pytest.raises(ShapeError, match="height, width"):
        Tokens((4, 4))


@pytest.mark.parametrize("reverse", [False, True])
def test_the_jacobian_is_a_triangle_of_blocks(reverse: bool):
    made, x = layer(reverse=reverse), normal(4, 2)
    jacobian = torch.autograd.functional.jacobian(lambda t: made(t)[0], x)
    blocks = jacobian.abs().sum((1, 3)) > 0  # which token of y sees which of x
    wanted = torch.ones(4, 4, dtype=torch.bool).tril()
    assert torch.equal(blocks, wanted.T if reverse else wanted)
    within = jacobian[2, :, 2, :]
    assert (within.diag() != 0).all()
    assert (within - within.diag().diag() == 0).all()


def test_a_family_for_each_place_in_a_token():
    family = Mixed([Affine(), RationalQuadratic(4)])
    made, x = layer(3, 2, family), normal(5, 3, 2)
    y = made(x)[0]
    params = made.net(x)
    for i, part in enumerate((Affine(), RationalQuadratic(4))):
        own = part.forward(x[..., i], params[..., i, : part.num_params])[0]
        torch.testing.assert_close(y[..., i], own)
    torch.testing.assert_close(made.inverse(y)[0], x)


# -- three ways to one inverse --------------------------------------------------------------------


@settings(max_examples=25)
@given(
    length=st.integers(1, 6),
    width=st.integers(1, 3),
    family=st.sampled_from(FAMILIES),
    reverse=st.booleans(),
    shape=st.sampled_from([None, (2,), (1, 1, 2)]),
    batch=st.lists(st.integers(0, 3), max_size=2),
)
def test_samplers_agree(length: int, width: int, family: Any, reverse: bool, shape: Any, batch: list[int]):
    made = layer(length, width, family, reverse, context_shape=shape)
    y = draw(family.codomain, (*batch, length, width), generator(1), FULL)
    context = None if shape is None else normal(*batch, *shape, seed=2)
    with torch.no_grad():
        plain = made.solve(y, context, Uncached())
        assert plain.passes.tolist() == torch.full(batch, length).tolist()
        for sampler, tolerance in (
            (Stepwise(), 1e-9),
            (Jacobi(1e-13), 1e-7),
            (Jacobi(1e-13, window=1), 1e-7),
            (Jacobi(1e-13, window=2), 1e-7),
            (Jacobi(1e-13, window=9), 1e-7),
        ):
            found = made.solve(y, context, sampler)
            torch.testing.assert_close(found.x, plain.x, rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(found.log_det, plain.log_det, rtol=tolerance, atol=tolerance)
            assert found.passes.shape == torch.Size(batch)
    torch.testing.assert_close(made(plain.x, context)[0], y)


@pytest.mark.parametrize("sampler", [Stepwise(), Uncached(), Jacobi(1e-6)], ids=str)
def test_gradient_of_the_inverse_is_the_inverse_of_the_gradient(sampler: Any):
    made, x = layer(3, 2, context_shape=(2,)), normal(1, 3, 2)
    made.sampler = sampler
    context = normal(1, 2, seed=1)
    y = made(x, context)[0].detach()
    there = torch.autograd.functional.jacobian(lambda t: made(t, context)[0], x).reshape(6, 6)
    back = torch.autograd.functional.jacobian(lambda t: made.inverse(t, context)[0], y).reshape(6, 6)
    torch.testing.assert_close(back @ there, torch.eye(6, dtype=FULL), rtol=0, atol=1e-9)


def test_the_sampler_says_what_the_layer_promises():
    made = layer(5)
    assert (made.traits.closed_form, made.traits.inverse_passes) == (True, 1)
    made.sampler = Uncached()
    assert (made.traits.closed_form, made.traits.inverse_passes) == (True, 5)
    made.sampler = Jacobi(1e-3, most=3)
    assert not made.traits.closed_form
    assert (made.traits.tolerance, made.traits.inverse_passes) == (1e-3, 3)


# -- Jacobi ---------------------------------------------------------------------------------------


class Sum(nn.Module):
    """Token t is shifted by a number and the sum of all before it: as slow for Jacobi as can be."""

    def __init__(self, length: int, steepness: float = 1.0, start: float = 1.0):
        super().__init__()
        self.length, self.width, self.params, self.context_shape = length, 1, 2, None
        self.steepness, self.start = steepness, start

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        below = torch.ones(self.length, self.length, dtype=x.dtype).tril(-1)
        shift = self.start + self.steepness * (below @ x)
        return torch.stack([shift, torch.zeros_like(shift)], -1)

    def stepper(self, context: Tensor | None, batch_shape: torch.Size) -> Any:
        raise AssertionError("no steps were wanted")


@torch.no_grad()
def test_jacobi_is_exact_after_as_many_passes_as_tokens():
    made = AutoregressiveTokens(Sum(7), Affine(), sampler=Jacobi(1e-12))
    y = normal(3, 7, 1) + 3
    solution = made.solve(y)
    torch.testing.assert_close(made(solution.x)[0], y)
    assert solution.passes.tolist() == [7, 7, 7]


@torch.no_grad()
@pytest.mark.parametrize("k", range(1, 7))
def test_after_k_passes_the_first_k_tokens_stand(k: int, monkeypatch: pytest.MonkeyPatch):
    made = AutoregressiveTokens(Sum(7), Affine(), sampler=Jacobi(1e-12))
    y = normal(3, 7, 1) + 3
    exact = made.inverse(y)[0]
    monkeypatch.setattr("diffeo.bijections.token_samplers.certified", lambda x, *_: x)
    x = made.solve(y, sampler=Jacobi(1e-12, most=k)).x
    torch.testing.assert_close(x[:, :k], exact[:, :k])
    assert ((x[:, k] - exact[:, k]).abs() > 1e-6).all()


@torch.no_grad()
def test_jacobi_that_may_not_finish_says_so():
    made = AutoregressiveTokens(Sum(7), Affine(), sampler=Jacobi(1e-6, most=3))
    with pytest.raises(NotConverged, match="Jacobi: 3 of 3 .* after 3 iterations"):
        made.inverse(normal(3, 7, 1) + 3)
    x = torch.zeros(3, 3, 1, dtype=FULL)
    short = AutoregressiveTokens(Sum(3), Affine(), sampler=Jacobi(1e-6, most=3))
    torch.testing.assert_close(short(short.inverse(x)[0])[0], x)


@torch.no_grad()
@pytest.mark.parametrize("family", [Affine(), RationalQuadratic(4)])
def test_a_row_is_an_exact_answer_to_a_question_nearby(family: Any):
    made = layer(12, 2, family, scale=0.2, hidden=16)
    y = normal(20, 12, 2)
    for tolerance, window in ((1e-1, None), (1e-3, None), (1e-6, None), (1e-1, 4), (1e-3, 5), (1e-6, 12)):
        solution = made.solve(y, sampler=Jacobi(tolerance, window=window))
        there, log_det = made(solution.x)
        assert (there - y).abs().max() <= tolerance
        torch.testing.assert_close(solution.log_det, -log_det)
        assert (solution.passes <= 12 + (window is not None)).all()


@torch.no_grad()
def test_windows_do_not_compute_again_what_is_settled():
    made = layer(24, 2, scale=0.2, hidden=16)
    y = normal(20, 24, 2)
    whole, windows, single = (
        made.solve(y, sampler=Jacobi(1e-6, window=w)).passes.mean() for w in (None, 6, 1)
    )
    assert single < 2 + 1e-9  # one pass to compute a token, one to see that it stands
    assert windows < 0.8 * whole


@torch.no_grad()
def test_windows_that_may_not_finish_say_so():
    made = layer(12, 2, scale=0.3, hidden=16)
    with pytest.raises(NotConverged, match="Jacobi: .* after 2 iterations"):
        made.solve(normal(20, 12, 2), sampler=Jacobi(1e-9, most=2, window=6))
    with pytest.raises(ConfigError, match="Sum does not take tokens in windows"):
        AutoregressiveTokens(Sum(7), Affine()).solve(normal(3, 7, 1), sampler=Jacobi(window=2))


@torch.no_grad()
def test_a_loose_tolerance_takes_fewer_passes():
    made = layer(12, 2, scale=0.2, hidden=16)
    y = normal(20, 12, 2)
    passes = [made.solve(y, sampler=Jacobi(t)).passes.double().mean() for t in (1.0, 1e-2, 1e-6)]
    assert passes[0] < passes[1] < passes[2] < 12


@torch.no_grad()
def test_an_untrained_layer_takes_one_pass():
    made = AutoregressiveTokens(CausalTransformer(9, 2, 2, 8), Affine(), sampler=Jacobi())
    y = torch.randn(4, 9, 2)
    solution = made.solve(y)
    assert solution.passes.tolist() == [1] * 4
    assert torch.equal(solution.x, y)


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 5])
def test_rows_do_not_depend_on_their_neighbors(window: int | None):
    made = layer(12, 2, scale=0.2, hidden=16)
    y = normal(6, 12, 2)
    y[0] *= 100  # takes longest
    sampler = Jacobi(1e-4, window=window)
    together = made.solve(y, sampler=sampler)
    alone = [made.solve(row[None], sampler=sampler) for row in y]
    torch.testing.assert_close(together.x, torch.cat([s.x for s in alone]))
    torch.testing.assert_close(together.passes, torch.cat([s.passes for s in alone]))
    assert len(set(together.passes.tolist())) > 1


@torch.no_grad()
def test_what_overflows_on_the_way_does_no_harm():
    """Far from the answer a guess may leave the floats; tokens that do not depend on it must not feel it."""
    made = AutoregressiveTokens(Sum(20, steepness=1e30, start=0.0), Affine(), sampler=Jacobi(1e-6))
    x = torch.zeros(1, 20, 1)
    x[:, 0] = 1
    y = torch.full_like(x, 1e30)
    y[:, 0] = 1
    assert torch.equal(made(x)[0], y)
    assert torch.equal(made.solve(y).x, x)


@torch.no_grad()
@pytest.mark.parametrize(
    "sampler", [Stepwise(), Uncached(), Jacobi(1e-6), Jacobi(1e-6, most=8), Jacobi(1e-6, window=3)], ids=str
)
def test_nan_stays_in_its_row(sampler: Any):
    made = layer(9, 2, scale=0.05)
    y = normal(3, 9, 2)
    clean = made.solve(y, sampler=sampler).x
    y[1, 4, 0] = torch.nan
    x, log_det = (s := made.solve(y, sampler=sampler)).x, s.log_det
    assert x[1].isnan().any()
    assert log_det[1].isnan()
    torch.testing.assert_close(x[[0, 2]], clean[[0, 2]])


def test_where_gradients_are_wanted_jacobi_steps():
    made = layer(6)
    y = normal(2, 6, 2).requires_grad_()
    loose = made.solve(y, sampler=Jacobi(1.0))
    torch.testing.assert_close(loose.x, made.solve(y, sampler=Stepwise()).x)
    assert loose.x.requires_grad


def test_numbers_that_cannot_be():
    for tolerance in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="tolerance must be"):
            Jacobi(tolerance)
    with pytest.raises(ConfigError, match="most must be"):
        Jacobi(most=0)
    with pytest.raises(ConfigError, match="window must be"):
        Jacobi(window=0)
    with pytest.raises(ShapeError, match="build the net with params=2"):
        AutoregressiveTokens(CausalTransformer(3, 2, 3, 8), Affine())
    family = Mixed([Affine(), RationalQuadratic(4)])
    with pytest.raises(ShapeError, match="2 columns"):
        AutoregressiveTokens(CausalTransformer(3, 3, family.num_params, 8), family)


def test_a_flow_with_another_sampler_is_saved_all_the_same(tmp_path):
    flow = TarFlow((1, 2, 2), patch=1, blocks=1, layers=1, hidden=8, heads=2).build()
    for layer in flow.modules():
        if isinstance(layer, AutoregressiveTokens):
            layer.sampler = Jacobi(1e-6)
    diffeo.save(flow, tmp_path / "model")
    again = diffeo.load(tmp_path / "model")
    kinds = [type(m.sampler) for m in again.modules() if isinstance(m, AutoregressiveTokens)]
    assert kinds == [Stepwise]  # how it is sampled is not part of the model
