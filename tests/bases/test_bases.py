"""Every base density against torch.distributions, quadrature and its own samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as td

from diffeo.bases import (
    Base,
    ContextNormal,
    LearnedNormal,
    MixtureOfNormals,
    Normal,
    StudentT,
    Tempered,
    Uniform,
)
from diffeo.errors import ConfigError


class Linear(nn.Linear):
    """The smallest net: a matrix."""

    context_features = 0

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(x)


def learned_normal() -> LearnedNormal:
    base = LearnedNormal((3,))
    nn.init.normal_(base.loc)
    nn.init.normal_(base.log_scale)
    return base


def trained_mixture() -> MixtureOfNormals:
    base = MixtureOfNormals((3,), 4)
    for parameter in base.parameters():
        nn.init.normal_(parameter)
    return base


BASES = {
    "Normal": lambda: Normal((3,)),
    "LearnedNormal": learned_normal,
    "ContextNormal": lambda: ContextNormal((3,), Linear(2, 6)),
    "Tempered": lambda: Tempered(learned_normal(), 0.3),
    "TemperedContext": lambda: Tempered(ContextNormal((3,), Linear(2, 6)), 2.0),
    "Uniform": lambda: Uniform((3,), -1.0, 4.0),
    "StudentT": lambda: StudentT((3,), df=4.5),
    "StudentTLearned": lambda: StudentT((3,), df=9.0, learned=True),
    "MixtureOfNormals": trained_mixture,
}
base_cases = pytest.mark.parametrize("make", BASES.values(), ids=BASES.keys())


def context_for(base: Base, *batch: int, dtype: torch.dtype = torch.float32) -> Tensor | None:
    return None if base.context_shape is None else torch.randn(*batch, *base.context_shape, dtype=dtype)


def oracle(base: Base, context: Tensor | None) -> td.Distribution:
    """The same density, put together from torch.distributions."""
    if isinstance(base, Uniform):
        one = td.Uniform(torch.full((3,), base.low).double(), base.high, validate_args=False)
    elif isinstance(base, StudentT):
        one = td.StudentT(base.df)
    elif isinstance(base, MixtureOfNormals):
        log_scale = base.log_scale / (1 + base.log_scale.abs() / math.log(1000)) + math.log(0.5) / 2
        parts = td.Independent(td.Normal(base.offset + base.loc, log_scale.exp()), 1)
        return td.MixtureSameFamily(td.Categorical(logits=base.logits), parts)
    else:
        assert isinstance(base, (Normal, LearnedNormal, ContextNormal, Tempered))
        loc, log_scale = base.loc_and_log_scale(context)
        one = td.Normal(loc.expand(3) if loc.dim() == 0 else loc, log_scale.exp())
    return td.Independent(one, 1)


@base_cases
def test_log_prob_agrees_with_torch_distributions(make):
    torch.manual_seed(0)
    base = make().double()
    z, context = 3 * torch.randn(50, 3).double(), context_for(base, 50, dtype=torch.float64)
    got, expected = base.log_prob(z, context), oracle(base, context).log_prob(z)
    assert got.shape == (50,)
    assert torch.allclose(got, expected)


@base_cases
def test_samples_follow_the_density(make):
    """The mean and spread of the samples' log-densities, against the oracle's own samples."""
    torch.manual_seed(1)
    base = make()
    context = context_for(base, 1)
    many = None if context is None else context.expand(20_000, -1)
    z = base.sample((20_000,), many, generator=torch.Generator().manual_seed(2))
    assert z.shape == (20_000, 3)
    if context is None:
        theirs = oracle(base, None).sample((20_000,)).float()
    else:
        theirs = oracle(base, context).sample((20_000,))[:, 0]
    for f in (lambda t: base.log_prob(t, many), lambda t: t[:, 0].tanh(), lambda t: t[:, 1].abs().log()):
        a, b = f(z).detach(), f(theirs).detach()
        error = torch.sqrt((a.var() + b.var()) / 20_000)
        assert (a.mean() - b.mean()).abs() <= 4.5 * error + 1e-5


@base_cases
def test_sampling_honors_the_generator_and_the_dtype(make):
    base = make().double()
    context = context_for(base, 7, dtype=torch.float64)
    first, second = (base.sample((7,), context, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert first.dtype == torch.float64
    assert torch.equal(first, second)
    state = torch.get_rng_state()
    base.sample((7,), context, generator=torch.Generator())
    assert torch.equal(state, torch.get_rng_state())


@base_cases
@pytest.mark.parametrize("value", [0.0, 1e6, -1e6])
def test_far_points_have_finite_float32_gradients(make, value: float):
    base = make()
    z = torch.full((2, 3), value, requires_grad=True)
    log_prob = base.log_prob(z, context_for(base, 2))
    assert log_prob.dtype == torch.float32
    assert log_prob.isfinite().all() or isinstance(base, Uniform)
    log_prob.sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in base.parameters() if p.grad is not None)


@base_cases
def test_nan_stays_nan(make):
    """flowjax turns a NaN log-density into -inf."""
    base = make()
    z = torch.zeros(2, 3)
    z[0, 1] = torch.nan
    assert base.log_prob(z, context_for(base, 2)).isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    "base",
    [Normal((1,)), Uniform((1,), -2.0, 0.5), StudentT((1,), df=3.0), MixtureOfNormals((1,), 5),
     Tempered(Normal((1,)), 0.1)],
    ids=lambda base: type(base).__name__,
)  # fmt: skip
def test_density_integrates_to_one(base: Base):
    u = torch.linspace(-1, 1, 200_003, dtype=torch.float64)[1:-1]  # z = tan covers the whole line
    z, weight = torch.tan(u * math.pi / 2), math.pi / 2 / torch.cos(u * math.pi / 2) ** 2
    density = base.double().log_prob(z[:, None]).exp() * weight
    assert abs(torch.trapezoid(density, u).item() - 1) < 1e-4


@pytest.mark.parametrize("event_shape", [(), (2, 2)])
def test_any_event_shape(event_shape: tuple[int, ...]):
    for base in (Normal(event_shape), LearnedNormal(event_shape), Uniform(event_shape), StudentT(event_shape),
                 MixtureOfNormals(event_shape, 3)):  # fmt: skip
        z = base.sample((4, 5))
        assert z.shape == (4, 5, *event_shape)
        assert base.log_prob(z).shape == (4, 5)


def test_uniform_is_minus_infinity_outside_with_zero_gradient():
    base = Uniform((2,), 0.0, 2.0)
    z = torch.tensor([[1.0, 3.0], [0.0, 2.0], [math.inf, 1.0]], requires_grad=True)
    log_prob = base.log_prob(z)
    assert log_prob.tolist() == pytest.approx([-math.inf, -2 * math.log(2), -math.inf])
    log_prob.sum().backward()
    assert z.grad is not None
    assert (z.grad == 0).all()


def test_tempering_is_the_power_renormalized():
    base, z = learned_normal().double(), torch.randn(20, 3).double()
    powered = base.log_prob(z) / 0.3
    shift = Tempered(base, 0.3).log_prob(z) - powered
    assert torch.allclose(shift, shift[0].expand(20))


def test_student_with_many_degrees_is_the_normal_in_float32():
    z = torch.linspace(-3, 3, 50)[:, None]
    assert torch.allclose(StudentT((1,), df=1e7).log_prob(z), Normal((1,)).log_prob(z), atol=1e-5)


def test_students_degrees_are_learned_from_its_tails():
    torch.manual_seed(0)
    data = td.StudentT(3.0).sample((5000, 1))
    base = StudentT((1,), df=30.0, learned=True)
    optimizer = torch.optim.Adam(base.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        (-base.log_prob(data).mean()).backward()
        optimizer.step()
    assert 2.5 < base.df.item() < 3.6


def test_an_untrained_mixture_has_mean_zero_and_variance_one():
    base = MixtureOfNormals((2,), 6).double()
    z = torch.linspace(-12, 12, 4001).double()
    for feature in range(2):
        one = MixtureOfNormals((1,), 6).double()
        one.offset = base.offset[:, feature : feature + 1]
        density = one.log_prob(z[:, None]).exp()
        assert abs(torch.trapezoid(z * density, z).item()) < 1e-6
        assert abs(torch.trapezoid(z**2 * density, z).item() - 1) < 1e-6


def test_one_component_is_the_standard_normal():
    z = torch.randn(10, 2)
    assert torch.allclose(MixtureOfNormals((2,), 1).log_prob(z), Normal((2,)).log_prob(z))


def test_training_separates_the_components():
    torch.manual_seed(0)
    centers = torch.tensor([-4.0, 0.0, 4.0])
    data = (centers[torch.arange(600) % 3] + 0.3 * torch.randn(600))[:, None]
    base = MixtureOfNormals((1,), 3)
    optimizer = torch.optim.Adam(base.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (-base.log_prob(data).mean()).backward()
        optimizer.step()
    found = (base.offset + base.loc).detach().flatten().sort()[0]
    assert torch.allclose(found, centers, atol=0.15)


def test_bad_arguments_are_refused():
    with pytest.raises(ConfigError, match="6: a mean"):
        ContextNormal((3,), Linear(2, 5))
    for make in (
        lambda: Uniform((1,), 1.0, 1.0),
        lambda: StudentT((1,), df=0.0),
        lambda: MixtureOfNormals((1,), 0),
        lambda: Tempered(Normal((1,)), 0.0),
    ):
        with pytest.raises(ConfigError):
            make()
