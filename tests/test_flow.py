"""The door of ``Flow``: shapes, contexts, what comes out, and how its parts must fit."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

import diffeo
from diffeo.bases import Normal, Uniform
from diffeo.bijections import Chain, Pointwise, Reverse, Sigmoid, Standardize
from diffeo.contexts import Classes
from diffeo.elementwise import Affine
from diffeo.encodings import Column, Columns, StandardizedContext
from diffeo.encodings.kinds import Integer, Positive
from diffeo.errors import ConfigError, ContextError, DataError, DomainError, ShapeError
from diffeo.presets import NSF


def stirred(flow: diffeo.Flow) -> diffeo.Flow:
    """Weights away from their neutral start."""
    generator = torch.Generator().manual_seed(1)
    for value in flow.parameters():
        value.data += 0.1 * torch.randn(value.shape, generator=generator)
    return flow.eval()


def small(**fields: Any) -> diffeo.Flow:
    torch.manual_seed(0)
    return stirred(NSF(2, layers=2, hidden=8, blocks=1, bins=4, **fields).build())


@pytest.fixture
def flow() -> diffeo.Flow:
    return small()


@pytest.fixture
def conditional() -> diffeo.Flow:
    return small(context=3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- shapes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (5,), (4, 5), (0,), (3, 0)], ids=str)
def test_log_prob_has_the_batch_shape(flow: diffeo.Flow, batch: tuple[int, ...]):
    x = torch.randn(*batch, 2)
    assert flow.log_prob(x).shape == batch
    assert flow(x).shape == batch
    assert flow.to_latent(x).shape == (*batch, 2)
    assert flow.to_data(x).shape == (*batch, 2)


@pytest.mark.parametrize(
    ("sample_shape", "shape"),
    [
        ((), (2,)),
        (3, (3, 2)),
        ((3,), (3, 2)),
        (torch.Size([2, 3]), (2, 3, 2)),
        ([4], (4, 2)),
        (0, (0, 2)),
    ],
)
def test_sample_shapes(flow: diffeo.Flow, sample_shape: Any, shape: tuple[int, ...]):
    assert flow.sample(sample_shape).shape == shape
    x, log_prob = flow.sample_and_log_prob(sample_shape)
    assert (x.shape, log_prob.shape) == (shape, shape[:-1])


@pytest.mark.parametrize(
    ("sample_shape", "batch", "shape"),
    [
        ((), (), ()),
        (5, (), (5,)),
        ((), (4,), (4,)),
        (5, (4,), (5, 4)),
        ((2, 5), (3, 4), (2, 5, 3, 4)),
        (2, (0,), (2, 0)),
    ],
)
def test_one_set_of_samples_per_context(
    conditional: diffeo.Flow, sample_shape: Any, batch: tuple[int, ...], shape: tuple[int, ...]
):
    context = torch.randn(*batch, 3)
    assert conditional.sample(sample_shape, context).shape == (*shape, 2)
    x, log_prob = conditional.sample_and_log_prob(sample_shape, context)
    assert (x.shape, log_prob.shape) == ((*shape, 2), shape)


def test_an_integer_and_a_tuple_draw_the_same(flow: diffeo.Flow):
    assert torch.equal(flow.sample(3, generator=seeded()), flow.sample((3,), generator=seeded()))


@pytest.mark.parametrize(
    ("x", "context", "full"),
    [
        ((5, 2), (3,), (5,)),
        ((2,), (5, 3), (5,)),
        ((5, 1, 2), (4, 3), (5, 4)),
        ((5, 2), (1, 3), (5,)),
        ((6, 5, 2), (5, 3), (6, 5)),
        ((0, 2), (3,), (0,)),
    ],
    ids=str,
)
def test_batches_of_data_and_context_broadcast(
    conditional: diffeo.Flow, x: tuple[int, ...], context: tuple[int, ...], full: tuple[int, ...]
):
    rows, given = torch.randn(x, generator=seeded()), torch.randn(context, generator=seeded(1))
    log_prob = conditional.log_prob(rows, given)
    assert log_prob.shape == full
    each = zip(rows.expand(*full, 2).reshape(-1, 2), given.expand(*full, 3).reshape(-1, 3), strict=True)
    expected = [conditional.log_prob(row, c) for row, c in each]
    if expected:
        torch.testing.assert_close(log_prob.flatten(), torch.stack(expected))
    z = conditional.to_latent(rows, given)
    assert z.shape == (*full, 2)
    torch.testing.assert_close(conditional.to_data(z, given), rows.expand(*full, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(), (3,), (2, 1), (5, 3)])
def test_data_of_the_wrong_shape(flow: diffeo.Flow, shape: tuple[int, ...]):
    says = rf"has shape \({', '.join(map(str, shape))},?\).* must end in \(2,\); pass \(\*batch, 2\)"
    with pytest.raises(ShapeError, match="x " + says):
        flow.log_prob(torch.zeros(shape))
    with pytest.raises(ShapeError, match="x " + says):
        flow.to_latent(torch.zeros(shape))
    with pytest.raises(ShapeError, match="x " + says):
        flow.initialize(torch.zeros(shape))
    with pytest.raises(ShapeError, match="z " + says):
        flow.to_data(torch.zeros(shape))


def test_batches_that_do_not_broadcast_are_both_named(conditional: diffeo.Flow):
    with pytest.raises(
        ShapeError, match=r"x of shape \(5, 2\) has batch \(5,\) and context of shape \(4, 3\)"
    ):
        conditional.log_prob(torch.zeros(5, 2), torch.zeros(4, 3))
    with pytest.raises(ShapeError, match=r"z of shape \(5, 2\)"):
        conditional.to_data(torch.zeros(5, 2), torch.zeros(4, 3))


# -- contexts -------------------------------------------------------------------------------------

CALLS = {
    "log_prob": lambda flow, c: flow.log_prob(torch.zeros(2), c),
    "forward": lambda flow, c: flow(torch.zeros(2), c),
    "draw_log_probs": lambda flow, c: flow.draw_log_probs(torch.zeros(2), c),
    "sample": lambda flow, c: flow.sample(2, c),
    "sample_and_log_prob": lambda flow, c: flow.sample_and_log_prob(2, c),
    "to_latent": lambda flow, c: flow.to_latent(torch.zeros(2), c),
    "to_data": lambda flow, c: flow.to_data(torch.zeros(2), c),
    "initialize": lambda flow, c: flow.initialize(torch.zeros(4, 2), c),
    "distribution.log_prob": lambda flow, c: flow.distribution(c).log_prob(torch.zeros(2)),
    "distribution.sample": lambda flow, c: flow.distribution(c).sample(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_contexts_missing_unwanted_or_of_the_wrong_shape(
    call: Any, flow: diffeo.Flow, conditional: diffeo.Flow
):
    with pytest.raises(ContextError, match=r"needs a context of shape \(\*batch, 3\)"):
        call(conditional, None)
    with pytest.raises(ContextError, match=r"takes no context, but one of shape \(3,\) was given"):
        call(flow, torch.zeros(3))
    with pytest.raises(ShapeError, match=r"context has shape \(4,\).* must end in \(3,\)"):
        call(conditional, torch.zeros(4))


def test_the_context_matters_and_passes_its_encoding():
    flow = small(context=3)
    flow.initialize(torch.randn(50, 2), 100 + 10 * torch.randn(50, 3, generator=seeded()))
    x = torch.zeros(2)
    first, second = flow.log_prob(x, torch.tensor([[90.0, 100, 100], [110.0, 100, 100]]))
    assert first != second
    assert abs(first - second) < 5  # raw contexts of 100 would send the net far off


def test_classes_are_scalars_of_any_integer_type():
    flow = small(context=Classes(3))
    assert flow.context_shape == ()
    classes = torch.tensor([0, 1, 2])
    log_prob = flow.log_prob(torch.zeros(2), classes)
    assert log_prob.shape == (3,)
    assert len(set(log_prob.tolist())) == 3
    for dtype in (torch.int32, torch.uint8, torch.float32):
        assert torch.equal(log_prob, flow.log_prob(torch.zeros(2), classes.to(dtype)))
    assert flow.sample(4, classes).shape == (4, 3, 2)


# -- density and samples --------------------------------------------------------------------------


def test_the_density_is_the_bases_times_the_volume_change(flow: diffeo.Flow):
    x = torch.randn(20, 2)
    z, log_det = flow.bijection(x)
    torch.testing.assert_close(flow.log_prob(x), flow.base.log_prob(z) + log_det)
    jacobian = torch.func.vmap(torch.func.jacrev(flow.to_latent))(x)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian)[1], rtol=1e-4, atol=1e-4)


def test_the_density_integrates_to_one(flow: diffeo.Flow):
    axis = torch.linspace(-8, 8, 321)
    with torch.no_grad():
        total = flow.log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * 0.05**2
    assert abs(total - 1) < 1e-3


def test_latent_and_data_are_inverse(flow: diffeo.Flow):
    x = torch.randn(50, 2)
    torch.testing.assert_close(flow.to_data(flow.to_latent(x)), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "context", [None, torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]])], ids=["none", "two"]
)
def test_samples_come_with_their_density(context: Tensor | None):
    flow = small(context=None if context is None else 3)
    x, log_prob = flow.sample_and_log_prob(6, context, generator=seeded())
    torch.testing.assert_close(log_prob, flow.log_prob(x, context), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(x, flow.sample(6, context, generator=seeded()))


def test_gradients_pass_through_sample_and_log_prob_only(flow: diffeo.Flow):
    assert not flow.sample(3).requires_grad
    x, log_prob = flow.sample_and_log_prob(3)
    gradients = torch.autograd.grad(x.sum() + log_prob.sum(), list(flow.parameters()), allow_unused=True)
    assert any(g is not None and bool(g.abs().sum() > 0) for g in gradients)


def test_a_generator_decides_and_spares_the_global_state(flow: diffeo.Flow):
    state = torch.get_rng_state()
    first = flow.sample(5, generator=seeded(3))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, flow.sample(5, generator=seeded(3)))
    assert not torch.equal(first, flow.sample(5, generator=seeded(4)))
    torch.manual_seed(3)
    assert not torch.equal(torch.get_rng_state(), state)
    again = flow.sample(5)
    torch.manual_seed(3)
    assert torch.equal(again, flow.sample(5))


@pytest.mark.parametrize("context", [None, 3])
def test_double_in_double_out(context: int | None):
    flow = small(context=context)
    wide = copy.deepcopy(flow).double()
    x, given = torch.randn(20, 2), None if context is None else torch.randn(20, 3)
    as_double = None if given is None else given.double()
    log_prob = wide.log_prob(x.double(), as_double)
    assert log_prob.dtype == torch.float64
    torch.testing.assert_close(log_prob.float(), flow.log_prob(x, given), rtol=1e-4, atol=1e-4)
    z = wide.to_latent(x.double(), as_double)
    torch.testing.assert_close(wide.to_data(z, as_double), x.double(), rtol=1e-10, atol=1e-10)
    drawn, density = wide.sample_and_log_prob((), as_double)
    assert drawn.dtype == density.dtype == torch.float64
    assert flow.sample(2, given).dtype == torch.float32


def test_nan_in_nan_out(flow: diffeo.Flow):
    log_prob = flow.log_prob(torch.tensor([[math.nan, 0.0], [0.0, 0.0]]))
    assert log_prob.isnan().tolist() == [True, False]


# -- set from data --------------------------------------------------------------------------------


def test_initialize_sets_once_and_leaves_the_units_to_the_density(flow: diffeo.Flow):
    flow = NSF(2, layers=1, hidden=8).build()
    x = torch.randn(200, 2, generator=seeded()) * torch.tensor([3.0, 0.1]) + 5
    flow.initialize(x)
    expected = torch.distributions.Normal(x.mean(0), x.std(0, unbiased=False)).log_prob(x).sum(-1)
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=1e-4, atol=1e-4)
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    flow.initialize(100 * x)
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())


# -- as a distribution ----------------------------------------------------------------------------


def test_a_flow_as_a_distribution(flow: diffeo.Flow):
    distribution = flow.distribution()
    assert isinstance(distribution, Distribution)
    assert (distribution.batch_shape, distribution.event_shape) == ((), (2,))
    assert distribution.has_rsample
    x = distribution.sample((7, 3))
    assert x.shape == (7, 3, 2)
    assert not x.requires_grad
    assert torch.equal(distribution.log_prob(x), flow.log_prob(x))
    assert distribution.rsample((4,)).requires_grad
    assert distribution.support.check(torch.zeros(5, 2)).shape == (5,)


def test_a_distribution_at_a_fixed_context(conditional: diffeo.Flow):
    context = torch.randn(4, 3)
    distribution = conditional.distribution(context)
    assert (distribution.batch_shape, distribution.event_shape) == ((4,), (2,))
    x = distribution.sample((5,))
    assert x.shape == (5, 4, 2)
    assert torch.equal(distribution.log_prob(x), conditional.log_prob(x, context))
    assert distribution.log_prob(torch.zeros(2)).shape == (4,)
    wider = distribution.expand((6, 4))
    assert wider.batch_shape == (6, 4)
    assert wider.sample().shape == (6, 4, 2)


# -- parts that do not fit ------------------------------------------------------------------------


class Given(Normal):
    """A base that wants a context."""

    def __init__(self, context_shape: tuple[int, ...]):
        super().__init__((2,))
        self.context_shape = torch.Size(context_shape)


def test_parts_that_do_not_fit_each_other():
    identity = Standardize((2,))
    with pytest.raises(ShapeError, match=r"latent shape is \(2,\) but the base has event shape \(3,\)"):
        diffeo.Flow(identity, Normal((3,)))
    with pytest.raises(DomainError, match="ends on .* but the base lives on"):
        diffeo.Flow(Sigmoid((2,)), Normal((2,)))
    with pytest.raises(DomainError, match="ends on .* but the base lives on"):
        diffeo.Flow(identity, Uniform((2,)))
    with pytest.raises(
        ShapeError, match=r"encoding gives vectors of shape \(1,\) but the bijection takes \(2,\)"
    ):
        diffeo.Flow(identity, Normal((2,)), Columns([Column("a", Positive())]))
    with pytest.raises(ShapeError, match=r"contexts of different shapes: \[\(3,\), \(4,\)\]"):
        diffeo.Flow(identity, Given((3,)), context_encoding=StandardizedContext(4))


def test_parts_that_fit():
    assert diffeo.Flow(Sigmoid((2,)), Uniform((2,))).log_prob(torch.zeros(2)).shape == ()
    anything = diffeo.Flow(Reverse(2), Uniform((2,)))  # a permutation ends wherever it begins
    assert anything.log_prob(torch.tensor([0.5, 0.5])) == 0
    assert diffeo.Flow(Standardize((2,)), Given((3,))).context_shape == (3,)
    assert diffeo.Flow(Standardize(()), Normal(())).sample(4).shape == (4,)


def test_a_flow_is_a_module(flow: diffeo.Flow):
    assert isinstance(flow, nn.Module)
    twin = NSF(2, layers=2, hidden=8, blocks=1, bins=4).build()
    twin.load_state_dict(flow.state_dict())
    x = torch.randn(5, 2)
    assert torch.equal(twin.log_prob(x), flow.log_prob(x))
    assert torch.equal(copy.deepcopy(flow).log_prob(x), flow.log_prob(x))


# -- behind an encoding ---------------------------------------------------------------------------


def encoded(kind: Any) -> diffeo.Flow:
    flow = Pointwise(Affine(), (1,))
    return stirred(diffeo.Flow(Chain([flow]), Normal((1,)), Columns([Column("a", kind)], num_draws=8)))


def test_an_exact_encoding():
    flow = encoded(Positive())
    x, log_prob = flow.sample_and_log_prob(50, generator=seeded())
    assert x.dtype == torch.float64
    assert (x > 0).all()
    torch.testing.assert_close(log_prob, flow.log_prob(x), rtol=1e-4, atol=1e-4)
    assert flow.draw_log_probs(x).shape == (1, 50)
    torch.testing.assert_close(flow.to_data(flow.to_latent(x)), x, rtol=1e-4, atol=1e-4)
    assert flow.log_prob(torch.tensor([-1.0], dtype=torch.float64)) == -math.inf


def test_an_encoding_whose_likelihood_is_a_bound():
    flow = encoded(Integer())
    x = torch.arange(-3.0, 4.0).double()[:, None]
    draws = flow.draw_log_probs(x)
    assert draws.shape == (8, 7)
    torch.testing.assert_close(flow.log_prob(x), draws.logsumexp(0) - math.log(8))
    assert torch.equal(flow.sample(30), flow.sample(30).round()) or (flow.sample(30) % 1 == 0).all()
    with pytest.raises(ConfigError, match="call sample, then log_prob"):
        flow.sample_and_log_prob(3)
    mass = flow.log_prob(torch.arange(-60.0, 61.0).double()[:, None]).exp().sum()
    assert abs(mass - 1) < 0.02


def test_points_of_another_dtype_are_refused_with_the_cure():
    flow = diffeo.presets.MAF(features=2).build()
    with pytest.raises(DataError, match=r"x is torch.float64 .* pass x.to\(torch.float32\)"):
        flow.log_prob(torch.zeros(3, 2, dtype=torch.float64))


def test_a_distribution_without_context_expands():
    d = diffeo.presets.MAF(features=2).build().distribution().expand((3,))
    assert d.batch_shape == (3,)
    assert d.sample((4,)).shape == (4, 3, 2)
    assert d.log_prob(torch.zeros(2)).shape == (3,)
