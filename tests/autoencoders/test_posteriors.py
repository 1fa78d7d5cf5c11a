"""Posteriors: the density of their own draws, against the Jacobian of the draws in the noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from diffeo import autoencoders as ae
from diffeo.flow import Flow
from diffeo.nets import MLP
from diffeo.testing.points import randomize_

F64 = torch.float64
L, H = 4, 3
KINDS: dict[str, Callable[[], Flow]] = {
    "diagonal": lambda: ae.diagonal(L, H),
    "planar": lambda: ae.planar(L, H, layers=3),
    "sylvester": lambda: ae.sylvester(L, H, layers=2, rank=3),
    "sylvester, few reflections": lambda: ae.sylvester(L, H, layers=1, rank=4, reflections=2),
    "iaf": lambda: ae.iaf(L, H, layers=2, hidden=(8,)),
}
each = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())


def encoding(posterior: Flow) -> ae.VariationalEncoding:
    return ae.VariationalEncoding(torch.nn.Identity(), posterior, ae.Bernoulli(MLP(L, 2), (2,), L))


@each
def test_density_of_draws_is_the_jacobians(make):
    torch.manual_seed(0)
    posterior = make().double()
    randomize_(posterior, 0, 0.4)
    own = encoding(posterior).double()
    for _ in range(3):
        noise, context = torch.randn(L, dtype=F64), torch.randn(H, dtype=F64)
        z, log_q = own.place(noise, context)
        jacobian = torch.autograd.functional.jacobian(lambda e, c=context: own.place(e, c)[0], noise)
        wanted = -0.5 * (noise.square() + math.log(2 * math.pi)).sum() - torch.linalg.slogdet(jacobian)[1]
        assert torch.allclose(log_q, wanted, atol=1e-10)
        assert torch.allclose(posterior.log_prob(z, context), log_q, atol=1e-8)


@each
def test_every_posterior_starts_as_the_normal(make):
    own = encoding(make())
    noise, context = torch.randn(2, 5, L), torch.randn(5, H)
    z, log_q = own.place(noise, context)
    moved = noise + context @ own.posterior.base.net.output.weight[:L].T
    assert torch.allclose(z.sort(-1).values, moved.sort(-1).values, atol=1e-6)  # IAF turns the order
    assert (moved - noise).std(1).min() > 0.1  # else nothing of x would reach z, and no decoder would start
    wanted = torch.distributions.Normal(0, 1).log_prob(noise).sum(-1)
    assert torch.allclose(log_q, wanted, atol=1e-5)


@each
def test_all_of_a_posterior_depends_on_the_context(make):
    posterior = make().double()
    randomize_(posterior, 0, 0.4)
    own = encoding(posterior).double()
    context = torch.randn(H, dtype=F64, requires_grad=True)
    z, log_q = own.place(torch.randn(L, dtype=F64), context)
    for number in (*z, log_q):
        (grad,) = torch.autograd.grad(number, context, retain_graph=True)
        assert (grad != 0).all()
    (z.sum() + log_q).backward()
    assert all(p.grad is not None for p in posterior.parameters())


def test_drawing_needs_no_numeric_inverse(monkeypatch):
    """Planar and Sylvester layers run in their papers' direction."""

    def refuse(*_):
        raise AssertionError("an inverse was solved for")

    monkeypatch.setattr("diffeo.bijections.planar.unbend", refuse)
    for make in KINDS.values():
        encoding(make()).place(torch.randn(5, L), torch.randn(5, H))
